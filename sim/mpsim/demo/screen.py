"""What the demo prints: plain lines, with colour on a terminal. No secret is ever handed to this module."""

import sys
from collections.abc import Sequence
from typing import Final, TextIO

_BOLD, _DIM, _GREEN, _RED, _END = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"
NAME_WIDTH: Final = 16


class Screen:
    """One writer. A reader that is gone ends the demo, as any other broken promise does."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._is_terminal = self._stream.isatty()

    def title(self, text: str) -> None:
        """A new part of the story."""
        self._put("")
        self._put(self._paint(_BOLD, text))

    def note(self, name: str, text: str) -> None:
        """What somebody is doing: light, because the results count."""
        self._put(self._paint(_DIM, f"    {name:<{NAME_WIDTH}}  {text}"))

    def passed(self, name: str, text: str) -> None:
        """One line that came out as said."""
        self._put(f"{self._paint(_GREEN, ' ok ')}{name:<{NAME_WIDTH}}  {text}")

    def failed(self, name: str, rows: Sequence[tuple[str, str]]) -> None:
        """The line that did not, and where to look."""
        self._put("")
        self._put(f"{self._paint(_RED, 'FAIL')} {name}")
        for label, text in rows:
            self._put(f"     {label:<9} {text}")

    def table(self, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns as wide as their widest cell."""
        widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(len(titles))]
        self._put("")
        self._put(self._paint(_BOLD, "  " + self._join(titles, widths)))
        self._put("  " + "  ".join("-" * width for width in widths))
        for row in rows:
            self._put("  " + self._join(row, widths))

    def _join(self, row: Sequence[str], widths: Sequence[int]) -> str:
        return "  ".join(map(str.ljust, row, widths)).rstrip()

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_END}" if self._is_terminal else text

    def _put(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()
