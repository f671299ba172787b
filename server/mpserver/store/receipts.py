"""Receipts of boards without a line: what the ledger file keeps of each, and what they say when laid side by side.

Conflicts between receipts stand in no row: they are read from all rows, so the order in which files came decides none.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from mpissuer.booking import DEVICE_KEY, digest_of_object
from mpserver.errors import StoreDamaged
from mpserver.store.bundles import BundleRow
from mpserver.store.database import Connection
from mpwire import labels
from mpwire.cose import read_sign1, thumbprint
from mpwire.errors import Malformed
from mpwire.limits import RECEIPT_MAX_BYTES
from mpwire.messages.bundle import BUNDLE_RECEIPT, BundleReceipt
from mpwire.trust import ES256_ONLY

KIND: Final = "bundle-receipt"
"""Of its entries in the tree."""
UEID: Final = "ueid"
UID: Final = "imx-uid"
_COLUMNS: Final = "digest, bundle, ueid, sign_key, signed, mac, faults"


class ReceiptRow(NamedTuple):
    """A receipt that a holder of its bundle's key made."""

    digest: bytes
    """SHA-256 of the COSE_Sign1."""
    bundle: bytes
    ueid: bytes
    sign_key: bytes
    signed: bytes
    mac: bytes
    faults: str
    """What is wrong with it by itself: names joined by spaces."""


class Clash(NamedTuple):
    """An id that more than one board shows."""

    kind: str
    """Kind of the hardware id; `ueid` and `device-key` as well."""
    id: bytes
    boards: tuple[tuple[bytes, bytes], ...]
    """ueid and device key of each."""


class Surplus(NamedTuple):
    """A board beyond what was ordered; which boards came late is the word of the files, and of their order."""

    ueid: bytes
    sign_key: bytes
    place: int
    """Which of the bundle's or the job's boards it is, from 1."""
    ordered: int
    bundle: bytes | None
    """Whose quantity it is; None: the job's."""
    job: str


def read_signed(signed: bytes) -> BundleReceipt:
    """The payload, without looking at the signature again. Raises Malformed."""
    payload = read_sign1(signed, typ=labels.TYP_BUNDLE_RECEIPT, algs=ES256_ONLY).payload
    return BUNDLE_RECEIPT.decode(payload, RECEIPT_MAX_BYTES)


def name_ids(receipt: BundleReceipt) -> dict[str, bytes]:
    """All that must belong to one board: its hardware ids, its name and its key."""
    return {**receipt.hardware_ids, UEID: receipt.ueid, DEVICE_KEY: thumbprint(receipt.key)}


def is_kept(connection: Connection, digest: bytes) -> bool:
    """Whether this receipt was taken before."""
    return connection.execute("SELECT 1 FROM bundle_receipts WHERE digest = ?", (digest,)).fetchone() is not None


def insert_receipts(connection: Connection, rows: Sequence[tuple[ReceiptRow, Mapping[str, bytes]]], now: int) -> None:
    """Inside a transaction; none of them may be kept already."""
    marks = ", ".join("?" * (len(ReceiptRow._fields) + 1))
    connection.executemany(
        f"INSERT INTO bundle_receipts ({_COLUMNS}, taken_at) VALUES ({marks})", [(*row, now) for row, _ in rows]
    )
    connection.executemany(
        "INSERT OR IGNORE INTO bundle_receipt_ids (kind, id, ueid, sign_key) VALUES (?, ?, ?, ?)",
        [(kind, one, row.ueid, row.sign_key) for row, ids in rows for kind, one in ids.items()],
    )


def digest_row(row: ReceiptRow) -> bytes:
    """How it stands in the tree, under kind KIND, its job and its board."""
    return digest_of_object(KIND, row.digest, row.mac, row.faults)


def list_receipts(connection: Connection, ueid: bytes | None = None) -> Iterator[tuple[ReceiptRow, int]]:
    """Each with when it was taken, in the order they came; of one board, or of all."""
    which, parameters = ("", ()) if ueid is None else (" WHERE ueid = ?", (ueid,))
    for *row, taken_at in connection.execute(
        f"SELECT {_COLUMNS}, taken_at FROM bundle_receipts{which} ORDER BY rowid", parameters
    ):
        yield ReceiptRow._make(row), taken_at


