"""mpserver key: lists the OEM signs off line; who may sign them, and that each counts once, whole or not at all."""

import hashlib
import json
import os
import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpissuer.ports import RegisteredKey
from mpserver.errors import NeedsPerson
from mpserver.importlist import SignedKeys, read_list
from mpserver.keystore import load_key_file
from mpserver.office import Office
from mpserver.state import State, open_state
from mpsim import board, fuses
from mpwire import p256
from mpwire.cose import thumbprint
from mpwire.limits import IMPORT_MAX_BYTES, IMPORT_RECORDS_MAX
from mpwire.messages.issuer import IMPORT_LIST, ImportList, ImportRecord
from mpwire.p256 import SoftKey
from tests.mpserver.consoles import BOARD_A
from tests.mpserver.desk import Desk
from tests.vectors.format import Vector, load, read_bytes
from tests.vectors.silicon import A_KEY

VECTORS = load("imports.json")
REFUSED = [one for one in VECTORS if one["kind"] != "ok"]
ROOM_FOR_FRAMING = 512


def ek(number: int) -> dict[str, str]:
    """The record of one TPM."""
    return {"kind": "tpm", "ek_name": f"000b{number:064x}", "origin": "silicon"}


MP = {"public_key": A_KEY.hex(), "origin": "silicon", "part": "imx8mm"}


class Oem(Desk):
    """A lab server that trusts one signer, and that signer's desk off line."""

    signer: str
    point: str

    def trust(self, point: str | None = None) -> None:
        """What two people do: one reads out the thumbprint, the other types it."""
        point = point or self.point
        assert self.run("key", "trust-signer", point, "--confirm", thumbprint(bytes.fromhex(point)).hex())[0] == 0

    def sign(self, number: int, *records: dict[str, Any], realm: str = "lab", key: str = "signer.pem") -> str:
        """A list in a file of its own."""
        out = str(self.folder / f"list-{number}-{os.urandom(4).hex()}")
        told = self.write("list.json", json.dumps(records))
        words = ("--key", str(self.folder / key), "--sequence", str(number), "--realm", realm, "--out", out)
        code, _, err = self.run("key", "sign-list", told, *words)
        assert code == 0, err
        return out

    def rows(self) -> list[str]:
        """The whole ledger file, row for row."""
        with closing(sqlite3.connect(self.state / "ledger.db")) as connection:
            return list(connection.iterdump())

    def keys(self) -> list[str]:
        """Ids registered."""
        return [one["key_id"] for one in self.read("key", "list")]

    def entries(self) -> list[tuple[str, str]]:
        """Kind and subject."""
        return [(one["kind"], one["subject"]) for one in self.read("ledger", "show")]


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Oem:
    """Set up, with a signer whom nobody trusts yet."""
    made = Oem(tmp_path, capsys)
    assert made.run("init", "--realm", "lab")[0] == 0
    shown = made.read("key", "new-signer", "--out", str(tmp_path / "signer.pem"))
    made.signer, made.point = shown["thumbprint"], shown["point"]
    return made


@pytest.fixture
def oem(desk: Oem) -> Oem:
    """The signer is trusted."""
    desk.trust()
    return desk


def test_a_list_signed_off_line_registers_every_kind_with_its_signer_in_the_ledger(oem: Oem) -> None:
    attestation = next(one for one in VECTORS if one["name"] == "every kind with its part")
    told = read_list(
        read_bytes(attestation["bytes"]), "lab", {thumbprint(point): point for point in [signer_of(attestation)]}
    )
    optee = next(one for one in told.keys if one.kind == "optee")
    assert optee.public_key is not None
    records = (MP, ek(1), {"kind": "optee", "public_key": optee.public_key.hex(), "origin": "silicon", "part": "imx93"})
    shown = oem.read("key", "import", oem.sign(7, *records))
    assert (shown["signed"], shown["signer"], shown["sequence"], shown["new"]) == (True, oem.signer, 7, 3)
    kinds = {one["key_id"]: (one["kind"], one["origin"], one["part"]) for one in oem.read("key", "list")}
    assert list(kinds.values()) == [("mp", "silicon", "imx8mm"), ("optee", "silicon", "imx93"), ("tpm", "silicon", "")]
    assert set(shown["keys"]) == kinds.keys()
    subjects = [("key", one[:64]) for one in shown["keys"]]
    assert oem.entries() == [("signer", oem.signer), ("import", oem.signer), *subjects]
    (signer,) = oem.read("key", "signers")
    assert (signer["thumbprint"], signer["lists"], signer["last_sequence"]) == (oem.signer, 1, 7)
    assert oem.read("ledger", "verify")["entries"] == 5


