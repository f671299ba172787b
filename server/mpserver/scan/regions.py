"""Bytes that can be read at any place, and where each of them lies in the space it came from.

A space is an image file, or what was unpacked from something: its offsets are final. Partitions, files and parts of
files are slices and pieces of a space, so a chain of containers costs no copy.
"""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import BinaryIO, NamedTuple, Protocol


class Place(NamedTuple):
    """Where a byte lies."""

    space: int
    """Number of the space, unique in one walk."""
    offset: int


class Region(Protocol):
    """Readable bytes."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Fewer bytes at the end, none beyond it. Raises OSError."""

    def locate(self, offset: int) -> Place | None:
        """None for a byte that lies nowhere: a hole."""

    def inside(self) -> "tuple[Region, int] | None":
        """The region that it is one piece of, and where it begins there; None for what is assembled, or final."""

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Offset and length of each stretch without a hole."""


class Space:
    """A file, read in place; the whole of it."""

    def __init__(self, number: int, file: BinaryIO, size: int) -> None:
        self.number, self.size = number, size
        self._file = file

    def read(self, offset: int, length: int) -> bytes:
        """See Region."""
        wanted = min(length, self.size - offset)
        return os.pread(self._file.fileno(), wanted, offset) if wanted > 0 and offset >= 0 else b""

    def locate(self, offset: int) -> Place | None:
        """See Region."""
        return Place(self.number, offset)

    def inside(self) -> None:
        """See Region."""

    def ranges(self) -> Iterator[tuple[int, int]]:
        """See Region."""
        yield 0, self.size

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


class Memory(Space):
    """A space in memory."""

    def __init__(self, number: int, body: bytes) -> None:
        self.number, self.size = number, len(body)
        self._body = body

    def read(self, offset: int, length: int) -> bytes:
        """See Region."""
        return self._body[offset : offset + length] if length > 0 and offset >= 0 else b""

    def close(self) -> None:
        """Give the memory back."""
        self._body = b""


class Slice:
    """A part of a region, cut at the region's end."""

    def __init__(self, region: Region, start: int, size: int) -> None:
        self._region, self._start = region, start
        self.size = max(0, min(size, region.size - start))

    def read(self, offset: int, length: int) -> bytes:
        """See Region."""
        wanted = min(length, self.size - offset)
        return self._region.read(self._start + offset, wanted) if wanted > 0 and offset >= 0 else b""

    def locate(self, offset: int) -> Place | None:
        """See Region."""
        return self._region.locate(self._start + offset)

    def inside(self) -> tuple[Region, int]:
        """See Region."""
        return self._region, self._start

    def ranges(self) -> Iterator[tuple[int, int]]:
        """See Region."""
        yield 0, self.size


class Extent(NamedTuple):
    """A run of a file; `start` None is a hole."""

    start: int | None
    size: int


class Pieces:
    """A file whose runs lie apart in a region, in the file's order."""

    def __init__(self, region: Region, extents: Sequence[Extent]) -> None:
        self._region = region
        self._extents = merge(extents)
        self._ends = list(accumulate(one.size for one in self._extents))
        self.size = self._ends[-1] if self._ends else 0

    def read(self, offset: int, length: int) -> bytes:
        """See Region."""
        parts = []
        at, left = offset, min(length, self.size - offset)
        while left > 0 and at >= 0:
            number = bisect_right(self._ends, at)
            extent = self._extents[number]
            inside = at - (self._ends[number] - extent.size)
            step = min(left, extent.size - inside)
            body = bytes(step) if extent.start is None else self._region.read(extent.start + inside, step)
            parts.append(body)
            if len(body) < step:
                break  # the image ends here; nothing after it may be taken for what follows
            at, left = at + step, left - step
        return b"".join(parts)

    def locate(self, offset: int) -> Place | None:
        """See Region."""
        number = bisect_right(self._ends, offset)
        if number >= len(self._extents):
            return None
        extent = self._extents[number]
        if extent.start is None:
            return None
        return self._region.locate(extent.start + offset - (self._ends[number] - extent.size))

    def inside(self) -> tuple[Region, int] | None:
        """See Region."""
        return self.first() if len(self._extents) == 1 else None

    def first(self) -> tuple[Region, int] | None:
        """Where the first byte lies, whatever becomes of the rest; None for a hole."""
        start = self._extents[0].start if self._extents else None
        return None if start is None else (self._region, start)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """See Region."""
        at = begun = 0
        for one in self._extents:
            if one.start is None:
                if at > begun:
                    yield begun, at - begun
                begun = at + one.size
            at += one.size
        if at > begun:
            yield begun, at - begun


def merge(extents: Sequence[Extent]) -> list[Extent]:
    """Runs that touch become one; empty ones go."""
    merged: list[Extent] = []
    for one in extents:
        last = merged[-1] if merged else None
        if one.size <= 0:
            continue
        if last is not None and (
            (last.start is None and one.start is None)
            or (last.start is not None and one.start == last.start + last.size)
        ):
            merged[-1] = Extent(last.start, last.size + one.size)
        else:
            merged.append(one)
    return merged


class Stretches:
    """Stretches of offsets that never overlap: one that is added swallows what lies in it, and joins what it meets."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """`end` is the first offset behind it."""
        first = bisect_left(self._starts, start)
        if first and self._ends[first - 1] >= start:
            first -= 1
            start = self._starts[first]
        last = bisect_right(self._starts, end)
        if last > first:
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def __contains__(self, offset: int) -> bool:
        number = bisect_right(self._starts, offset) - 1
        return number >= 0 and offset < self._ends[number]
