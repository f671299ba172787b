"""mpserver mp vault: what becomes a secret, what never can any more, and that nothing shows it afterwards."""

import hashlib
import json
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from mpserver.keysource import reading
from mpserver.mpuse import name_in_vault, name_key
from mpserver.office import Office
from mpserver.state import open_state
from mpsim import board, fuses
from mpwire import bundlekeys, hkdf, mp, p256
from mpwire.errors import MpError
from mpwire.mpk import HiddenMpKey
from mpwire.secret import Secret
from tests.fuzz.mutation import mutate_bytes
from tests.mpserver.consoles import BOARD_A, OTHER, PASTES, pubk, sign_by
from tests.mpserver.desk import Desk
from tests.recovery import recover
from tests.vectors.silicon import A_DIGEST, A_KEY, A_MESSAGE, A_SIGNATURE

NAME = name_key(A_KEY).hex()
DIGEST = hashlib.sha256(A_KEY).hexdigest()
PRODUCT = """
name = "gateway"
attesters = ["mp"]
grades = ["S"]
mp_use = "secret"
mpk = "MPK"

[[slot]]
name = "disk"
kind = "local"

[[slot]]
name = "cloud"
kind = "random"
"""


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    made = Desk(tmp_path, capsys)
    assert made.run("init", "--realm", "lab")[0] == 0
    return made


def pem(raw: bytes = A_KEY) -> bytes:
    return p256.load_point(b"\x04" + raw).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def hide(desk: Desk, source: str | bytes = A_KEY, name: str = NAME, *more: str) -> dict[str, Any]:
    shown = desk.read("mp", "vault", "import", desk.write("key", source), "--confirm", name, *more)
    assert isinstance(shown, dict)
    return shown


def every_byte(folder: Path) -> bytes:
    """All files of the state directory, and what SQLite still has in its log."""
    return b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