def signer_of(vector: Vector) -> bytes:
    return bytes.fromhex(vector["signer"])


@pytest.mark.parametrize("vector", REFUSED, ids=[one["name"] for one in REFUSED])
def test_a_list_that_is_not_the_signers_word_changes_nothing(oem: Oem, vector: Vector) -> None:
    """T-370 Stranger: another signer's list, a changed one, one of another realm, or one with a record twice."""
    oem.trust(vector["signer"])
    before = oem.rows()
    code, out, err = oem.run("key", "import", oem.write("list", read_bytes(vector["bytes"])))
    assert (code, out) == (77 if vector["rule"] in ("import-signer", "import-realm", "import-secret") else 76, ""), err
    assert vector["rule"] in err and err.count("\n") == 1
    assert oem.rows() == before and oem.keys() == []


@pytest.mark.parametrize("vector", [one for one in VECTORS if one["kind"] == "ok"], ids=lambda one: str(one["name"]))
def test_a_list_of_the_document_is_taken(oem: Oem, vector: Vector) -> None:
    oem.trust(vector["signer"])
    raw = read_bytes(vector["bytes"])
    assert oem.read("key", "import", oem.write("list", raw))["keys"] == vector["keys"]
    assert sorted(oem.keys()) == sorted(vector["keys"])


def test_a_list_of_an_untrusted_signer_is_refused_until_he_is_trusted(desk: Oem) -> None:
    """T-370 Stranger: whoever can make a key can sign a list with it."""
    path, before = desk.sign(1, ek(1)), desk.rows()
    code, _, err = desk.run("key", "import", path)
    assert code == 77 and f"import-signer: the list names signer {desk.signer}" in err
    assert desk.rows() == before and desk.keys() == []
    desk.trust()
    assert desk.read("key", "import", path)["new"] == 1


def test_a_list_is_taken_once(oem: Oem) -> None:
    """T-371 Replay: a list that was taken is handed over again, by somebody who has its file."""
    path = oem.sign(1, ek(1))
    oem.read("key", "import", path)
    before = oem.rows()
    code, _, err = oem.run("key", "import", path)
    assert code == 77 and "import-sequence: this very list, number 1, was taken before" in err
    assert oem.rows() == before


@pytest.mark.parametrize("number", [1, 4, 5])
def test_an_older_list_is_refused_after_a_newer_one(oem: Oem, number: int) -> None:
    """T-371 Replay: a list that was drawn back before it was ever taken, or a second one of the same number."""
    old = oem.sign(number, ek(1))
    oem.read("key", "import", oem.sign(5, ek(2)))
    before = oem.rows()
    code, _, err = oem.run("key", "import", old)
    assert code == 77 and f"import-sequence: the list is number {number}, and 5" in err and "6 or above" in err
    assert oem.rows() == before and oem.keys() == [ek(2)["ek_name"]]


def test_each_signer_counts_for_himself(oem: Oem) -> None:
    """One site's numbers must not use up another's."""
    other = oem.read("key", "new-signer", "--out", str(oem.folder / "other.pem"))
    oem.trust(other["point"])
    oem.read("key", "import", oem.sign(9, ek(1)))
    assert oem.read("key", "import", oem.sign(1, ek(2), key="other.pem"))["new"] == 1
    assert sorted(one["last_sequence"] for one in oem.read("key", "signers")) == [1, 9]


def test_of_two_at_once_one_is_refused(oem: Oem) -> None:
    """T-371 Replay: two commands have read and verified one list before either enters it."""
    raw = Path(oem.sign(1, ek(1))).read_bytes()
    first, second = open_state(oem.state), open_state(oem.state)
    try:
        offices = Office(first), Office(second)
        told = [read_list(raw, "lab", office.trusted_signers()) for office in offices]
        assert offices[0].import_list(told[0]) == 1
        with pytest.raises(NeedsPerson, match="import-sequence"):
            offices[1].import_list(replace(told[1], keys=()))
    finally:
        first.close()
        second.close()
    assert [kind for kind, _ in oem.entries()] == ["signer", "import", "key"]
    assert oem.run("ledger", "verify")[0] == 0


