"""Serves credentials: one thread, one answer a connection, and nobody who is slow keeps others waiting.

Who asks was known when he connected, so an answer is decided at once and most often fits into the socket: only what
does not is kept, for a bounded number of readers and a bounded time.
"""

import selectors
import socket
from collections.abc import Callable
from typing import Final, NamedTuple

from mpagent.credentials.allow import AllowList, UnitRequest
from mpagent.credentials.protocol import MANAGER_UID, TOO_LONG, Peer, read_peer, read_request
from mpwire.errors import MpError
from mpwire.secret import Secret

READERS_MAX: Final = 64
"""Connections whose answer is not out yet; further ones wait in the socket's backlog."""
READER_S: Final = 10.0
"""For one answer, in seconds. The service manager reads at once; who does not is stopped or gone."""
LINES_MAX: Final = 20
LINES_S: Final = 10.0
"""Refusals told in so many seconds; more are counted: nobody fills the journal by asking."""


class Answer(NamedTuple):
    """What one peer gets. Empty content: the connection is closed and that is all."""

    content: Secret
    refused: bool
    line: str
    """For the log; holds no secret."""


def decide(peer: Peer, allow: AllowList, read: Callable[[str], Secret]) -> Answer:
    """The whole policy. `read` gives a slot's value or raises MpError.

    Who is not the service manager gets nothing. To the manager a refusal is an answer too long to be a credential,
    so that the unit does not start with an empty one; a volume gets an empty key, which no LUKS key slot has.
    """
    request = read_request(peer.address)
    if peer.uid != MANAGER_UID:
        return Answer(Secret(b""), True, f"refused {peer}: not the service manager")
    if request is None:
        return Answer(Secret(b""), True, f"refused {peer}: its address asks for nothing")
    refusal = Secret(TOO_LONG if isinstance(request, UnitRequest) else b"")
    slot = allow.slots.get(request)
    if slot is None:
        return Answer(refusal, True, f"refused {peer}: no [[credential]] of this image is for it")
    try:
        return Answer(read(slot), False, f"served slot {slot!r} to {peer}")
    except MpError as error:
        return Answer(refusal, True, f"refused {peer}: slot {slot!r}: {error}")


class Reader:
    """One connection whose answer is not out yet."""

    def __init__(self, connection: socket.socket, content: bytes, until: float) -> None:
        self.connection = connection
        self.until: Final = until
        self._left = memoryview(content)

    def send(self) -> bool:
        """As much as the socket takes; True when all is out, or the peer has gone."""
        try:
            while self._left:
                self._left = self._left[self.connection.send(self._left, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        """Forget the answer."""
        self._left = memoryview(b"")
        self.connection.close()


class Lines:
    """The log, bounded in time for what strangers can cause."""

    def __init__(self, report: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._report = report
        self._clock = clock
        self._begin = clock()
        self._told = self._untold = 0

    def tell(self, line: str, bounded: bool) -> None:
        """One line; with `bounded` only while there are few."""
        if self._clock() - self._begin >= LINES_S:
            self.flush()
        if bounded and self._told >= LINES_MAX:
            self._untold += 1
            return
        self._told += bounded
        self._report(line)

    def flush(self) -> None:
        """Begin anew, and say how many were not told."""
        untold, self._untold, self._told, self._begin = self._untold, 0, 0, self._clock()
        if untold:
            self._report(f"refused {untold} more")


class Service:
    """Answers on one listening socket, which stays the caller's."""

    def __init__(
        self,
        listener: socket.socket,
        answer: Callable[[Peer], Answer],
        report: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._answer = answer
        self._clock = clock
        self._lines = Lines(report, clock)
        self._readers: dict[socket.socket, Reader] = {}

    def run(self, idle_s: float | None) -> None:
        """Until nobody asked for `idle_s` seconds; None: for ever. Leaves no connection open."""
        try:
            with selectors.DefaultSelector() as selector:
                self._loop(selector, idle_s)
        finally:
            for reader in self._readers.values():
                reader.close()
            self._lines.flush()

    def _loop(self, selector: selectors.BaseSelector, idle_s: float | None) -> None:
        selector.register(self._listener, selectors.EVENT_READ)
        listening, busy_at = True, self._clock()
        while True:
            ends = [reader.until for reader in self._readers.values()]
            if idle_s is not None:
                ends.append(busy_at + idle_s)
            events = selector.select(max(0.0, min(ends) - self._clock()) if ends else None)
            now = self._clock()
            for key, _ in events:
                busy_at = now
                if key.fileobj is self._listener:
                    self._accept(selector)
                elif isinstance(key.fileobj, socket.socket):
                    self._go_on(selector, self._readers[key.fileobj])
            for late in [one for one in self._readers.values() if one.until <= now]:
                self._drop(selector, late)
            if listening != (len(self._readers) < READERS_MAX):
                listening = not listening
                self._listen(selector, listening)
            if idle_s is not None and not self._readers and now - busy_at >= idle_s:
                return

    def _listen(self, selector: selectors.BaseSelector, wanted: bool) -> None:
        if wanted:
            selector.register(self._listener, selectors.EVENT_READ)
        else:
            selector.unregister(self._listener)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # gone again, or no descriptor left: who still waits is found at the next turn
            return
        connection.setblocking(False)
        try:
            answer = self._answer(read_peer(connection))
        except OSError:
            connection.close()
            return
        self._lines.tell(answer.line, bounded=answer.refused)
        reader = Reader(connection, answer.content.reveal(), self._clock() + READER_S)
        if reader.send():
            reader.close()
        else:
            self._readers[connection] = reader
            selector.register(connection, selectors.EVENT_WRITE)

    def _go_on(self, selector: selectors.BaseSelector, reader: Reader) -> None:
        if reader.send():
            self._drop(selector, reader)

    def _drop(self, selector: selectors.BaseSelector, reader: Reader) -> None:
        selector.unregister(reader.connection)
        del self._readers[reader.connection]
        reader.close()
