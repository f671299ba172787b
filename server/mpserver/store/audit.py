"""`mpserver ledger verify`: the whole ledger against itself, from the leaves up. Reads only.

What it shows: nobody changed, removed or reordered an entry after a head over it was signed, and counts, grants, units
and receipts agree. What it cannot show: a ledger rewritten by somebody who holds the head key.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from mpserver.errors import StoreDamaged
from mpserver.store.database import Connection
from mpserver.store.decisions import KINDS
from mpserver.store.lasthead import LastHead
from mpserver.store.tree import place_of
from mpwire.errors import MpError
from mpwire.labels import TYP_HEAD
from mpwire.limits import CLOSED_MAX_BYTES
from mpwire.merkle import Frontier, leaf_hash, verify_inclusion
from mpwire.messages.issuer import ENTRY, HEAD, Entry, Head
from mpwire.messages.plain import CLOSED, Closed
from mpwire.trust import CERTIFICATE_MAX_BYTES, Trust, read_head, read_signed

ENTRY_MAX_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Findings:
    """What was looked at, once everything held."""

    entries: int
    heads: int
    units: int
    closed: int
    grants: int
    jobs: int
    root: bytes
    decided: frozenset[tuple[str, bytes]]
    """Kind and digest of every entry about a product, a key or a job."""


@dataclass(slots=True)
class _Walk:
    """What the entries said, by kind and digest."""

    edge: Frontier = field(default_factory=Frontier)
    heads: int = 0
    bodies: dict[tuple[str, bytes], int] = field(default_factory=dict)
    grants: int = 0
    receipts: dict[bytes | None, int] = field(default_factory=dict)
    """Index of each board's last receipt, by ueid."""
    told: int = 0
    """Receipts of all boards."""


def verify_ledger(connection: Connection, roots: tuple[bytes, ...], realm: str, last: LastHead) -> Findings:
    """Raises StoreDamaged naming the first bad index, head, unit, grant or job."""
    walk = _walk_entries(connection, roots, realm)
    if walk.edge.size < last.size:
        raise StoreDamaged(f"ledger: {walk.edge.size} entries, but {last.size} were committed: an older copy")
    units, closed = _check_units(connection, walk, roots, realm)
    _check_grants(connection, walk)
    jobs = _check_jobs(connection)
    if closed != walk.told:
        raise StoreDamaged(f"{walk.told} receipts stand in the ledger, and {closed} Closeds are kept")
    decided = frozenset(one for one in walk.bodies if one[0] in KINDS)
    return Findings(walk.edge.size, walk.heads, units, closed, walk.grants, jobs, walk.edge.root(), decided)


def _walk_entries(connection: Connection, roots: tuple[bytes, ...], realm: str) -> _Walk:
    walk, last = _Walk(), 0
    heads = {size: (root, signed) for size, root, signed in connection.execute("SELECT size, root, signed FROM heads")}
    stored = connection.execute("SELECT idx, body FROM entries ORDER BY idx")
    for index, body in stored:
        if index != walk.edge.size:
            raise StoreDamaged(f"ledger entry {walk.edge.size} is missing")
        _check_octets(body, f"ledger entry {index}")
        _note(walk, index, _read_entry(index, body))
        walk.edge, made = walk.edge.append(leaf_hash(body))
        for node in made:
            _check_node(connection, index, node.level, node.place, node.hash)
        if walk.edge.size in heads:
            root, signed = heads.pop(walk.edge.size)
            head = _read_head(signed, roots, realm, walk.edge.size)
            if not root == head.root == walk.edge.root() or head.size != walk.edge.size:
                raise StoreDamaged(f"ledger entry {index} or one before it was changed: head {head.size} disagrees")
            walk.heads += 1
            last = walk.edge.size
    if heads:
        raise StoreDamaged(f"ledger entry {walk.edge.size} is missing: a head over {max(heads)} entries was signed")
    if walk.edge.size and last != walk.edge.size:
        raise StoreDamaged(f"ledger entry {last} is under no signed head")
    return walk


def _check_octets(value: object, what: str) -> None:
    """SQLite lets any kind of value into any column; our own writer puts bytes there."""
    if type(value) is not bytes:
        raise StoreDamaged(f"{what} is not a string of bytes")


def _read_entry(index: int, body: bytes) -> Entry:
    try:
        return ENTRY.decode(body, ENTRY_MAX_BYTES)
    except MpError as error:
        raise StoreDamaged(f"ledger entry {index} cannot be read: {error}") from error


def _note(walk: _Walk, index: int, entry: Entry) -> None:
    if entry.kind in ("grant", "receipt") and (entry.kind, entry.digest) in walk.bodies:
        raise StoreDamaged(f"ledger entry {index} repeats entry {walk.bodies[entry.kind, entry.digest]}")
    walk.bodies[entry.kind, entry.digest] = index
    walk.grants += entry.kind == "grant"
    if entry.kind == "receipt":
        walk.receipts[entry.ueid] = index
        walk.told += 1


