"""One JSON object a line on stderr: what happened to which board. No bodies, no secrets, no access log."""

import json
import sys
import time
from typing import Final, TextIO

LINES_PER_SECOND: Final = 50
"""Lines about what strangers sent: more are counted, so that garbage cannot fill the disk (promise P5)."""


class Log:
    """Not for two threads at once: the loop's thread writes."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = sys.stderr if out is None else out
        self._second, self._lines, self._dropped = 0, 0, 0

    def say(self, event: str, **fields: object) -> None:
        """One line, always; one that cannot be written is counted. A full disk under the log stops no board."""
        line = {"time": int(time.time()), "event": event, **fields}
        try:
            self._out.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
            self._out.flush()
        except OSError:
            self._dropped += 1

    def say_bounded(self, event: str, **fields: object) -> None:
        """One line, unless this second had LINES_PER_SECOND already."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
            dropped, self._dropped = self._dropped, 0
            if dropped:
                self.say("lines-dropped", count=dropped)
        if self._lines >= LINES_PER_SECOND:
            self._dropped += 1
            return
        self._lines += 1
        self.say(event, **fields)
