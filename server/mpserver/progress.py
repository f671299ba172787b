"""How far long work is, for whoever sits there: on standard error, and only where that is a terminal."""

import sys
import time
from typing import Final

SHOWN_FROM_BYTES: Final = 16 * 1024 * 1024
"""Less is done before anybody reads it."""
_EVERY_S: Final = 0.2


class Progress:
    """Called with bytes done and bytes in all."""

    def __init__(self, what: str) -> None:
        self._what, self._next = what, 0.0
        self._is_seen = sys.stderr is not None and sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        """A line that replaces itself, some times a second."""
        if not self._is_seen or total < SHOWN_FROM_BYTES:
            return
        now = time.monotonic()
        if now < self._next and done < total:
            return
        self._next = now + _EVERY_S
        end = "\n" if done >= total else ""
        share = 100 if total == 0 else done * 100 // total
        print(f"\r{self._what} {share:3d} % of {total / 2**20:.1f} MiB", end=end, file=sys.stderr, flush=True)