def test_a_list_with_one_bad_record_registers_none_and_keeps_its_number(oem: Oem) -> None:
    """T-372 Half a list: one of its keys is known with other facts."""
    oem.read("key", "import", oem.write("lab.json", json.dumps({**MP, "origin": "simulated"})))
    before = oem.rows()
    code, _, err = oem.run("key", "import", oem.sign(1, ek(1), MP, ek(2)))
    assert code == 77 and "is registered already, with other facts (origin simulated)" in err
    assert oem.rows() == before
    assert oem.read("key", "import", oem.sign(1, ek(1), ek(2)))["new"] == 2


def test_a_key_handed_over_twice_is_signed_once(oem: Oem) -> None:
    """T-370 Stranger: two records of one key could say two things of it."""
    told = oem.write("twice.json", json.dumps([MP, {**MP, "use": "test"}]))
    out = oem.folder / "out"
    words = ("--key", str(oem.folder / "signer.pem"), "--sequence", "1", "--out", str(out))
    code, _, err = oem.run("key", "sign-list", told, *words)
    assert code == 64 and "record 2: import-twice" in err
    assert not out.exists()


def in_production(oem: Oem) -> State:
    """As if `init` offered that realm already."""
    state = open_state(oem.state)
    return replace(state, realm="production")


def test_production_takes_no_key_without_a_list(oem: Oem) -> None:
    """T-373 Unsigned: an insider hands a key of his own to the server's operator, by a file or by a log."""
    before, state = oem.rows(), in_production(oem)
    try:
        office = Office(state)
        for key in (RegisteredKey(bytes(34), "tpm", None, "silicon"), mp_key()):
            with pytest.raises(NeedsPerson, match=r"^import-unsigned: realm production"):
                office.import_key(key)
        with pytest.raises(NeedsPerson, match="two people"):
            office.trust_signer(SoftKey.generate().public_key())
        with pytest.raises(NeedsPerson, match="simulated"):
            office.import_list(
                SignedKeys(bytes.fromhex(oem.signer), 1, bytes(32), (mp_key()._replace(origin="simulated"),))
            )
    finally:
        state.close()
    assert oem.rows() == before


def mp_key() -> RegisteredKey:
    return RegisteredKey(b"i" * 32, "mp", b"\x04" + A_KEY, "silicon")


def test_production_takes_a_list_of_its_realm(oem: Oem) -> None:
    raw, state = Path(oem.sign(1, ek(1), realm="production")).read_bytes(), in_production(oem)
    try:
        office = Office(state)
        assert office.import_list(read_list(raw, state.realm, office.trusted_signers())) == 1
        with pytest.raises(NeedsPerson, match="import-realm"):
            read_list(Path(oem.sign(2, ek(2))).read_bytes(), state.realm, office.trusted_signers())
    finally:
        state.close()


def test_a_simulated_part_is_not_signed_for_production(oem: Oem) -> None:
    record = dict(board.mp_key_record("imx8mm", fuses.srk_hash_of("lab")))
    told, out = oem.write("sim.json", json.dumps(record)), oem.folder / "out"
    words = ("--key", str(oem.folder / "signer.pem"), "--sequence", "1", "--out", str(out))
    code, _, err = oem.run("key", "sign-list", told, *words, "--realm", "production")
    assert code == 64 and "simulated" in err and not out.exists()
    assert oem.run("key", "sign-list", told, *words)[0] == 0
    assert oem.read("key", "import", str(out))["new"] == 1


def test_an_unsigned_record_says_so_in_the_lab(desk: Oem) -> None:
    code, out, _ = desk.run("key", "import", desk.write("one.json", json.dumps(ek(1))))
    assert code == 0 and "unsigned, which realm lab alone takes" in out
    assert desk.read("key", "import", desk.write("two.json", json.dumps([ek(1), ek(2)])))["signed"] is False
    assert ("import", desk.signer) not in desk.entries()
    assert desk.run("mp", "import-log", desk.write("a.log", BOARD_A))[0] == 77


