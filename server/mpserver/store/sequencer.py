"""One transaction for many orders: each stands or falls alone, all become durable together (group commit).

BEGIN IMMEDIATE takes the ledger's only write lock first, so what an order reads is what it decides on, with any number
of servers on one file (promise P2). Order of a batch: the orders; leaves, nodes and one signed head; the Closed of each
receipt; COMMIT, durable; only then anybody hears an answer.

Orders are refused before they write. Where one fails after that, the batch is rolled back and done once more with a
savepoint around each order; with savepoints from the start, SQLite would copy every page that every order touches.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from mpissuer.errors import NotNow, Refused
from mpissuer.ports import Authority, Clock
from mpserver.store.books import SqlBooks
from mpserver.store.database import Connection
from mpserver.store.lasthead import LastHead, LastHeadFile
from mpserver.store.tree import Growth, grow, load_edge, node_reader, read_last_head
from mpwire.cose import thumbprint
from mpwire.errors import MpError
from mpwire.merkle import Frontier, load_frontier

ALARMS_PER_UNIT: Final = 16
"""Rows of newcomers kept for one board and kind of alarm; more are counted in one row without a name."""

_KEEP_CLOSED: Final = "UPDATE units SET receipt = ?, closed = ?, state = 'provisioned' WHERE ueid = ?"
_KEEP_FINAL: Final = "INSERT INTO finals (receipt, closed, ueid) VALUES (?, ?, ?)"

CloseReceipt: TypeAlias = Callable[[int, Sequence[bytes], bytes, bytes], bytes]
"""(index, inclusion path, entry, signed head) to the Closed."""
Outcome: TypeAlias = bytes | Exception


class Work(NamedTuple):
    """One order, as the sequencer sees it."""

    act: Callable[[SqlBooks], bytes | None]
    """Runs inside the transaction; returns the answer, or None where `close` makes it."""
    close: CloseReceipt | None = None
    ueid: bytes = b""
    newcomer: bytes = b""
    """The device key that asked, 65 bytes: an alarm about this order is kept under its thumbprint."""
    receipt: bytes = b""
    """What `close` answers, as said: kept beside the Closed."""
    is_final: bool = False
    """The second receipt of a board, by its production image."""


@dataclass(slots=True)
class _Done:
    """An order after its savepoint."""

    work: Work
    outcome: Outcome | None
    entries: list[bytes]


class _Spoiled(Exception):
    """An order failed halfway without a savepoint before it: what it wrote is in the batch."""


class Sequencer:
    """The one writer of a connection. Not for two threads at once."""

    def __init__(self, connection: Connection, authority: Authority, clock: Clock, last_head: LastHeadFile) -> None:
        self._connection, self._authority, self._clock, self._last_head = connection, authority, clock, last_head
        self._edge: Frontier | None = None
        self._owed: LastHead | None = None
        self._closing: set[bytes] = set()

    def settle(self, works: Sequence[Work]) -> list[Outcome]:
        """Run a batch to its durable end; one outcome for each work, in order.

        Whatever stops the whole batch (disk full, lock not had, head key gone, recovery) is NotNow for all of it,
        and nothing of it is kept.
        """
        try:
            self._pay_owed()
            try:
                return self._settle(works, is_guarded=False)
            except _Spoiled:
                self._roll_back()
                return self._settle(works, is_guarded=True)
        except sqlite3.Error as error:
            stopped = NotNow("storage", retry_after_s=5, detail=f"{type(error).__name__}: {error}")
        except NotNow as error:
            stopped = error
        except (MpError, OSError) as error:
            stopped = NotNow("storage", retry_after_s=30, detail=f"{error} {getattr(error, 'detail', '')}".strip())
        self._roll_back()
        return [stopped for _ in works]

    def _settle(self, works: Sequence[Work], *, is_guarded: bool) -> list[Outcome]:
        self._connection.execute("BEGIN IMMEDIATE")
        edge = self._load_edge()
        now = self._clock.now()
        self._closing.clear()
        done = [self._perform(work, now, is_guarded) for work in works]
        entries = [entry for one in done for entry in one.entries]
        growth = grow(self._connection, edge, entries, self._authority, now)
        outcomes = self._close(done, growth)
        self._connection.execute("COMMIT")
        self._edge = growth.edge
        if entries:
            self._owed = LastHead(growth.edge.size, growth.edge.root())
            self._try_to_pay()
        return outcomes

    def _perform(self, work: Work, now: int, is_guarded: bool) -> _Done:
        if work.ueid in self._closing:  # what this batch closes is not on the unit yet: its owner has to ask once more
            return _Done(work, NotNow("busy", retry_after_s=1, detail="the unit is being closed"), [])
        books = SqlBooks(self._connection, lambda: now)
        if is_guarded:
            self._connection.execute("SAVEPOINT work")
        try:
            answer = work.act(books)
        except Exception as error:  # a bug in one order must not take the other boards' answers with it
            if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
                raise
            self._undo_work(books, is_guarded)
            if isinstance(error, Refused) and error.alarm:
                self._raise_alarm(work, error, now)
            return _Done(work, error, [])
        if is_guarded:
            self._connection.execute("RELEASE work")
        if work.close is not None:
            self._closing.add(work.ueid)
        return _Done(work, answer, books.entries)

    def _undo_work(self, books: SqlBooks, is_guarded: bool) -> None:
        if is_guarded:
            self._connection.execute("ROLLBACK TO work")
            self._connection.execute("RELEASE work")
        elif books.has_written:
            raise _Spoiled

    def _close(self, done: Sequence[_Done], growth: Growth) -> list[Outcome]:
        """Give every receipt its Closed, on the unit and as the answer."""
        index = growth.edge.size - sum(len(one.entries) for one in done)
        for one in done:
            index += len(one.entries)
            if one.work.close is None or isinstance(one.outcome, Exception) or not one.entries:
                continue
            closed = one.work.close(index - 1, growth.path(index - 1), one.entries[-1], growth.head)
            self._connection.execute(
                _KEEP_FINAL if one.work.is_final else _KEEP_CLOSED, (one.work.receipt, closed, one.work.ueid)
            )
            one.outcome = closed
        return [self._read_closed(one.work.ueid) if one.outcome is None else one.outcome for one in done]

    def _read_closed(self, ueid: bytes) -> Outcome:
        row = self._connection.execute("SELECT closed FROM units WHERE ueid = ?", (ueid,)).fetchone()
        return row[0] if row and row[0] is not None else b""

    def _load_edge(self) -> Frontier:
        """Inside the transaction: nobody else can append until COMMIT."""
        size, root = read_last_head(self._connection)
        if self._edge is None or self._edge.size != size or self._edge.root() != root:
            self._edge = None
            edge = load_edge(self._connection)
        else:
            edge = self._edge
        check_not_older(self._connection, edge, self._last_head, is_new=self._edge is None)
        return edge

    def _raise_alarm(self, work: Work, error: Refused, now: int) -> None:
        kept = self._connection.execute(
            "SELECT newcomer FROM alarms WHERE kind = ? AND ueid = ?", (error.check, work.ueid)
        ).fetchall()
        newcomer = thumbprint(work.newcomer)
        named = (newcomer,) in kept or len(kept) < ALARMS_PER_UNIT
        self._connection.execute(
            "INSERT INTO alarms (kind, ueid, newcomer, count, first_at, last_at, detail) VALUES (?, ?, ?, 1, ?, ?, ?)"
            " ON CONFLICT (kind, ueid, newcomer) DO UPDATE SET count = alarms.count + 1, last_at = excluded.last_at",
            (error.check, work.ueid, newcomer if named else b"", now, now, error.detail),
        )

    def _roll_back(self) -> None:
        self._edge = None
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            # The connection stays in its transaction and the next BEGIN says so; nothing was committed either way.
            return

    def _pay_owed(self) -> None:
        """The last head must lie outside before more is granted: else a restore could hide this batch."""
        if self._owed is not None:
            self._last_head.raise_to(self._owed)
            self._owed = None

    def _try_to_pay(self) -> None:
        try:
            self._pay_owed()
        except (OSError, MpError):
            return  # committed all the same; the next batch has to pay first and says why it cannot


def check_not_older(connection: Connection, edge: Frontier, last_head: LastHeadFile, *, is_new: bool) -> None:
    """Raises NotNow("recovery") where the ledger is older than, or another than, what was known to be committed."""
    try:
        last = last_head.read()
    except (OSError, MpError) as error:
        raise NotNow("recovery", retry_after_s=600, detail=f"the last head kept outside is gone: {error}") from error
    if edge.size < last.size:
        detail = f"the ledger has {edge.size} entries, {last.size} were committed: an older copy was restored"
        raise NotNow("recovery", retry_after_s=600, detail=detail)
    if is_new and load_frontier(last.size, node_reader(connection)).root() != last.root:
        detail = f"the first {last.size} ledger entries are not those that were committed"
        raise NotNow("recovery", retry_after_s=600, detail=detail)