FORMS = {
    "raw": A_KEY,
    "raw with its 04": b"\x04" + A_KEY,
    "hex": A_KEY.hex().encode(),
    "hex as openssl writes it": b"04:" + ":".join(A_KEY.hex()[at : at + 2] for at in range(0, 128, 2)).encode(),
    "hex in lines": f"0x{A_KEY.hex().upper()[:64]}\n{A_KEY.hex()[64:]}\n".encode(),
    "PEM": pem(),
    "log": pubk().encode(),
    "record": json.dumps({"public_key": A_KEY.hex(), "origin": "silicon"}).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_key_is_kept_under_one_name(desk: Desk, form: str) -> None:
    shown = hide(desk, FORMS[form])
    assert (shown["kept"], shown["new"], shown["origin"], shown["fingerprint"]) == (True, True, "silicon", NAME)
    state = open_state(desk.state)
    try:
        assert state.vault.names() == (name_in_vault(bytes.fromhex(NAME)),)
        made = state.vault.expand(state.vault.names()[0], b"info")
    finally:
        state.close()
    assert made == hkdf.expand(HiddenMpKey(A_KEY).extract(), b"info")
    assert bytes.fromhex(NAME) == bundlekeys.make_mpk_id(
        lambda info: hkdf.expand(hkdf.extract(b"mpagent/mpk/v1", Secret(A_KEY)), info)
    )
    assert desk.read("ledger", "verify")["entries"] == 1


@pytest.mark.parametrize("paste", PASTES)
def test_every_paste_of_a_log_is_kept_under_one_name(desk: Desk, paste: str) -> None:
    assert desk.read("mp", "vault", "fingerprint", desk.write("log", PASTES[paste](pubk())))["fingerprint"] == NAME


def test_nothing_is_kept_before_the_fingerprint_is_confirmed(desk: Desk) -> None:
    """T-651 Slipped key: somebody hands over a key of his own, under which he opens every bundle."""
    path = desk.write("key", A_KEY)
    assert desk.read("mp", "vault", "import", path, code=77)["refused"] == "not-confirmed"
    for wrong in (name_key(OTHER.public_key()[1:]).hex(), NAME[:16], DIGEST):
        assert desk.run("mp", "vault", "import", path, "--confirm", wrong)[0] == 77
    assert desk.read("mp", "vault", "list") == [] and desk.read("ledger", "show") == []
    assert not (desk.state / "keys/vault").exists() and Path(path).read_bytes() == A_KEY


def test_imported_again_it_is_the_same_key_and_one_entry(desk: Desk) -> None:
    hide(desk, A_KEY, NAME, "--part", "imx8mm")
    again = hide(desk, pem(), f"{NAME[:8]}:{NAME[8:]}".upper(), "--part", "imx8mm")
    assert again["kept"] and not again["new"]
    code, _, err = desk.run("mp", "vault", "import", str(desk.folder / "key"), "--confirm", NAME, "--part", "imx8mp")
    assert code == 77 and "kept already, as part imx8mm" in err
    (row,) = desk.read("mp", "vault", "list")
    assert (row["fingerprint"], row["state"], row["part"], row["products"]) == (NAME, "kept", "imx8mm", [])
    assert desk.read("ledger", "verify")["entries"] == 1


@pytest.mark.parametrize(
    ("spoilt", "code", "said"),
    [
        (b"", 65, "no output of `mfgprot"),
        (bytes(64), 64, "P-256"),
        (A_KEY[:63] + bytes([A_KEY[63] ^ 1]), 64, "P-256"),
        (A_KEY[:63], 65, "no output"),
        (A_KEY.hex()[:126].encode(), 64, "63 bytes"),
        (A_KEY.hex().encode() + b"zz", 65, "no output"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", 64, "not a PEM public key"),
        (b'{"public_key": "00"}', 64, "P-256"),
        (b'{"public_key": 7, "origin": "silicon"}', 64, "not a record"),
        (b"HAB Configuration: 0xf0\n" + pubk().encode(), 77, "open part"),
        (b"x" * (4 * 1024 * 1024 + 1), 64, "longer than"),
        ((pubk() + pubk(OTHER.public_key()[1:])).encode(), 65, "two different keys"),
    ],
    ids=["empty", "zeros", "off", "short", "hex short", "hex noise", "pem", "json", "json type", "open", "huge", "two"],
)
def test_what_is_no_key_is_named_and_nothing_of_it_is_shown(desk: Desk, spoilt: bytes, code: int, said: str) -> None:
    ended, out, err = desk.run("mp", "vault", "import", desk.write("key", spoilt), "--confirm", NAME)
    assert ended == code and said in err and err.count("\n") == 1, err
    shown = (out + err).lower()
    assert A_KEY.hex()[:16] not in shown and DIGEST[:16] not in shown
    assert desk.read("mp", "vault", "list") == []


def test_a_private_key_is_turned_away(desk: Desk) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    raw = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    code, _, err = desk.run("mp", "vault", "import", desk.write("key", raw))
    assert code == 64 and "private key" in err


def test_a_folder_or_nothing_is_no_source(desk: Desk) -> None:
    for path in (str(desk.folder), str(desk.folder / "none")):
        assert desk.run("mp", "vault", "import", path, "--confirm", NAME)[0] == 64


def test_one_signature_gives_the_key_away(desk: Desk) -> None:
    """T-653 Key recovery: from a real part's log, without its `pubk`, anybody has the key, and so every bundle."""
    found = recover(bytes.fromhex(A_DIGEST), A_SIGNATURE)
    assert A_KEY in found and len(found) == 2
    assert mp.digest(A_MESSAGE, mp.MPMR_ZERO).hex() == A_DIGEST
    recovered = next(one for one in found if name_key(one).hex() == NAME)
    hide(desk)
    state = open_state(desk.state)
    try:
        kept = state.vault.expand(name_in_vault(bytes.fromhex(NAME)), b"a bundle's info")
    finally:
        state.close()
    assert hkdf.expand(hkdf.extract(b"mpagent/mpk/v1", Secret(recovered)), b"a bundle's info") == kept


def test_a_log_with_a_signature_gives_no_secret(desk: Desk) -> None:
    """T-653 Key recovery: refused with the reason, whoever took the `sign` section out afterwards."""
    path = desk.write("a.log", BOARD_A)
    code, _, err = desk.run("mp", "vault", "import", path, "--confirm", NAME, "--wipe")
    assert code == 77 and "gives the public key away" in err and Path(path).exists()
    assert desk.run("mp", "vault", "import", desk.write("key", A_KEY), "--confirm", NAME)[0] == 77
    assert desk.read("mp", "vault", "fingerprint", path)["burnt"]
    assert [one["state"] for one in desk.read("mp", "vault", "list")] == []
    assert desk.read("ledger", "verify")["entries"] == 1


@pytest.mark.parametrize("how", ["registered", "unsigned list", "verified", "log", "pinned"])
def test_a_key_that_signs_for_anybody_here_becomes_no_secret(desk: Desk, how: str) -> None:
    """T-654 Two uses: registered, pinned, verified or seen in a log, on any command and for any product."""
    record = {"public_key": A_KEY.hex(), "origin": "silicon"}
    if how == "registered":
        desk.read("mp", "import-log", desk.write("key.log", pubk()), "--confirm", DIGEST)
    elif how == "unsigned list":
        desk.read("key", "import", desk.write("key.json", json.dumps([record])))
    elif how == "verified":
        words = (f"--key={A_KEY.hex()}", f"--message={A_MESSAGE.hex()}", f"--signature={A_SIGNATURE.hex()}")
        desk.read("mp", "verify", *words)
    elif how == "log":
        desk.read("mp", "import-log", desk.write("a.log", BOARD_A), code=77)
    else:
        pinned = PRODUCT.replace('mp_use = "secret"\nmpk = "MPK"', f'mp_keys = ["{DIGEST}"]')
        desk.read("product", "add", desk.write("product.toml", pinned))
    code, _, err = desk.run("mp", "vault", "import", desk.write("key", A_KEY), "--confirm", NAME)
    assert code == 77 and err.startswith("mpserver: mp-use: ") and "SRK" in err
    assert desk.read("mp", "vault", "list") == [] and not (desk.state / "keys/vault").exists()


def test_a_product_calls_no_key_a_secret_that_signs_and_the_other_way_round(desk: Desk) -> None:
    """T-654 Two uses: the product file comes first, before anybody imported the key."""
    product = desk.write("product.toml", PRODUCT.replace("MPK", NAME))
    desk.read("product", "add", product)
    for words in (
        ("mp", "import-log", desk.write("k.log", pubk()), "--confirm", DIGEST),
        ("key", "import", desk.write("k.json", json.dumps({"public_key": A_KEY.hex(), "origin": "silicon"}))),
    ):
        code, out, err = desk.run(*words)
        assert code == 77 and "mp-use" in err and DIGEST not in out + err and A_KEY.hex() not in (out + err).lower()
    assert desk.read("key", "list") == [] and hide(desk)["kept"]


@pytest.mark.parametrize("how", ["registered", "burnt"])
def test_a_product_file_that_calls_a_signing_key_a_secret_is_refused(desk: Desk, how: str) -> None:
    """T-654 Two uses: the key signs already, or was seen to."""
    log = pubk() if how == "registered" else BOARD_A
    more = ("--confirm", DIGEST) if how == "registered" else ()
    desk.run("mp", "import-log", desk.write("k.log", log), *more)
    code, _, err = desk.run("product", "add", desk.write("product.toml", PRODUCT.replace("MPK", NAME)))
    assert code == 78 and "product.toml:6: mpk: " in err and desk.read("product", "show") == []


@pytest.mark.parametrize("how", ["kept", "destroyed", "named by a product"])
def test_a_product_cannot_pin_a_secret_by_its_digest(desk: Desk, how: str) -> None:
    """T-733 Two uses: a digest from elsewhere has boards sign with a key that is a secret here; no list shows that."""
    if how == "named by a product":
        desk.read("product", "add", desk.write("product.toml", PRODUCT.replace("MPK", NAME)))
    else:
        hide(desk)
    if how == "destroyed":
        desk.read("mp", "vault", "destroy", NAME, "--confirm", NAME)
    before = desk.read("product", "show")
    for key in (A_KEY, OTHER.public_key()[1:]):
        pinned = PRODUCT.replace("gateway", "camera")
        pinned = pinned.replace('mp_use = "secret"\nmpk = "MPK"', f'mp_keys = ["{hashlib.sha256(key).hexdigest()}"]')
        code, _, err = desk.run("product", "add", desk.write("other.toml", pinned))
        assert code == 78 and "other.toml:5: mp_keys: " in err and desk.read("product", "show") == before
    record = {"public_key": OTHER.public_key()[1:].hex(), "origin": "silicon"}
    desk.read("key", "import", desk.write("key.json", json.dumps(record)))
    desk.read("product", "add", desk.write("other.toml", pinned))  # now it is known to be another key


@pytest.mark.parametrize("how", ["log", "json"])
def test_a_secret_never_signs_for_anybody_here(desk: Desk, how: str) -> None:
    """T-654 Two uses: the other way round, and after the key was destroyed too: its bundles are still out there."""
    hide(desk)
    for again in range(2):
        if how == "log":
            code, out, err = desk.run("mp", "import-log", desk.write("k.log", pubk()), "--confirm", DIGEST)
        else:
            record = {"public_key": A_KEY.hex(), "origin": "silicon"}
            listed = [record, {"public_key": OTHER.public_key()[1:].hex(), "origin": "silicon"}]
            code, out, err = desk.run("key", "import", desk.write("key.json", json.dumps(listed)))
        assert code == 77 and NAME in err and DIGEST not in out + err
        assert desk.read("key", "list") == []
        if not again:
            desk.read("mp", "vault", "destroy", NAME, "--confirm", NAME)
    assert desk.read("ledger", "verify")["entries"] == 2


def test_nothing_we_keep_or_say_gives_the_key_or_its_digest(desk: Desk) -> None:
    """T-655 Oracle: ledger, audit, vault, anchors and every output, searched for all that tells the key."""
    outputs = [hide(desk, pubk())]
    product = PRODUCT.replace("MPK", NAME)
    for words in (
        ("product", "add", desk.write("product.toml", product)),
        ("product", "show", "gateway"),
        ("product", "anchors", "gateway"),
        ("mp", "vault", "list"),
        ("mp", "compare", desk.write("one.log", pubk()), desk.write("two.hex", pubk()), "--product", "gateway"),
        ("mp", "answers"),
        ("key", "list"),
        ("ledger", "show"),
        ("doctor",),
    ):
        for more in ((), ("--json",)):
            code, out, err = desk.run(*words, *more)
            outputs += [out, err]
            assert code == 0, err
    told = json.dumps(outputs).lower().encode() + every_byte(desk.state)
    with closing(sqlite3.connect(desk.state / "ledger.db")) as connection:
        told += "\n".join(connection.iterdump()).lower().encode()
    prk = HiddenMpKey(A_KEY).extract().reveal()
    for secret in (
        A_KEY,
        A_KEY[:32],
        A_KEY[32:],
        hashlib.sha256(A_KEY).digest(),
        hashlib.sha256(b"\x04" + A_KEY).digest(),
    ):
        assert secret not in told and secret.hex().encode() not in told
    vault = b"".join(path.read_bytes() for path in (desk.state / "keys/vault").iterdir())
    assert told.count(prk.hex().encode()) == vault.count(prk.hex().encode()) == 1  # realm lab keeps it in a file


def test_a_comparison_of_a_secret_writes_no_digest_down(desk: Desk) -> None:
    product = PRODUCT.replace("MPK", NAME)
    desk.read("product", "add", desk.write("product.toml", product))
    one, two = desk.write("one.log", pubk()), desk.write("two.log", pubk())
    asked = desk.read("mp", "compare", one, two, "--product", "gateway", "--mp-use", "secret")
    assert (asked["verdict"], asked["one"], asked["other"]) == ("class", NAME, NAME)
    hide(desk)
    kept = desk.read("mp", "compare", one, NAME, "--product", "gateway")
    assert (kept["verdict"], kept["one"]) == ("class", NAME)
    assert desk.run("mp", "compare", one, DIGEST, "--product", "gateway")[0] == 64
    assert [row["one"] for row in desk.read("mp", "answers")] == [NAME, NAME]
    assert desk.read("ledger", "verify")["verified"]


def test_a_digest_written_down_before_is_told(desk: Desk) -> None:
    undecided = PRODUCT.replace('mp_use = "secret"\nmpk = "MPK"', "")
    desk.read("product", "add", desk.write("product.toml", undecided))
    one, two = desk.write("one.log", pubk()), desk.write("two.log", pubk())
    desk.read("mp", "compare", one, two, "--product", "gateway")
    assert "NXP's old format" in hide(desk)["notes"][0]


def test_wiping_overwrites_the_source_and_only_a_plain_file(desk: Desk) -> None:
    """T-656 Left-over: the file that the key came in lies on the OEM's disk for ever."""
    path = Path(desk.write("key.hex", A_KEY.hex()))
    other = desk.folder / "second-name"
    os.link(path, other)
    link = desk.folder / "link"
    link.symlink_to(path)
    for wrong in (str(path), str(link), "-", str(desk.folder)):
        assert desk.run("mp", "vault", "import", wrong, "--confirm", NAME, "--wipe")[0] == 64
    assert path.read_bytes() == A_KEY.hex().encode() and desk.read("mp", "vault", "list") == []
    other.unlink()
    with path.open("rb") as held:  # the very blocks, not only the name
        assert desk.read("mp", "vault", "import", str(path), "--confirm", NAME, "--wipe")["wiped"]
        assert set(held.read()) == {ord("0")}
    assert not path.exists()


def test_simulated_keys_are_kept_as_such_and_not_in_production(desk: Desk) -> None:
    record = board.mp_key_record("imx8mm", fuses.srk_hash_of("lab"))
    name = name_key(bytes.fromhex(record["public_key"])).hex()
    shown = hide(desk, json.dumps(record), name)
    assert (shown["origin"], shown["part"]) == ("simulated", "imx8mm")
    code, _, err = desk.run("mp", "vault", "import", desk.write("key", record["public_key"]), "--confirm", name)
    assert code == 77 and "origin simulated" in err
    test_key = board.test_key_record("imx8mm", fuses.srk_hash_of("lab"))
    code, _, err = desk.run("mp", "vault", "import", desk.write("key", json.dumps(test_key)))
    assert code == 77 and "test key of open parts" in err


def test_a_destroyed_key_is_gone_and_can_come_again(desk: Desk) -> None:
    hide(desk)
    assert not desk.read("mp", "vault", "destroy", NAME, code=77)["destroyed"]
    assert desk.run("mp", "vault", "destroy", NAME, "--confirm", "0" * 32)[0] == 77
    assert len(list((desk.state / "keys/vault").iterdir())) == 1
    assert desk.read("mp", "vault", "destroy", NAME, "--confirm", NAME)["destroyed"]
    assert list((desk.state / "keys/vault").iterdir()) == []
    assert desk.read("mp", "vault", "list")[0]["state"] == "destroyed"
    assert desk.run("mp", "vault", "destroy", "0" * 32, "--confirm", "0" * 32)[0] == 77
    assert desk.run("mp", "vault", "destroy", "xyz")[0] == 64
    assert hide(desk)["new"] and desk.read("mp", "vault", "list")[0]["state"] == "kept"
    assert desk.read("ledger", "verify")["entries"] == 3


def test_a_power_cut_between_entry_and_vault_is_finished_by_typing_it_again(desk: Desk) -> None:
    hide(desk)
    (file,) = (desk.state / "keys/vault").iterdir()
    file.unlink()
    assert desk.read("mp", "vault", "list")[0]["state"] == "lost"
    assert hide(desk)["new"] and desk.read("mp", "vault", "list")[0]["state"] == "kept"
    assert desk.read("ledger", "verify")["entries"] == 1
    assert stat.S_IMODE(next((desk.state / "keys/vault").iterdir()).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE hidden_mp_keys SET origin = 'simulated'", "secret MP key"),
        ("UPDATE hidden_mp_keys SET destroyed_at = 1", "secret MP key"),
        ("INSERT INTO burnt_mp_keys VALUES (zeroblob(16), 'said so', 1)", "seen to sign"),
    ],
)
def test_rows_about_secrets_changed_in_the_file_are_found(desk: Desk, statement: str, said: str) -> None:
    """T-654 Two uses: an insider makes a secret look destroyed, silicon look simulated, or a key look burnt."""
    hide(desk)
    with closing(sqlite3.connect(desk.state / "ledger.db")) as connection, connection:
        connection.execute(statement)
    code, _, err = desk.run("ledger", "verify")
    assert code == 65 and said in err


def test_a_registration_that_fails_halfway_leaves_nothing(desk: Desk) -> None:
    """Accident: the second key of a list is a secret by now; the first was written in the same transaction."""
    from mpissuer.ports import RegisteredKey

    hide(desk)
    state = open_state(desk.state)
    try:
        points = [OTHER.public_key(), b"\x04" + A_KEY]
        keys = [RegisteredKey(mp.key_id(one), "mp", one, "silicon") for one in points]
        with pytest.raises(Exception, match="mp-use"):
            Office(state).import_keys(keys)
    finally:
        state.close()
    assert desk.read("key", "list") == [] and desk.read("ledger", "verify")["entries"] == 1


def test_a_log_whose_signature_is_of_another_key_burns_nothing(desk: Desk) -> None:
    wrong = pubk() + sign_by(OTHER, b"one", mp.MPMR_OPTEE)
    assert desk.run("mp", "import-log", desk.write("w.log", wrong))[0] == 65
    assert hide(desk)["kept"]


def test_the_image_of_such_a_product_names_no_key(desk: Desk) -> None:
    desk.read("product", "add", desk.write("product.toml", PRODUCT.replace("MPK", NAME)))
    plain = desk.read("product", "anchors", "gateway")["anchors"]
    assert 'mp_use = "secret"' in plain and "mp_key_ids" not in plain
    assert "bundle_minimum" not in plain and "[offline]" not in plain
    told = desk.read("product", "anchors", "gateway", "--bundle-minimum", "7", "--wipe-bundle")["anchors"]
    assert "bundle_minimum = 7\n" in told and "\n[offline]\nwipe = true\n" in told and NAME not in told
    other = PRODUCT.replace('mp_use = "secret"\nmpk = "MPK"', "").replace("gateway", "camera")
    desk.read("product", "add", desk.write("other.toml", other))
    assert "mp_use" not in desk.read("product", "anchors", "camera")["anchors"]
    for wrong in (
        ("camera", "--wipe-bundle"),
        ("gateway", "--bundle-minimum", "0"),
        ("gateway", "--bundle-minimum", "x"),
    ):
        assert desk.run("product", "anchors", *wrong)[0] == 64


def test_the_doctor_tells_of_a_key_that_was_seen_to_sign(desk: Desk) -> None:
    """T-653 Key recovery: after it was kept, a log with a signature turned up."""
    desk.read("product", "add", desk.write("product.toml", PRODUCT.replace("MPK", NAME)))
    hide(desk)
    assert "mp-key" not in [one["check"] for one in desk.read("doctor")]
    assert desk.run("mp", "import-log", desk.write("a.log", BOARD_A))[0] == 77
    (line,) = [one for one in desk.read("doctor", code=77) if one["check"] == "mp-key"]
    assert line["ok"] is False and NAME in line["said"] and "job secret" in line["next"]


def test_bent_sources_are_a_key_of_the_curve_or_an_error_of_ours(tmp_path: Path) -> None:
    """T-651 Slipped key: noise on a line, a cut-off paste, an editor's blank."""
    random, path = Random(7), tmp_path / "key"
    for _ in range(500):
        path.write_bytes(mutate_bytes(random.choice([*FORMS.values(), BOARD_A.encode()]), random))
        try:
            with reading(path) as found:
                p256.load_point(b"\x04" + found.key.reveal())
        except MpError as error:
            assert A_KEY.hex()[:16] not in str(error).lower()
        else:
            assert found.key.reveal() == bytes(64)  # wiped behind whoever asked