@pytest.mark.parametrize("said", [None, "yes", "00" * 32, ""])
def test_a_signer_is_trusted_by_his_whole_thumbprint_alone(desk: Oem, said: str | None) -> None:
    """T-374 Slipped signer: somebody puts his own point where the operator takes it from."""
    before = desk.rows()
    words = () if said is None else ("--confirm", said)
    code, out, err = desk.run("key", "trust-signer", desk.point, *words)
    assert code == 77 and "nothing was done" in out + err
    assert desk.rows() == before and desk.read("key", "signers") == []
    assert desk.run("key", "trust-signer", desk.point, "--confirm", desk.signer[:16])[0] == 77
    assert desk.rows() == before


def test_a_signer_is_trusted_once_and_stands_in_the_ledger(desk: Oem) -> None:
    spaced = " ".join(desk.signer.upper()[at : at + 8] for at in range(0, 64, 8))
    first = desk.read("key", "trust-signer", desk.point, "--confirm", spaced)
    assert first == {"thumbprint": desk.signer, "trusted": True, "new": True}
    assert desk.read("key", "trust-signer", desk.point)["new"] is False
    assert desk.entries() == [("signer", desk.signer)]
    assert [one["thumbprint"] for one in desk.read("key", "signers")] == [desk.signer]


def test_a_signer_in_a_file_is_the_same_one(desk: Oem) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = load_key_file(desk.folder / "signer.pem").public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for name, text in (("point", f"{desk.point}\n".encode()), ("key.pub", pem)):
        assert desk.read("key", "trust-signer", desk.write(name, text), code=77)["thumbprint"] == desk.signer


def test_the_private_key_stays_off_the_server(desk: Oem) -> None:
    """T-375 Stolen signer: his private key is carried to the server, where whoever has the server has it too."""
    before = desk.rows()
    private = desk.folder / "signer.pem"
    code, _, err = desk.run("key", "trust-signer", str(private), "--confirm", desk.signer)
    assert code == 64 and "holds a private key, which belongs off line" in err
    assert desk.rows() == before
    body = private.read_bytes()
    assert [one for one in desk.state.rglob("*") if one.is_file() and body in one.read_bytes()] == []


def test_a_dismissed_signers_lists_are_refused_for_good(oem: Oem) -> None:
    """T-375 Stolen signer: once it is known, no list of his counts, and nobody trusts him again by mistake."""
    oem.read("key", "import", oem.sign(1, ek(1)))
    stolen = oem.sign(2, ek(2))
    assert oem.read("key", "dismiss-signer", oem.signer)["new"] is True
    assert oem.read("key", "dismiss-signer", oem.signer)["new"] is False
    before = oem.rows()
    code, _, err = oem.run("key", "import", stolen)
    assert code == 77 and "import-signer" in err
    code, _, err = oem.run("key", "trust-signer", oem.point, "--confirm", oem.signer)
    assert code == 77 and "was dismissed, which is for good" in err
    assert oem.rows() == before and oem.keys() == [ek(1)["ek_name"]]
    assert [one["state"] for one in oem.read("key", "signers")] == ["dismissed"]
    assert oem.entries()[-1] == ("signer", oem.signer) and oem.run("ledger", "verify")[0] == 0
    with closing(sqlite3.connect(oem.state / "ledger.db")) as connection, connection:
        connection.execute("UPDATE import_signers SET dismissed_at = NULL")
    code, _, err = oem.run("ledger", "verify")
    assert code == 65 and "his dismissal" in err


def test_a_list_read_before_its_signer_was_dismissed_is_refused(oem: Oem) -> None:
    """T-375 Stolen signer: a command that verified the list a moment before does not enter it a moment after."""
    raw, state = Path(oem.sign(1, ek(1))).read_bytes(), open_state(oem.state)
    try:
        office = Office(state)
        told = read_list(raw, "lab", office.trusted_signers())
        oem.read("key", "dismiss-signer", oem.signer)
        with pytest.raises(NeedsPerson, match="import-signer"):
            office.import_list(told)
    finally:
        state.close()
    assert oem.keys() == []