def list_faulty(connection: Connection) -> Iterator[ReceiptRow]:
    """Receipts with something wrong by themselves, in the order they came."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM bundle_receipts WHERE faults != '' ORDER BY rowid")
    return (ReceiptRow._make(row) for row in rows.fetchall())


def count_boards(connection: Connection, bundle: bytes) -> int:
    """Boards by name that took it."""
    row = connection.execute("SELECT count(DISTINCT ueid) FROM bundle_receipts WHERE bundle = ?", (bundle,)).fetchone()
    return int(row[0])


def find_clashes(connection: Connection) -> Iterator[Clash]:
    """Ids that two boards of receipts show, or one of them and a board that came over a line."""
    boards: dict[tuple[str, bytes], set[tuple[bytes, bytes]]] = defaultdict(set)
    for kind, one, ueid, key in connection.execute(
        "SELECT kind, id, ueid, sign_key FROM bundle_receipt_ids WHERE (kind, id) IN"
        " (SELECT kind, id FROM bundle_receipt_ids GROUP BY kind, id HAVING count(*) > 1)"
    ):
        boards[kind, one].add((ueid, key))
    for kind, one, *both in connection.execute(
        "SELECT mine.kind, mine.id, mine.ueid, mine.sign_key, units.ueid, units.sign_key"
        " FROM bundle_receipt_ids AS mine"
        " JOIN hardware_ids AS theirs ON theirs.kind = mine.kind AND theirs.id = mine.id"
        " JOIN units ON units.ueid = theirs.ueid"
        " WHERE units.ueid != mine.ueid OR units.sign_key != mine.sign_key"
    ):
        boards[kind, one] |= {(both[0], both[1]), (both[2], both[3])}
    for (kind, one), found in sorted(boards.items()):
        yield Clash(kind, one, tuple(sorted(found)))


def find_surplus(connection: Connection, bundles: Iterable[BundleRow]) -> Iterator[Surplus]:
    """Boards beyond a bundle's quantity; then others beyond the quota of a job, by its first loadings."""
    jobs, told = set[str](), set[bytes]()
    for bundle in bundles:
        if bundle.quantity is not None:
            rows = _in_order(connection, "bundle = ?", bundle.digest, bundle.quantity)
            for place, (ueid, key) in enumerate(rows, bundle.quantity + 1):
                told.add(ueid)
                yield Surplus(ueid, key, place, bundle.quantity, bundle.digest, bundle.job)
        if bundle.authority == "mp":
            jobs.add(bundle.job)
    for job in sorted(jobs):
        (quota,) = connection.execute("SELECT quota FROM jobs WHERE name = ?", (job,)).fetchone()
        which = "bundle IN (SELECT digest FROM bundles WHERE job = ? AND authority = 'mp')"
        for place, (ueid, key) in enumerate(_in_order(connection, which, job, quota), quota + 1):
            if ueid not in told:
                yield Surplus(ueid, key, place, quota, None, job)


def _in_order(connection: Connection, which: str, what: object, after: int) -> list[tuple[bytes, bytes]]:
    """Boards in the order of their first receipts, behind the first `after`."""
    return connection.execute(
        f"SELECT ueid, sign_key FROM bundle_receipts WHERE {which} GROUP BY ueid ORDER BY min(rowid) LIMIT -1 OFFSET ?",
        (what, after),
    ).fetchall()


def find_missing(connection: Connection, bundle: BundleRow) -> tuple[bytes, ...]:
    """Fuse UIDs on its list without a receipt of it, nor of a newer one of its authority and product."""
    rows = connection.execute(
        "SELECT DISTINCT ids.id FROM bundle_receipts AS one JOIN bundles ON bundles.digest = one.bundle"
        " JOIN bundle_receipt_ids AS ids ON ids.kind = ? AND ids.ueid = one.ueid AND ids.sign_key = one.sign_key"
        " WHERE bundles.product = ? AND bundles.authority = ? AND bundles.version >= ?",
        (UID, bundle.product, bundle.authority, bundle.version),
    ).fetchall()
    came = {uid for (uid,) in rows}
    return tuple(uid for uid in bundle.uids or () if uid not in came)


def check_receipts(connection: Connection, entered: frozenset[bytes]) -> None:
    """Rows against the tree, both ways, and ids against receipts. Raises StoreDamaged naming the first that is wrong.

    `entered` are the digests of all entries of kind KIND.
    """
    left = set(entered)
    named = set[tuple[Any, ...]]()
    for row, _ in list_receipts(connection):
        said = _read_row(row)
        if digest_row(row) not in entered or hashlib.sha256(row.signed).digest() != row.digest:
            raise StoreDamaged(f"bundle receipt {row.digest.hex()} is not the one in the ledger")
        if (said.bundle_digest, said.ueid, said.key) != (row.bundle, row.ueid, row.sign_key):
            raise StoreDamaged(f"bundle receipt {row.digest.hex()} is listed for another board or bundle")
        left.discard(digest_row(row))
        named |= {(kind, one, row.ueid, row.sign_key) for kind, one in name_ids(said).items()}
    if left:
        raise StoreDamaged("the ledger has a bundle receipt that no row has")
    if named != set(connection.execute("SELECT kind, id, ueid, sign_key FROM bundle_receipt_ids").fetchall()):
        raise StoreDamaged("the ids of boards without a line are not those in their receipts")


def _read_row(row: ReceiptRow) -> BundleReceipt:
    try:
        if type(row.digest) is not bytes or type(row.signed) is not bytes:
            raise TypeError
        return read_signed(row.signed)
    except (Malformed, TypeError):
        raise StoreDamaged(f"bundle receipt {row.digest!r} cannot be read") from None
