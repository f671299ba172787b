"""mpissuer.ports.Books over one open transaction: everything done here stands or falls with it."""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from mpissuer.errors import Again, Refused
from mpissuer.ports import GrantRow, Job, Said, SlotCheck, StoredValue, Unit
from mpserver.errors import StoreDamaged
from mpserver.store.database import Connection
from mpwire.codec import decode, encode


class SqlBooks:
    """The books of one order. `entries` are the leaves it wants appended; the batch gives them their index."""

    def __init__(self, connection: Connection, now: Callable[[], int]) -> None:
        self._connection, self._now = connection, now
        self.entries: list[bytes] = []
        self.has_written = False
        """Whether a verb tried to change a row: an order that fails after that has to be taken out again."""

    def open_job(self, product: str) -> Job | None:
        """The oldest open job of the product; where none is left, the last that was used up: it says "quota"."""
        row = self._first_job(product, "open", "ASC") or self._first_job(product, "exhausted", "DESC")
        return Job(*row) if row else None

    def unit(self, ueid: bytes) -> Unit | None:
        """The board with all its hardware ids."""
        return find_unit(self._connection, ueid)

    def owners(self, ids: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """The ueid that first showed each of these ids, by kind."""
        # One lookup by key for each pair: SQLite answers `(kind, id) IN (VALUES ...)` by walking the whole table.
        pairs = " OR ".join(["(kind = ? AND id = ?)"] * len(ids))
        rows = self._connection.execute(
            f"SELECT kind, ueid FROM hardware_ids WHERE {pairs}",
            [part for pair in ids.items() for part in pair],
        )
        return dict(rows.fetchall())

    def find_said(self, proof_digest: bytes, nonce: bytes) -> Said | None:
        """The stored Grant that answered this Proof, or any Proof with this nonce."""
        row = self._connection.execute(
            "SELECT proof_digest, answer FROM grants WHERE proof_digest = ? OR nonce = ?", (proof_digest, nonce)
        ).fetchone()
        return Said(*row) if row else None

    def values(self, ueid: bytes) -> Mapping[str, StoredValue]:
        """The newest version of every slot of the allocation."""
        rows = self._connection.execute(
            "SELECT slot, version, wrapped FROM slot_values WHERE ueid = ? ORDER BY version", (ueid,)
        ).fetchall()
        return {slot: StoredValue(slot, version, wrapped) for slot, version, wrapped in rows}

    def add_unit(self, unit: Unit) -> None:
        """Count the board and own its hardware ids. Raises Refused: quota, clone, unit-known."""
        self._insist("quota", "UPDATE jobs SET granted = granted + 1 WHERE name = ?", [(unit.job,)])
        self._insist(
            "unit-known",
            "INSERT INTO units (ueid, product, job, state, sign_key, attester, grade, granted_at, closed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    *(unit.ueid, unit.product, unit.job, unit.state, unit.sign_key, unit.attester, unit.grade),
                    *(self._now(), unit.closed),
                )
            ],
        )
        self.add_hardware_ids(unit.ueid, unit.hardware_ids)

    def add_hardware_ids(self, ueid: bytes, ids: Mapping[str, bytes]) -> None:
        """Own these ids from now on. Raises Refused("clone")."""
        self._insist(
            "clone",
            "INSERT INTO hardware_ids (kind, id, ueid) VALUES (?, ?, ?)",
            [(kind, hardware_id, ueid) for kind, hardware_id in ids.items()],
            alarm=True,
        )

    def add_values(self, ueid: bytes, values: Iterable[StoredValue]) -> None:
        """The allocation. Raises Refused("slot-value-known")."""
        self._insist(
            "slot-value-known",
            "INSERT INTO slot_values (ueid, slot, version, wrapped) VALUES (?, ?, ?, ?)",
            [(ueid, one.slot, one.version, one.wrapped) for one in values],
        )

    def add_grant(self, row: GrantRow, nonce: bytes, proof_digest: bytes) -> None:
        """Raises Refused("nonce-used") for a nonce or a Proof that a stored Grant answers already."""
        self._insist(
            "nonce-used",
            "INSERT INTO grants (digest, ueid, product, job, sign_key, checks, nonce, proof_digest, answer)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    *(row.digest, row.ueid, row.product, row.job, row.sign_key, write_checks(row.checks)),
                    *(nonce, proof_digest, row.answer),
                )
            ],
        )

    def set_job_state(self, name: str, state: str) -> None:
        """Move a job on."""
        self.has_written = True
        self._connection.execute("UPDATE jobs SET state = ? WHERE name = ?", (state, name))

    def append(self, entry: bytes) -> None:
        """One leaf; kept here until the batch ends."""
        self.entries.append(entry)

    def _first_job(self, product: str, state: str, order: str) -> tuple[str, str, int, str, int] | None:
        found: tuple[str, str, int, str, int] | None = self._connection.execute(
            "SELECT name, product, quota, state, granted FROM jobs WHERE product = ? AND state = ?"
            f" ORDER BY place {order} LIMIT 1",
            (product, state),
        ).fetchone()
        return found

    def _insist(self, rule: str, sql: str, rows: Sequence[tuple[object, ...]], *, alarm: bool = False) -> None:
        self.has_written = True
        try:
            self._connection.executemany(sql, rows)
        except sqlite3.IntegrityError as error:
            again = Again.RETRY if rule == "nonce-used" else Again.OPERATOR
            raise Refused(rule, f"the ledger's own rule: {error}", again=again, alarm=alarm) from None


def find_unit(connection: Connection, ueid: bytes) -> Unit | None:
    """One board, read in whatever transaction the connection is in."""
    rows = connection.execute(
        "SELECT units.ueid, product, job, state, sign_key, attester, grade, units.closed, finals.closed,"
        " kind, id FROM units LEFT JOIN hardware_ids ON hardware_ids.ueid = units.ueid"
        " LEFT JOIN finals ON finals.ueid = units.ueid WHERE units.ueid = ?",
        (ueid,),
    ).fetchall()
    if not rows:
        return None
    name, product, job, state, sign_key, attester, grade, closed, final = rows[0][:9]
    ids = MappingProxyType({row[9]: row[10] for row in rows if row[9] is not None})
    return Unit(*(name, product, job, state, sign_key, attester, grade), ids, closed, final)


def write_checks(checks: Mapping[str, SlotCheck]) -> bytes:
    """What a receipt must say, as one column: {slot: [version, check or null, whether it is escrowed]}."""
    return encode({name: [one.version, one.check, one.escrowed] for name, one in checks.items()})


def read_checks(raw: bytes) -> Mapping[str, SlotCheck]:
    """The inverse of `write_checks`. Raises StoreDamaged."""
    table = decode(raw)
    if not isinstance(table, dict):
        raise StoreDamaged("a stored grant does not say what its receipt must show")
    checks: dict[str, SlotCheck] = {}
    for name, row in table.items():
        match row:
            case [int(version), bytes() | None as check, bool(escrowed)]:
                checks[str(name)] = SlotCheck(version, check, escrowed)
            case _:
                raise StoreDamaged("a stored grant does not say what its receipt must show")
    return checks
