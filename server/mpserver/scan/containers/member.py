"""What a container gives: its members in order, and which of its bytes need no second look."""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from mpserver.scan.budget import Budget
from mpserver.scan.regions import Region

NAME_MAX_BYTES: Final = 1_024


class Broken(Exception):
    """This container cannot be read, or no further; the text is the reason a person reads."""


class Member(NamedTuple):
    """One thing inside. Exactly one of region, chunks and reason says what it is."""

    name: str
    region: Region | None = None
    """Lies as it is in the container."""
    chunks: Iterator[bytes] | None = None
    """Has to be unpacked."""
    reason: str = ""
    """Why it cannot be looked into."""


class Covered(NamedTuple):
    """The first bytes of the container, which hold nothing but what was yielded in unpacked form."""

    size: int


Opener = Callable[[Region, Budget], Iterator[Member | Covered]]


def show_name(raw: bytes) -> str:
    """A name as it can be printed on one line; it is never used to open anything."""
    text = raw[:NAME_MAX_BYTES].decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text)


def read_exactly(region: Region, offset: int, length: int) -> bytes:
    """Raises Broken where the container ends before."""
    raw = region.read(offset, length)
    if len(raw) != length:
        raise Broken("it is cut off")
    return raw
