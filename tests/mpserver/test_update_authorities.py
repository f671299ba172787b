"""Update authorities: their keys come by the first loading, and nobody writes what is another's."""

from pathlib import Path
from typing import Any, Final

import pytest

from mpwire import bundle as wire
from mpwire import hkdf
from mpwire.bundlekeys import Expand
from mpwire.cose import thumbprint
from mpwire.errors import Unauthentic
from mpwire.messages.bundle import BUNDLE_POLICY, UPDATE_KEY, UpdateKey
from tests.mpserver.bundles import PRODUCT, STATIC, Lot, open_as_board, read_frame, update_slot

UIDS: Final = tuple(bytes([number] * 7 + [0xFF]) for number in range(1, 4))
POLICY: Final = '[slots]\nlicence = "owner"\n\n[minimums]\nowner = 3\n'


@pytest.fixture
def lot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Lot:
    """Two authorities, of which the owner may write `licence` and the oem the rest."""
    made = Lot(tmp_path, capsys, PRODUCT + update_slot("oem") + update_slot("owner"))
    for name in ("oem", "owner"):
        made.read("authority", "create", name, "--product", "camera")
    return made


def load(lot: Lot, *more: str, uid: bytes | None = None) -> dict[str, bytes]:
    """A first loading with the policy, as one board opens it."""
    return open_as_board(lot.make("--policy", lot.write("policy.toml", POLICY), *more, out="first"), uid=uid)


def key_of(values: dict[str, bytes], name: str) -> UpdateKey:
    told: UpdateKey = UPDATE_KEY.decode(values[f"update-{name}"], 32_768)
    return told


def expand_by(key: UpdateKey) -> Expand:
    return lambda info: hkdf.expand(key.key, info)


def update(lot: Lot, authority: str, *more: str, version: int = 3, out: str = "update") -> Path:
    return lot.make("--authority", authority, *more, version=version, out=out)


def refuse(lot: Lot, *more: str, version: int = 3, code: int = 77) -> str:
    """What is said; nothing is left."""
    before = lot.left()
    ended, out, err = lot.run(*lot.words(*more, version=version, out="refused"))
    assert (ended, out) == (code, ""), err
    assert lot.left() == before
    return err


def test_an_update_is_signed_and_encrypted_by_what_the_first_loading_brought(lot: Lot) -> None:
    key = key_of(load(lot), "owner")
    value = lot.write("licence", b"a new licence")
    path = update(lot, "owner", "--only", "licence", "--value", f"licence={value}")
    assert open_as_board(path, expand_by(key)) == {"licence": b"a new licence"}
    frame = read_frame(path)
    wire.verify_authority(frame, key.point)
    assert frame.sign1.headers[4] == thumbprint(key.point) and -70103 not in frame.sign1.headers
    assert [(one.name, one.action) for one in frame.bundle.components] == [("licence", "replace")]
    shown = lot.read("bundle", "verify", str(path))
    assert shown["verified"] and shown["in_ledger"]
    assert lot.read("bundle", "extract-test", str(path))["components"][0]["result"] == "PASS"


def test_a_bundle_under_one_authority_is_not_under_another(lot: Lot) -> None:
    """T-666 Wrong authority: neither the class key nor another authority's key opens it, or signed it."""
    values = load(lot)
    owner, oem = key_of(values, "owner"), key_of(values, "oem")
    assert owner.key != oem.key and owner.point != oem.point
    path = update(lot, "owner", "--only", "licence")
    for wrong in (None, expand_by(oem)):
        with pytest.raises(Unauthentic, match="bundle-key"):
            open_as_board(path, wrong)
    with pytest.raises(Unauthentic, match="bundle-authority-key"):
        wire.verify_authority(read_frame(path), oem.point)


