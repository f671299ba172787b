"""anchors.toml of a product whose MP public key is a secret: what it has, and what belongs to the other way."""

from pathlib import Path

import pytest

from mpagent.anchors import read_anchors
from mpagent.errors import ConfigWrong

from .test_configuration import ANCHORS, write

LOADED = """[[slot]]
name = "update-oem"
kind = "update-key"

[[slot]]
name = "model"
kind = "file"
"""
SECRET = (
    ANCHORS.replace('product = "camera"', 'product = "camera"\nmp_use = "secret"\nbundle_minimum = 3')
    .replace("[board]", "[offline]\nwipe = true\n\n[board]")
    .replace('destination = "credential"\nlength = 48\n', LOADED)
)


def test_whole_anchors_of_a_secret_product_are_read(tmp_path: Path) -> None:
    image, choice = read_anchors(write(tmp_path / "anchors.toml", SECRET))
    assert (image.mp_use, image.bundle_minimum, image.wipes, choice.mp_secret) == ("secret", 3, True, True)
    assert [(one.name, one.kind) for one in image.slots[2:]] == [("update-oem", "update-key"), ("model", "file")]


def test_without_a_word_a_board_signs_and_no_bundle_is_destroyed(tmp_path: Path) -> None:
    image, choice = read_anchors(write(tmp_path / "anchors.toml", ANCHORS))
    assert (image.mp_use, image.bundle_minimum, image.wipes, choice.mp_secret) == ("sign", 0, False, False)


def test_image_without_a_server_needs_no_roots_of_tls(tmp_path: Path) -> None:
    start, end = SECRET.index("tls_roots"), SECRET.index('"""]') + 5
    image, _ = read_anchors(write(tmp_path / "anchors.toml", SECRET[:start] + SECRET[end:]))
    assert image.tls_roots == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('mp_use = "secret"', 'mp_use = "hidden"', "mp_use must be one of sign, secret"),
        ("bundle_minimum = 3", "bundle_minimum = -1", "bundle_minimum must be an integer of 0"),
        ("wipe = true", 'wipe = "yes"', "wipe must be true or false"),
        ("wipe = true", "wipes = true", "unknown key 'wipes'; did you mean 'wipe'"),
        ('attest = "sim"', 'attest = "tpm"', "attest must be one of mp, sim where mp_use is \"secret\", not 'tpm'"),
        ('attest = "sim"', 'attest = ["mp", "card"]', "not 'card'"),
        ("bundle_minimum = 3", f'mp_key_ids = ["{"11" * 32}"]', "SHA-256"),
        ('kind = "random"', 'kind = "certificate"', "one of local, random, static, update-key, file where mp_use is"),
        ('name = "update-oem"', 'name = "update-boss"', "named update-oem, update-owner, update-service"),
        ('name = "cloud"', 'name = "update-owner"', "no other is named so"),
        ('name = "cloud"', 'name = "policy"', "rights of update authorities"),
        (
            "[board]",
            '[[credential]]\nunit = "a.service"\nid = "b"\nslot = "model"\n\n[board]',
            "a file or an update key",
        ),
        ("[board]", '[[credential]]\nvolume = "a"\nslot = "update-oem"\n\n[board]', "a file or an update key"),
        (
            "[board]",
            '[finish]\nluks = "/dev/a"\nluks_slot = "model"\nstate = "/dev/b"\n\n[board]',
            "no key of a volume",
        ),
        ("[board]", '[finish]\ninstaller = "rauc"\ntarget = "/a"\n\n[board]', "names no image to install"),
    ],
)
def test_mistake_in_a_secret_image_is_told_with_file_and_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert SECRET.count(old) == 1
    path = write(tmp_path / "anchors.toml", SECRET.replace(old, new))
    with pytest.raises(ConfigWrong) as caught:
        read_anchors(path)
    text = str(caught.value)
    assert said in text and text.startswith(f"{path}:") and text.split(":")[1].isdigit()
    assert int(text.split(":")[1]) > 1, text


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("bundle_minimum = 3\n", 'bundle_minimum is for images that say mp_use = "secret"'),
        ("offline = {wipe = true}\n", 'offline is for images that say mp_use = "secret"'),
    ],
)
def test_key_of_bundles_in_an_image_of_the_line_is_a_mistake(tmp_path: Path, key: str, said: str) -> None:
    path = write(tmp_path / "anchors.toml", ANCHORS.replace("roots = [", f"{key}roots = [", 1))
    with pytest.raises(ConfigWrong, match=said):
        read_anchors(path)


@pytest.mark.parametrize("kind", ["update-key", "file"])
def test_slot_of_a_bundle_cannot_be_asked_of_a_server(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "anchors.toml", ANCHORS.replace('kind = "random"', f'kind = "{kind}"'))
    with pytest.raises(ConfigWrong, match='unless mp_use is "secret"'):
        read_anchors(path)