def test_the_signers_key_and_a_list_are_for_their_owner_alone(oem: Oem) -> None:
    """T-292 Careless print: of an MP key on a list only its id is shown."""
    path = oem.sign(1, MP)
    for file in (Path(path), oem.folder / "signer.pem"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    said = ""
    for words in (["inspect", path], ["inspect", path, "--json"], ["key", "import", path], ["key", "list"]):
        _, out, err = oem.run(*words)
        said += out + err
    assert A_KEY.hex()[:32] not in said and oem.keys()[0] in said


def test_a_list_with_a_secret_is_neither_signed_nor_taken(oem: Oem) -> None:
    """T-652 Way in: by JSON, signed or not, and by a list that another tool signed."""
    told = oem.write("secret.json", json.dumps({**MP, "mp_use": "secret"}))
    out, before = oem.folder / "out", oem.rows()
    words = ("--key", str(oem.folder / "signer.pem"), "--sequence", "1", "--out", str(out))
    for command in (("key", "sign-list", told, *words), ("key", "import", told)):
        code, _, err = oem.run(*command)
        assert code == 64 and "mpserver mp vault import" in err
        assert A_KEY.hex() not in err and hashlib.sha256(A_KEY).hexdigest() not in err
    assert not out.exists() and oem.rows() == before


def test_a_signers_key_that_others_can_read_signs_nothing(oem: Oem) -> None:
    """T-375 Stolen signer: whoever could read the key may have signed lists of his own."""
    (oem.folder / "signer.pem").chmod(0o640)
    out = oem.folder / "out"
    told = oem.write("list.json", json.dumps(ek(1)))
    words = ("--key", str(oem.folder / "signer.pem"), "--sequence", "1", "--out", str(out))
    code, _, err = oem.run("key", "sign-list", told, *words)
    assert code == 65 and "open to others (mode 640)" in err and not out.exists()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM import_lists", "or a list taken, that no row has"),
        ("UPDATE import_lists SET sequence = 1", "import list 1 of signer"),
        ("UPDATE import_lists SET digest = zeroblob(32)", "import list 3 of signer"),
        ("UPDATE import_lists SET records = 2", "import list 3 of signer"),
        (
            "INSERT INTO import_signers VALUES (zeroblob(32), zeroblob(65), 1, NULL)",
            "is not trusted as the ledger says",
        ),
        ("UPDATE import_signers SET dismissed_at = 1", "is not trusted as the ledger says"),
        ("UPDATE import_signers SET point = zeroblob(65)", "is not trusted as the ledger says"),
    ],
)
def test_ledger_verify_holds_signers_and_lists_against_the_tree(oem: Oem, statement: str, said: str) -> None:
    """T-376 Insider: an editor makes the server trust another signer, or forget that it took a list."""
    oem.read("key", "import", oem.sign(3, ek(1)))
    assert oem.run("ledger", "verify")[0] == 0
    with closing(sqlite3.connect(oem.state / "ledger.db")) as connection, connection:
        connection.execute(statement)
    code, _, err = oem.run("ledger", "verify")
    assert code == 65 and said in err


def test_a_list_as_long_as_allowed_is_taken_whole(oem: Oem) -> None:
    shown = oem.read("key", "import", oem.sign(1, *(ek(number) for number in range(IMPORT_RECORDS_MAX))))
    assert shown["new"] == IMPORT_RECORDS_MAX == len(oem.keys())
    assert oem.read("ledger", "verify")["entries"] == IMPORT_RECORDS_MAX + 2


def test_the_longest_records_fit_the_bound() -> None:
    record = ImportRecord("optee", bytes(422), "simulated", part="x" * 64)
    longest = IMPORT_LIST.encode(ImportList("production", 2**63 - 1, (record,) * IMPORT_RECORDS_MAX))
    assert IMPORT_MAX_BYTES - 4_096 < len(longest) < IMPORT_MAX_BYTES - ROOM_FOR_FRAMING