def test_an_authority_writes_only_its_own_slots(lot: Lot) -> None:
    """T-667 Trespass: the server refuses to make what a board would refuse to take."""
    load(lot)
    assert "slot cloud is oem's, not owner's" in refuse(lot, "--authority", "owner", "--only", "cloud")
    assert "slot licence is owner's" in refuse(lot, "--authority", "oem", "--only", "licence")
    assert "is oem's" in refuse(lot, "--authority", "owner", "--only", "update-owner")
    policy = lot.write("mine.toml", '[slots]\ncloud = "owner"\n')
    assert "owner may make no policy" in refuse(lot, "--authority", "owner", "--only", "licence", "--policy", policy)
    assert "create service" in refuse(lot, "--authority", "service", "--only", "licence")
    assert "names its slots" in refuse(lot, "--authority", "oem", code=64)
    for slot in ("disk", "nothing"):
        assert "no such slot" in refuse(lot, "--authority", "oem", "--only", slot, code=64)


def test_a_policy_replaces_the_one_before_as_a_whole(lot: Lot) -> None:
    load(lot)
    policy = lot.write("next.toml", '[slots]\ncloud = "owner"\n')
    path = update(lot, "oem", "--policy", policy, version=1)
    assert [one.kind for one in read_frame(path).bundle.components] == ["policy"]
    update(lot, "owner", "--only", "cloud", out="two")
    assert "is oem's" in refuse(lot, "--authority", "owner", "--only", "licence")


def test_policies_of_all_authorities_share_one_count(lot: Lot) -> None:
    """T-732 Revoked rights: a board tells by it which is the newer, whoever made it."""
    policy = lot.write("next.toml", '[slots]\ncloud = "owner"\n')
    made = [
        lot.make("--policy", policy, version=5, out="first"),
        update(lot, "oem", "--policy", policy, version=1),
        lot.make("--policy", policy, version=5, out="twin"),
        update(lot, "oem", "--policy", policy, version=2, out="last"),
    ]
    components = [read_frame(path).bundle.components[-1] for path in made]
    assert [(one.kind, one.version) for one in components] == [("policy", number) for number in (1, 2, 3, 4)]


def test_a_policy_that_boards_were_given_says_the_lowest_version(lot: Lot) -> None:
    """T-661 Rollback: by the policy in force, which counts for each authority alone."""
    values = load(lot)
    assert BUNDLE_POLICY.decode(values["policy"], 999).minimums == {"owner": 3}
    assert "no version below 3 from owner" in refuse(lot, "--authority", "owner", "--only", "licence", version=2)
    update(lot, "oem", "--only", "cloud", version=1)
    assert read_frame(update(lot, "owner", "--only", "licence", version=3, out="two")).bundle.minimum == 3


def test_what_was_chosen_is_sent_and_nothing_else(lot: Lot) -> None:
    load(lot)
    path = update(lot, "oem", "--only", "cloud", "--only", "update-owner", "--action", "fill", version=1)
    told = read_frame(path).bundle.components
    assert [(one.name, one.action) for one in told] == [("cloud", "fill"), ("update-owner", "fill")]
    value = ("--value", f"licence={lot.write('value', b'x')}")
    assert "brings no such slot" in refuse(lot, "--authority", "oem", "--only", "cloud", *value, code=64)


