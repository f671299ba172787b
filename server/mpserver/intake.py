"""Receipts files into the ledger: each whole or not at all, many in one transaction, and once.

Everything slow (signatures, MACs, keys of the vault) is done before the ledger's write lock is taken, so that a server
at work waits for rows alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from mpissuer.booking import digest_of_object
from mpserver.errors import ReceiptsWrong
from mpserver.handed import spell_path
from mpserver.office import actor
from mpserver.receiptfiles import read_receipts
from mpserver.receiving import Heard, Reception, Stranger
from mpserver.state import State
from mpserver.store.books import SqlBooks
from mpserver.store.receipts import KIND, digest_row, insert_receipts, is_kept
from mpserver.store.sequencer import Sequencer, Work
from mpwire.errors import Unauthentic
from mpwire.messages.issuer import ENTRY, Entry

RECEIPTS_TOGETHER: Final = 1_024
"""Receipts of small files that go into one transaction: some 50 ms of the write lock."""
FILES_TOGETHER: Final = 128


@dataclass(slots=True)
class Sheaf:
    """One file: what it holds and, once it was taken, what was new."""

    path: Path
    receipts: int = 0
    heard: list[Heard] = field(default_factory=list)
    strangers: list[Stranger] = field(default_factory=list)
    new: int = 0


class Intake:
    """Not for two threads at once."""

    def __init__(self, state: State, reception: Reception) -> None:
        self._state, self._reception = state, reception
        self._sequencer: Sequencer = state.make_sequencer(state.connection)

    def read(self, path: Path) -> Sheaf:
        """Raises ReceiptsWrong: torn, of another shape, not signed by its own key, or with a MAC that is none."""
        sheaf = Sheaf(path)
        for number, heard in enumerate(read_receipts(path), 1):
            try:
                found = self._reception.hear(heard)
            except Unauthentic as error:
                named = heard.receipt.ueid.hex()
                raise ReceiptsWrong(
                    f"{spell_path(path)}, receipt {number}, of board {named}: {error}: whoever made it has not the"
                    " key that the bundle is under"
                ) from error
            sheaf.receipts = number
            if isinstance(found, Heard):
                sheaf.heard.append(found)
            else:
                sheaf.strangers.append(found)
        return sheaf

    def take(self, sheaves: Sequence[Sheaf]) -> None:
        """In one transaction, durable on return; each stands or falls alone. Raises NotNow."""
        outcomes = self._sequencer.settle([Work(partial(self._enter, one)) for one in sheaves])
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def _enter(self, sheaf: Sheaf, books: SqlBooks) -> bytes:
        """Compares inside the transaction: of two that bring one receipt, one enters it."""
        books.has_written = True
        fresh = {one.row.digest: one for one in sheaf.heard if not is_kept(self._state.connection, one.row.digest)}
        now = self._state.clock.now()
        insert_receipts(self._state.connection, [(one.row, one.ids) for one in fresh.values()], now)
        for one in fresh.values():
            books.append(ENTRY.encode(Entry(KIND, now, one.job, digest_row(one.row), one.row.ueid)))
        if fresh:
            self._state.connection.execute(
                "INSERT INTO audit (at, actor, action, subject, digest) VALUES (?, ?, 'receipts import', ?, ?)",
                (now, actor(), f"{len(fresh)} receipts", digest_of_object("receipts", *fresh)),
            )
        sheaf.new = len(fresh)
        return b""


def bundle_up(sheaves: Iterable[Sheaf]) -> Iterator[list[Sheaf]]:
    """In groups for one transaction each."""
    group: list[Sheaf] = []
    for sheaf in sheaves:
        room = RECEIPTS_TOGETHER - sum(one.receipts for one in group)
        if group and (len(group) == FILES_TOGETHER or sheaf.receipts > room):
            yield group
            group = []
        group.append(sheaf)
    if group:
        yield group
