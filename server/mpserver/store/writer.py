"""The writer thread: takes what waits, up to a batch, and has it made durable.

A lone order never waits for company. Where the last batch held several, boards come in a crowd, and a short rest lets
more of them share the next commit, its head and its two writes beside the database.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from mpissuer.errors import NotNow
from mpserver.store.sequencer import Outcome, Sequencer, Work

BATCH_MAX: Final = 128
"""Orders in one transaction: some 15 ms of work, so that a commit stays well below a device's patience."""
REST_S: Final = 0.03
"""Between two batches of a crowd. At 24 boards at once nearly all of them share a commit, for a sixth less CPU an
enrollment than without; a board waits for two batches, which is little beside its own work."""
WAITING_MAX: Final = 4_096
"""Orders that may wait, each at most 64 KiB; more are told to come again."""

Ticket: TypeAlias = Any
"""Whatever finds the asker again; the writer hands it back and looks at nothing of it."""
Deliver: TypeAlias = Callable[[Sequence[tuple[Ticket, Outcome]]], None]
"""Called on the writer's thread, once for each batch: waking another thread costs more than an order's statements."""


class Writer:
    """Owns its sequencer from `start` to `stop`. `submit` may be called from any thread."""

    def __init__(self, sequencer: Sequencer, deliver: Deliver) -> None:
        self._sequencer, self._deliver = sequencer, deliver
        self._queue: queue.SimpleQueue[tuple[Work, Ticket] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger-writer")
        self._stopped = False
        self.batches = 0
        self.orders = 0

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what waits, then end. Later orders are refused with NotNow."""
        self._stopped = True
        self._queue.put(None)
        self._thread.join()

    def submit(self, work: Work, ticket: Ticket) -> None:
        """Delivered with the answer once it is durable, or the error once nothing is left. Raises NotNow when full."""
        if self._stopped or self._queue.qsize() >= WAITING_MAX:
            raise NotNow("busy", retry_after_s=2, detail="the ledger's queue is full or closing")
        self._queue.put((work, ticket))

    def _run(self) -> None:
        is_crowded = False
        while (first := self._queue.get()) is not None:
            if is_crowded:
                time.sleep(REST_S)
            batch, is_last = self._drain(first)
            self._settle(batch)
            is_crowded = len(batch) > 1
            if is_last:
                break
        self._refuse_rest()

    def _drain(self, first: tuple[Work, Ticket]) -> tuple[list[tuple[Work, Ticket]], bool]:
        batch = [first]
        while len(batch) < BATCH_MAX:
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
            if waiting is None:
                return batch, True
            batch.append(waiting)
        return batch, False

    def _settle(self, batch: list[tuple[Work, Ticket]]) -> None:
        outcomes: list[Outcome]
        try:
            outcomes = self._sequencer.settle([work for work, _ in batch])
        except Exception as error:  # a bug must not leave devices waiting for an answer that never comes
            outcomes = [error] * len(batch)
        self.batches += 1
        self.orders += len(batch)
        self._deliver([(ticket, outcome) for (_, ticket), outcome in zip(batch, outcomes, strict=True)])

    def _refuse_rest(self) -> None:
        while not self._queue.empty():
            waiting = self._queue.get()
            if waiting is not None:
                self._deliver([(waiting[1], NotNow("busy", detail="the server is stopping"))])
