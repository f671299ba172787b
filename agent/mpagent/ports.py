"""What the runner asks of disk and line; what it asks of the board stands in mpagent/hal/ports.py."""

from typing import Protocol

from mpagent.errors import Tampered
from mpagent.record import Record


class Journal(Protocol):
    """Where the record lies. Each verb may raise StorageFull or StorageBroke."""

    def load(self) -> Record:
        """The newest whole record; BLANK when there is none."""

    def save(self, record: Record) -> None:
        """Durable when it returns; on an error the record saved before it stands."""


class Latch(Protocol):
    """Proof of tampering here, which no later start forgets."""

    def check(self) -> None:
        """Raises Tampered when an earlier run found tampering."""

    def close(self, why: Tampered) -> None:
        """Durable when it returns; the first reason stays."""


class Link(Protocol):
    """Says one message and hears the answer."""

    def ask(self, outbox: bytes) -> bytes:
        """The answer's bytes, at most limits.MESSAGE_MAX_BYTES; they may be a Refusal.

        Raises NoServer, Pending, PeerBroke. Whether the message was heard is then unknown: say the same bytes again.
        """
