"""What must be true once an enrollment that was cut has finished, on both sides."""

import hashlib

from mpagent.record import Stage
from mpserver.keystore import LAST_HEAD
from mpserver.store.audit import Findings, verify_ledger
from mpserver.store.lasthead import LastHeadFile
from mpwire import evidence, registry
from mpwire.codec import decode, encode
from mpwire.limits import PROOF_MAX_BYTES
from mpwire.messages.plain import CLOSED, PROOF
from tests.line import Device, Oem

SENT = ("cloud", "identity", "licence")
"""Slots of the test product whose value the issuer makes."""


def check_finished(oem: Oem, device: Device, *, nights: int = 0) -> None:
    """One key, one unit, one allocation, one count; the device holds what the ledger holds, and nothing half-done.

    `nights`: how often the board may have had to begin anew because its challenge expired.
    """
    record = device.record()
    assert record.stage is Stage.DONE and record.ueid is not None and record.closed is not None
    check_words(device.line.heard, nights)
    check_books(oem, record.ueid)
    check_values(oem, device, record.ueid)
    check_disk(device, record.generation)
    closed = CLOSED.decode(record.closed, len(record.closed))
    assert closed.receipt_digest == hashlib.sha256(device.line.heard[-1]).digest()
    assert oem.log == [], "the issuer refused something of an honest board"


def check_words(heard: list[bytes], nights: int) -> None:
    """Whatever was said twice was said in the same bytes, and under one device key."""
    hellos, proofs, receipts = sort_words(heard)
    assert 1 <= len(hellos) <= 1 + nights, "the board said two different Hellos"
    assert 1 <= len(proofs) <= 1 + nights, "the board said two different Proofs"
    assert len(receipts) == 1, "the board said two different Receipts"
    assert len({read_key(proof) for proof in proofs}) == 1, "the board showed two device keys"


def sort_words(heard: list[bytes]) -> tuple[set[bytes], set[bytes], set[bytes]]:
    """Distinct Hellos, Proofs and Receipts."""
    sorted_by_kind: dict[object, set[bytes]] = {registry.HELLO: set(), registry.PROOF: set(), None: set()}
    for raw in heard:
        item = decode(raw) if raw[:1] != b"\xd2" else None  # tag 18: an envelope
        sorted_by_kind[item[0] if isinstance(item, dict) else None].add(raw)
    return sorted_by_kind[registry.HELLO], sorted_by_kind[registry.PROOF], sorted_by_kind[None]


def read_key(proof: bytes) -> bytes:
    """The device key a Proof confirms."""
    outer = evidence.read_outer(PROOF.decode(proof, PROOF_MAX_BYTES).evidence)
    return evidence.read_inner(outer.payload)[1].cnf.key


def check_books(oem: Oem, ueid: bytes) -> None:
    """One unit, one grant, one value a slot, no alarm; and the counts agree with the units."""
    mine = "SELECT count(*) FROM {} WHERE ueid = ?"
    counts = {table: oem.connection.execute(mine.format(table), (ueid,)).fetchone()[0] for table in _TABLES}
    assert counts == _TABLES
    assert oem.granted() == oem.count("units")
    assert oem.connection.execute("SELECT state FROM units WHERE ueid = ?", (ueid,)).fetchone() == ("provisioned",)


_TABLES = {"units": 1, "grants": 1, "slot_values": len(SENT), "alarms": 0}


def check_values(oem: Oem, device: Device, ueid: bytes) -> None:
    """The chip unseals what the ledger allocated."""
    found = device.secrets()
    assert set(found) == {"disk", *SENT} and len(found["disk"]) == 32
    rows = oem.connection.execute("SELECT slot, version, wrapped FROM slot_values WHERE ueid = ?", (ueid,)).fetchall()
    for slot, version, wrapped in rows:
        allocated = oem.authority.unwrap("job-1", wrapped, encode([ueid, slot, version]))
        assert found[slot] == allocated.reveal(), f"slot {slot} is not what the ledger allocated"


def check_disk(device: Device, generation: int) -> None:
    """One vault generation, the one the record names; no half-written, damaged or latched file."""
    assert device.disk.names("vault") == (f"gen-{generation:06d}",)
    files = {path.name for path in device.disk.folder.rglob("*") if path.is_file()}
    wrong = {name for name in files if name.startswith(".") or "damaged" in name or name == "latch"}
    assert wrong == set(), f"left behind: {wrong}"


def check_ledger(oem: Oem) -> Findings:
    """`mpserver ledger verify`."""
    last = LastHeadFile(oem.folder / "keys" / LAST_HEAD).read()
    return verify_ledger(oem.connection, (oem.authority.public_key("trust"),), "lab", last)
