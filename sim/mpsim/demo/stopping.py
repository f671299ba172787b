"""Signals that end the demo, and the moments in which they have to wait."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal came; only cleaning up is left."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number
        self.exit_code = 128 + number


class Stops:
    """Turns the first such signal into Stopped, at any instant but inside `hold`. Later ones are ignored: they must
    not interrupt the cleaning up."""

    def __init__(self) -> None:
        self._held = 0
        self._came: signal.Signals | None = None

    def listen(self) -> None:
        """From now on, for the rest of this process."""
        for number in NUMBERS:
            signal.signal(number, self._stop)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """A process that is being started must be known to who ends it before anything may stop us."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._came is not None and not self._held:
            raise Stopped(self._came)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        for one in NUMBERS:
            signal.signal(one, signal.SIG_IGN)
        self._came = signal.Signals(number)
        if not self._held:
            raise Stopped(self._came)