def test_a_key_for_each_device_opens_on_that_device_alone(tmp_path: Path, capsys: Any) -> None:
    """T-668 Spread: a key taken out of one board opens the bundles of that board alone."""
    lot = Lot(tmp_path, capsys, PRODUCT + update_slot("service"))
    lot.read("authority", "create", "service", "--product", "camera", "--per-device")
    assert "has a key for each device" in refuse(lot, version=1)
    uids = lot.write("uids", "\n".join(one.hex() for one in UIDS))
    policy = lot.write("policy.toml", '[slots]\nlicence = "service"\n')
    path = lot.make("--uids", uids, "--policy", policy, out="first")
    keys = [key_of(open_as_board(path, uid=uid), "service") for uid in UIDS]
    assert len({one.key.reveal() for one in keys}) == 3 and len({one.point for one in keys}) == 1

    one_uid = lot.write("one", UIDS[1].hex())
    only = ("--authority", "service", "--only", "licence")
    assert "the one board" in refuse(lot, *only, code=64)
    assert "the one board" in refuse(lot, *only, "--uids", uids, code=64)
    made = update(lot, *only[1:2], *only[2:], "--uids", one_uid)
    assert open_as_board(made, expand_by(keys[1]), uid=UIDS[1]) == {"licence": STATIC}
    for wrong in (keys[0], keys[2]):
        with pytest.raises(Unauthentic, match="bundle-key"):
            open_as_board(made, expand_by(wrong), uid=UIDS[1])
    assert lot.read("bundle", "extract-test", str(made))["verified"]
    (row,) = [one for one in lot.read("bundle", "list") if one["authority"] == "service"]
    assert (row["quantity"], row["boards"]) == (1, 1)


def test_an_authority_is_made_once_and_keeps_its_sort(lot: Lot) -> None:
    before = lot.read("authority", "list")
    again = lot.read("authority", "create", "owner", "--product", "camera")
    assert not again["new"] and lot.read("authority", "list") == before
    assert lot.run("authority", "create", "owner", "--product", "camera", "--per-device")[0] == 77
    assert lot.run("authority", "create", "owner", "--product", "nothing")[0] == 77
    assert lot.run("authority", "create", "factory", "--product", "camera")[0] == 64
    assert lot.run("authority", "export-public", "service", "--product", "camera")[0] == 77
    assert [(one["authority"], one["keys"]) for one in before] == [("oem", "product"), ("owner", "product")]
    assert lot.read("ledger", "verify")["verified"]


def test_the_public_half_is_one_that_others_read(lot: Lot) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    shown = lot.read("authority", "export-public", "owner", "--product", "camera")
    key = load_pem_public_key(shown["pem"].encode())
    assert key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint).hex() == shown["point"]
    code, out, _ = lot.run("authority", "export-public", "owner", "--product", "camera")
    assert code == 0 and out.strip() == shown["pem"]


def test_a_power_cut_while_keys_are_made_is_finished_by_typing_it_again(lot: Lot) -> None:
    """Accident: the keys are there and the row is not; no second pair is made beside them."""
    from mpserver.state import open_state
    from mpserver.updatekeys import SLOT_PREFIX

    state = open_state(lot.state)
    try:
        names = [one for one in state.vault.names() if one.startswith(SLOT_PREFIX)]
    finally:
        state.close()
    assert len(names) == 2
    key = key_of(load(lot), "owner")
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(lot.state / "ledger.db")) as connection, connection:
        connection.execute("DELETE FROM update_authorities WHERE name = 'owner'")
    again = lot.read("authority", "create", "owner", "--product", "camera")
    assert again["new"] and again["point"] == key.point.hex()
    assert key_of(open_as_board(lot.make(version=2, out="second")), "owner").key == key.key


def test_an_authority_changed_in_the_file_is_found(lot: Lot) -> None:
    """T-666 Wrong authority: an insider puts a key of his own in the place of the owner's."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(lot.state / "ledger.db")) as connection, connection:
        connection.execute("UPDATE update_authorities SET per_device = 1 WHERE name = 'owner'")
    code, _, err = lot.run("ledger", "verify")
    assert code == 65 and "update authority owner of product camera" in err


def test_update_keys_stand_in_no_output_and_no_ledger(lot: Lot) -> None:
    """T-659 Oracle: what opens later bundles leaves the vault inside a first loading alone."""
    from tests.mpserver.test_bundle_command import every_byte

    values = load(lot)
    said = "".join(out + err for _, out, err in (lot.run("authority", "list"), lot.run("authority", "list", "--json")))
    told = every_byte(lot) + (lot.folder / "first").read_bytes() + said.encode()
    for name in ("oem", "owner"):
        secret = key_of(values, name).key.reveal()
        assert secret not in told and secret.hex().encode() not in told