def _check_node(connection: Connection, index: int, level: int, place: int, made: bytes) -> None:
    row = connection.execute("SELECT hash FROM nodes WHERE place = ?", (place_of(level, place),)).fetchone()
    if row is None or row[0] != made:
        raise StoreDamaged(f"ledger entry {index} or one before it was changed: tree node {place} of level {level}")


def _read_head(signed: bytes, roots: tuple[bytes, ...], realm: str, size: int) -> Head:
    """A head counts by the certificate it was signed under then, whether or not that has ended since."""
    _check_octets(signed, f"the signed head over {size} ledger entries")
    try:
        said = HEAD.decode(read_signed(signed, TYP_HEAD).payload, CERTIFICATE_MAX_BYTES)
        return read_head(signed, Trust(realm=realm, roots=roots, epoch=0, now=said.time))
    except MpError as error:
        raise StoreDamaged(f"the signed head over {size} ledger entries does not hold: {error}") from error


def _check_units(connection: Connection, walk: _Walk, roots: tuple[bytes, ...], realm: str) -> tuple[int, int]:
    """Every Closed proves its receipt's entry in the tree, and every receipt in the tree has its unit's Closed."""
    count, proven = 0, 0
    for ueid, state, receipt, raw in connection.execute("SELECT ueid, state, receipt, closed FROM units"):
        count += 1
        if raw is None and state == "provisioned":
            raise StoreDamaged(f"unit {ueid.hex()} is provisioned without a Closed")
        if raw is None and ueid in walk.receipts:
            raise StoreDamaged(f"unit {ueid.hex()} has a receipt in ledger entry {walk.receipts[ueid]} and no Closed")
        if raw is not None and state == "granted":
            raise StoreDamaged(f"unit {ueid.hex()} has a Closed and is called granted")
        if raw is not None:
            _check_receipt(connection, ueid, receipt, raw, roots, realm)
            proven += 1
    for ueid, receipt, raw in connection.execute("SELECT ueid, receipt, closed FROM finals"):
        _check_receipt(connection, ueid, receipt, raw, roots, realm)
        proven += 1
    return count, proven


def _check_receipt(
    connection: Connection, ueid: bytes, receipt: object, raw: bytes, roots: tuple[bytes, ...], realm: str
) -> None:
    closed = _check_closed(connection, ueid, raw, roots, realm)
    _check_octets(receipt, f"the receipt of unit {ueid.hex()}")
    assert isinstance(receipt, bytes)  # just looked at
    if hashlib.sha256(receipt).digest() != closed.receipt_digest:
        raise StoreDamaged(f"the receipt of unit {ueid.hex()} is not the one in the ledger")


def _check_closed(connection: Connection, ueid: bytes, raw: bytes, roots: tuple[bytes, ...], realm: str) -> Closed:
    _check_octets(raw, f"the Closed of unit {ueid.hex()}")
    try:
        closed: Closed = CLOSED.decode(raw, CLOSED_MAX_BYTES)
        said = HEAD.decode(read_signed(closed.head, TYP_HEAD).payload, CERTIFICATE_MAX_BYTES)
        head = _read_head(closed.head, roots, realm, said.size)
        verify_inclusion(leaf_hash(closed.entry), closed.leaf_index, head.size, closed.path, head.root)
        entry = ENTRY.decode(closed.entry, ENTRY_MAX_BYTES)
    except MpError as error:
        raise StoreDamaged(f"the Closed of unit {ueid.hex()} does not hold: {error}") from error
    row = connection.execute("SELECT body FROM entries WHERE idx = ?", (closed.leaf_index,)).fetchone()
    if row is None or row[0] != closed.entry or (entry.ueid, entry.digest) != (ueid, closed.receipt_digest):
        raise StoreDamaged(f"ledger entry {closed.leaf_index} is not the receipt of unit {ueid.hex()}")
    return closed


def _check_grants(connection: Connection, walk: _Walk) -> None:
    """Every stored Grant stands in the tree, every grant entry has its Grant, every unit was granted something."""
    found, granted = 0, set[bytes]()
    for digest, ueid, answer in connection.execute("SELECT digest, ueid, answer FROM grants"):
        found += 1
        granted.add(ueid)
        _check_octets(answer, f"a grant of unit {ueid.hex()}")
        if hashlib.sha256(answer).digest() != digest or ("grant", digest) not in walk.bodies:
            raise StoreDamaged(f"a grant of unit {ueid.hex()} is not the one in the ledger")
    if found != walk.grants:
        raise StoreDamaged(f"the ledger tells of {walk.grants} grants, {found} are stored")
    for (ueid,) in connection.execute("SELECT ueid FROM units"):
        if ueid not in granted:
            raise StoreDamaged(f"unit {ueid.hex()} was counted without a grant")


def _check_jobs(connection: Connection) -> int:
    """Counts are what the units say, and within quota."""
    counted = Counter(job for (job,) in connection.execute("SELECT job FROM units"))
    jobs = connection.execute("SELECT name, quota, granted FROM jobs").fetchall()
    for name, quota, granted in jobs:
        if not counted[name] == granted <= quota:
            raise StoreDamaged(f"job {name} says {granted} of {quota} granted, units say {counted[name]}")
    return len(jobs)