def test_one_record_too_many_is_named_before_anything_is_signed(oem: Oem) -> None:
    told = oem.write("long.json", json.dumps([ek(number) for number in range(IMPORT_RECORDS_MAX + 1)]))
    out = oem.folder / "out"
    words = ("--key", str(oem.folder / "signer.pem"), "--sequence", "1", "--out", str(out))
    code, _, err = oem.run("key", "sign-list", told, *words)
    assert code == 64 and "1 to 4096 records, not 4097: make several lists" in err and not out.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sign-list", "LIST", "--key", "KEY", "--sequence", "0", "--out", "OUT"], "a whole number from 1"),
        (["sign-list", "LIST", "--key", "KEY", "--sequence", "-1", "--out", "OUT"], "sequence"),
        (["sign-list", "LIST", "--key", "KEY", "--sequence", "9" * 19, "--out", "OUT"], "a whole number from 1"),
        (["sign-list", "LIST", "--key", "KEY", "--sequence", "9" * 5000, "--out", "OUT"], "a whole number from 1"),
        (["sign-list", "LIST", "--key", "KEY", "--out", "OUT"], "--sequence"),
        (["sign-list", "LIST", "--key", "NONE", "--sequence", "1", "--out", "OUT"], "there is no such file"),
        (["sign-list", "NONE", "--key", "KEY", "--sequence", "1", "--out", "OUT"], "cannot read"),
        (["sign-list", "LIST", "--key", "KEY", "--sequence", "1", "--out", "KEY"], "exists already"),
        (["sign-list", "KEY", "--key", "KEY", "--sequence", "1", "--out", "OUT"], "not JSON"),
        (["new-signer", "--out", "KEY"], "exists already"),
        (["new-signer"], "--out"),
        (["trust-signer", "NONE"], "cannot read"),
        (["trust-signer", "0400"], "no point of P-256"),
        (["trust-signer", "04" + "00" * 64], "no point of P-256"),
        (["trust-signer", "LIST"], "no point of P-256"),
        (["trust-signer", "RSA"], "no point of P-256"),
        (["dismiss-signer", "00"], "a thumbprint has 64 hex digits"),
        (["dismiss-signer", "everybody"], "a thumbprint has 64 hex digits"),
        (["import", "NONE"], "cannot read"),
        (["import", "BINARY"], "neither a signed list nor UTF-8"),
        (["import", "CARD"], "kind must be"),
    ],
    ids=lambda one: " ".join(one)[:60] if isinstance(one, list) else None,
)
def test_a_mistyped_command_is_one_line_and_leaves_nothing(desk: Oem, words: list[str], said: str) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = rsa.generate_private_key(65537, 2048).public_key()
    files = {
        "LIST": desk.write("list.json", json.dumps([ek(1)])),
        "KEY": str(desk.folder / "signer.pem"),
        "NONE": str(desk.folder / "nothing"),
        "OUT": str(desk.folder / "out"),
        "RSA": desk.write("rsa.pub", public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
        "BINARY": desk.write("binary", b"\xff\xfe"),
        "CARD": desk.write("card.json", json.dumps({"kind": "card", "origin": "silicon"})),
    }
    before, key = desk.rows(), (desk.folder / "signer.pem").read_bytes()
    code, out, err = desk.run("key", *(files.get(word, word) for word in words))
    assert (code, out) == (64, "") and said in err and err.count("\n") == 1
    assert desk.rows() == before and not (desk.folder / "out").exists()
    assert (desk.folder / "signer.pem").read_bytes() == key


def test_a_signer_whom_nobody_trusted_cannot_be_dismissed(desk: Oem) -> None:
    before = desk.rows()
    code, _, err = desk.run("key", "dismiss-signer", desk.signer)
    assert code == 77 and "was ever trusted" in err and desk.rows() == before


def test_a_key_that_cannot_be_written_is_named(desk: Oem) -> None:
    code, _, err = desk.run("key", "new-signer", "--out", str(desk.folder / "no" / "where.pem"))
    assert code == 74 and "cannot write" in err


def test_the_completion_knows_the_commands_of_lists(desk: Oem) -> None:
    script = desk.run("completion", "bash")[1]
    for path in ("new-signer", "sign-list", "trust-signer", "dismiss-signer", "signers"):
        assert f'"key {path}"' in script
    assert "--sequence" in script and "--confirm" in script


def test_a_secret_on_a_list_of_another_tool_is_shown_by_its_length(oem: Oem) -> None:
    """T-292 Careless print: neither the key nor its SHA-256, whoever signed such a list."""
    vector = next(one for one in VECTORS if one["name"] == "MP key that is a secret")
    raw = read_bytes(vector["bytes"])
    key = raw[raw.index(b"\x02\x58\x40") + 3 :][:64]
    p256.load_point(b"\x04" + key)
    for more in ((), ("--json",)):
        code, out, err = oem.run("inspect", oem.write("list", raw), *more)
        assert code == 0 and "64 bytes, not shown" in out
        assert key.hex() not in out + err and hashlib.sha256(key).hexdigest() not in out + err
