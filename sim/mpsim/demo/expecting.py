"""What the demo promised and what came."""

from pathlib import Path
from typing import ClassVar

from mpwire.errors import MpError, Retry


class NotAsSaid(MpError):
    """A line of the demo came out otherwise than it was said. str() is the line's name."""

    exit_code: ClassVar[int] = 70
    retry: ClassVar[Retry] = Retry.OPERATOR

    def __init__(self, line: str, expected: str, came: str, log: Path) -> None:
        super().__init__(line)
        self.expected, self.came, self.log = expected, came, log


def expect(line: str, expected: object, came: object, log: Path) -> None:
    """Raises NotAsSaid unless both are equal."""
    if came != expected:
        raise NotAsSaid(line, str(expected), str(came), log)
