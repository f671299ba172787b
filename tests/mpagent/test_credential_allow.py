"""Who may have what: the [[credential]] tables of anchors.toml, and the names that peers give themselves."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpagent.anchors import read_anchors
from mpagent.credentials.allow import AllowList, KernelKey, UnitRequest, VolumeRequest
from mpagent.credentials.protocol import MANAGER_UID, TOO_LONG, Peer, read_request
from mpagent.credentials.service import decide
from mpagent.errors import ConfigWrong
from mpwire.secret import Secret

from .test_configuration import ANCHORS, write

UNIT = '[[credential]]\nunit = "app.service"\nid = "cloud-key"\nslot = "cloud"\n'
VOLUME = '[[credential]]\nvolume = "data"\nslot = "disk"\n'
KEYRING = '[[slot]]\nname = "wifi"\nkind = "static"\ndestination = "keyring"\n'
KEY = '[[credential]]\nkey = "app:wifi"\nslot = "wifi"\n'
BEFORE = (ANCHORS + KEYRING).count("\n")
WHOLE = ANCHORS + KEYRING + UNIT + VOLUME + KEY


def test_whole_list_is_read(tmp_path: Path) -> None:
    image, _ = read_anchors(write(tmp_path / "anchors.toml", WHOLE))
    assert image.credentials == AllowList(
        {UnitRequest("app.service", "cloud-key"): "cloud", VolumeRequest("data"): "disk"},
        (KernelKey("app:wifi", "logon", "wifi"),),
    )
    assert read_anchors(write(tmp_path / "bare.toml", ANCHORS))[0].credentials == AllowList()


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('slot = "cloud"', 'slot = "clout"', 4, "no \\[\\[slot\\]\\] of this image"),
        ('slot = "cloud"', 'slot = "wifi"', 4, '"keyring" is for key alone'),
        ('slot = "cloud"', "", 1, "key 'slot' is missing"),
        ('slot = "cloud"', 'slot = "cloud"\nuid = 1000', 5, "unknown key 'uid'"),
        ('unit = "app.service"', 'unit = "app*.service"', 2, "the whole name of a unit"),
        ('unit = "app.service"', 'unit = "app@.service"', 2, "the whole name of a unit"),
        ('unit = "app.service"', 'unit = "app"', 2, "the whole name of a unit"),
        ('unit = "app.service"', 'unit = "app.timer"', 2, "the whole name of a unit"),
        ('unit = "app.service"', 'unit = "../app.service"', 2, "the whole name of a unit"),
        ('unit = "app.service"', 'unit = "app.service\\n"', 2, "the whole name of a unit"),
        ('unit = "app.service"', f'unit = "{"a" * 67}.service"', 3, "more than 83 bytes"),
        ('unit = "app.service"', 'volume = "data"\nunit = "app.service"', 1, "one receiver"),
        ('unit = "app.service"\n', "", 1, "one receiver"),
        ('id = "cloud-key"', 'id = "cloud:key"', 3, "a credential id"),
        ('id = "cloud-key"', 'id = "cloud/key"', 3, "a credential id"),
        ('id = "cloud-key"', 'id = ".."', 3, "a credential id"),
        ('id = "cloud-key"\n', "", 1, "key 'id' is missing"),
        ('volume = "data"', 'volume = "da/ta"', 6, "the name of a volume"),
        ('volume = "data"', f'volume = "{"v" * 79}"', 6, "more than 78 bytes"),
        ('volume = "data"', 'volume = "data"\nid = "x"', 7, "unknown key 'id'"),
        ('key = "app:wifi"', 'key = "wifi"', 9, "PREFIX:NAME"),
        ('key = "app:wifi"', 'key = "app:wifi"\ntype = "trusted"', 10, "type must be"),
        (KEY, KEY.replace('"wifi"', '"disk"'), 10, '"keyring" is for key alone'),
        (KEY, KEY + KEY, 12, "named twice"),
        (VOLUME, VOLUME + VOLUME, 9, "named twice"),
        (UNIT, UNIT + UNIT.replace('"cloud"', '"disk"'), 6, "named twice"),
    ],
)
def test_wrong_entry_is_named_by_file_and_line(tmp_path: Path, old: str, new: str, line: int, words: str) -> None:
    assert WHOLE.count(old) == 1
    path = write(tmp_path / "anchors.toml", WHOLE.replace(old, new))
    with pytest.raises(ConfigWrong, match=words) as found:
        read_anchors(path)
    assert str(found.value).startswith(f"{path}:{BEFORE + line}: ")


def test_list_without_end_is_cut_off(tmp_path: Path) -> None:
    many = "".join(UNIT.replace("cloud-key", f"k{number}") for number in range(257))
    with pytest.raises(ConfigWrong, match="more than 256 credentials"):
        read_anchors(write(tmp_path / "anchors.toml", ANCHORS + many))


@pytest.mark.parametrize(
    ("address", "request_"),
    [
        (b"\0d7067f78d9827418/unit/app.service/key", UnitRequest("app.service", "key")),
        (b"\0f/unit/app@a\\x2db.service/a.b-c_d", UnitRequest("app@a\\x2db.service", "a.b-c_d")),
        (b"\0d7067f78d9827418/cryptsetup/my-vol", VolumeRequest("my-vol")),
        (b"\0d7067f78d9827418/cryptsetup-tpm2/my-vol", None),
        (b"\0d7067f78d9827418/unit/app.service/", None),
        (b"\0d7067f78d9827418/unit/app.service/a/b", None),
        (b"\0/unit/app.service/key", None),
        (b"\0d7/unit/app.service/key\0", None),
        (b"\0d7/unit/app.service/key\n", None),
        (b"d7067f78d9827418/unit/app.service/key", None),
        (b"/run/unit/app.service/key", None),
        (b"", None),
    ],
)
def test_address_is_read_as_systemd_writes_it(address: bytes, request_: object) -> None:
    """Examples of systemd.exec(5) and crypttab(5), and what is none of these."""
    assert read_request(address) == request_


@given(st.integers(0, 2**32 - 1), st.binary(max_size=108))
def test_nothing_is_read_for_who_is_not_the_manager_or_asks_for_nothing(uid: int, address: bytes) -> None:
    """Whatever comes: no exception, no chip, one printable line."""
    read: list[str] = []

    def refuse(slot: str) -> Secret:
        read.append(slot)
        return Secret(b"value")

    allow = AllowList({UnitRequest("app.service", "key"): "slot"})
    for one in (address, b"\0a/unit/app.service/" + address, b"\0a/unit/app.service/key"):
        answer = decide(Peer(uid, one), allow, refuse)
        assert answer.line.isprintable() and answer.refused == (answer.content.reveal() != b"value")
        if uid != MANAGER_UID:
            assert read == [] and answer.content.reveal() == b""
        else:
            assert answer.content.reveal() in (b"", TOO_LONG, b"value")
