"""Bundles that left the house: what the ledger file keeps of each, and nothing of any value but its keyed check."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from mpissuer.booking import digest_of_object
from mpserver.errors import StoreDamaged
from mpserver.store.database import Connection
from mpwire.codec import decode, encode
from mpwire.errors import Malformed
from mpwire.limits import SLOT_VALUE_MAX_BYTES
from mpwire.messages.bundle import BUNDLE_POLICY, UID, BundlePolicy
from mpwire.messages.grant import CHECK_BYTES
from mpwire.messages.plain import NAME
from mpwire.shape import Integer, ListOf, Octets, Row, Text

_COLUMNS: Final = (
    "digest, product, job, authority, version, minimum, made_at, expires, quantity, uids, policy_digest, vault_name,"
    " slots, rights"
)


class BundleSlot(NamedTuple):
    """One component, as a board's receipt is held against it."""

    name: str
    version: int
    action: str
    uid: bytes | None
    """The one board it is for; None: all."""
    check: bytes
    """Check value (docs/wire.md 6.2) under the bundle's check key."""


class BundleRow(NamedTuple):
    """A bundle in the ledger file."""

    digest: bytes
    """SHA-256 of its envelope."""
    product: str
    job: str
    authority: str
    version: int
    minimum: int
    made_at: int
    expires: int
    quantity: int | None
    """How many boards may be flashed with it."""
    uids: tuple[bytes, ...] | None
    """Fuse UIDs of the boards it is for; None: any board that meets its conditions."""
    policy_digest: bytes
    vault_name: str
    """Of the secret in the vault that its keys come from."""
    slots: tuple[BundleSlot, ...]
    """Every slot it brings."""
    rights: bytes | None = None
    """The bundle-policy it brings, encoded."""


class History(NamedTuple):
    """What boards of a product were told before, as far as a new bundle of one authority has to know."""

    version: int
    """Highest version made under the authority; 0: none."""
    minimum: int
    """No bundle of the authority below it is taken, by the highest that its bundles or any policy said."""
    rights: BundlePolicy
    """In force: that of the newest bundle that brought one."""
    slot_versions: Mapping[str, int]
    """Highest version of each slot, by any authority."""
    policies: int
    """Made so far, under any authority."""


NO_RIGHTS: Final = BundlePolicy({}, {})
_UIDS: Final = ListOf(UID, 2**31)
_SLOTS: Final = ListOf(Row(NAME, Integer(), Text(16), Octets(0, 16), Octets(CHECK_BYTES)), 2**31)


def insert_bundle(connection: Connection, row: BundleRow) -> None:
    """Inside a transaction. Raises sqlite3.IntegrityError where it is there."""
    marks = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO bundles ({_COLUMNS}) VALUES ({marks})", _write(row))


def find_bundle(connection: Connection, digest: bytes) -> BundleRow | None:
    """By the SHA-256 of its envelope."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM bundles WHERE digest = ?", (digest,)).fetchall()
    return _read(rows[0]) if rows else None


def list_bundles(connection: Connection) -> Iterator[BundleRow]:
    """In the order they were made."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM bundles ORDER BY made_at, rowid").fetchall()
    return (_read(row) for row in rows)


def find_highest(connection: Connection, product: str, authority: str) -> tuple[int, int]:
    """Highest version made for this product under this authority, and highest minimum said; 0 and 0 without any."""
    row = connection.execute(
        "SELECT coalesce(max(version), 0), coalesce(max(minimum), 0) FROM bundles WHERE product = ? AND authority = ?",
        (product, authority),
    ).fetchone()
    return int(row[0]), int(row[1])


def read_history(connection: Connection, product: str, authority: str) -> History:
    """All of it from the rows: they are what left the house."""
    version, minimum = find_highest(connection, product, authority)
    rights, slots, told, policies = NO_RIGHTS, dict[str, int](), 0, 0
    for row in list_bundles(connection):
        if row.product != product:
            continue
        for slot in row.slots:
            slots[slot.name] = max(slot.version, slots.get(slot.name, 0))
        if row.rights is not None:
            rights, policies = BUNDLE_POLICY.decode(row.rights, SLOT_VALUE_MAX_BYTES), policies + 1
            told = max(told, rights.minimums.get(authority, 0))
    return History(version, max(minimum, told), rights, slots, policies)


def digest_row(row: BundleRow) -> bytes:
    """How it stands in the tree, under kind `bundle` and its job."""
    return digest_of_object("bundle", *_write(row))


def digest_rows(connection: Connection) -> Iterator[tuple[bytes, bytes]]:
    """Bundle and entry digest of every row as it lies in the file, whatever stands in it."""
    for row in connection.execute(f"SELECT {_COLUMNS} FROM bundles").fetchall():
        try:
            yield row[0], digest_of_object("bundle", *row)
        except (TypeError, ValueError):
            yield row[0], b""


def _write(row: BundleRow) -> tuple[object, ...]:
    uids = None if row.uids is None else encode(list(row.uids))
    slots = [[one.name, one.version, one.action, one.uid or b"", one.check] for one in row.slots]
    return (*row[:9], uids, row.policy_digest, row.vault_name, encode(slots), row.rights)


def _read(row: tuple[Any, ...]) -> BundleRow:
    digest, uids, slots = row[0], row[9], row[12]
    try:
        told = _SLOTS.read(decode(slots), "slots")
        named = None if uids is None else tuple(_UIDS.read(decode(uids), "uids"))
    except (Malformed, TypeError) as error:
        raise StoreDamaged(f"what the ledger file keeps of bundle {digest!r} cannot be read: {error}") from error
    found = tuple(BundleSlot(name, version, action, uid or None, check) for name, version, action, uid, check in told)
    return BundleRow._make((*row[:9], named, row[10], row[11], found, row[13]))
