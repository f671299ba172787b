"""What happens, one plain line a stage: a terminal and a serial log read the same, without control codes."""

from collections.abc import Callable
from typing import TextIO


class Progress:
    """Lines on standard error. A stream that is gone costs the line, never the enrollment."""

    def __init__(self, stream: TextIO | None, clock: Callable[[], float], silent: bool = False) -> None:
        self._stream = stream
        self._clock = clock
        self._start = clock()
        self._silent = silent

    def __call__(self, text: str) -> None:
        """One line with the seconds since the start."""
        if self._silent or self._stream is None:
            return
        try:
            self._stream.write(f"mpagent: [{self.seconds():6.1f} s] {text}\n")
            self._stream.flush()
        except OSError:
            self._silent = True

    def seconds(self) -> float:
        """Since this object was made."""
        return self._clock() - self._start
