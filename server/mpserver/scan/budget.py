"""What one image may cost: bytes unpacked, entries, depth and time. A bomb meets one of these bounds and is named."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

GIB: Final = 1024 * 1024 * 1024
DEPTH_MAX: Final = 12
"""Containers inside each other. A disk with a partition, a file system, a FIT, a gzip and a cpio has six."""
ENTRIES_MAX: Final = 2_000_000
"""Files, folders, members and nodes of one image; a full desktop system has some 300,000."""
ONE_ENTRIES_MAX: Final = 1_000_000
"""The same of one container."""
UNPACKED_MAX_BYTES: Final = 64 * GIB
"""Of one image, zeros included; a sparse disk of a large eMMC unpacks to as much."""
ONE_UNPACKED_MAX_BYTES: Final = 32 * GIB
"""Of one compressed stream."""
KEPT_MAX_BYTES: Final = 8 * GIB
"""Unpacked bytes other than zeros that may lie in files without a name at one time."""
CONTAINER_S: Final = 900.0
"""For one container and all that it holds."""


class Exhausted(Exception):
    """A bound was reached; the text is the reason a person reads. It ends one container, or all of the image."""

    def __init__(self, reason: str, *, everything: bool = False) -> None:
        super().__init__(reason)
        self.everything = everything


@dataclass(slots=True)
class Budget:
    """Spent so far. Times are those of `clock`, in seconds."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    entries: int = 0
    unpacked: int = 0
    kept: int = 0
    _ends: list[float] = field(default_factory=list)
    _entries: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ends.append(self.clock() + self.seconds)

    def check_time(self) -> None:
        """Raises Exhausted."""
        now = self.clock()
        if now > self._ends[0]:
            raise Exhausted(f"the whole image may take {self.seconds:.0f} s", everything=True)
        if now > self._ends[-1]:
            raise Exhausted(f"one container may take {CONTAINER_S:.0f} s")

    def enter(self) -> None:
        """One more entry of the container at work. Raises Exhausted."""
        self.entries += 1
        if self.entries > ENTRIES_MAX:
            raise Exhausted(f"more than {ENTRIES_MAX} entries in this image", everything=True)
        if self._entries:
            self._entries[-1] += 1
            if self._entries[-1] > ONE_ENTRIES_MAX:
                raise Exhausted(f"more than {ONE_ENTRIES_MAX} entries")
        if self.entries & 63 == 0:
            self.check_time()

    def unpack(self, size: int, so_far: int) -> None:
        """`size` more bytes of a stream that had `so_far`. Raises Exhausted."""
        self.unpacked += size
        if self.unpacked > UNPACKED_MAX_BYTES:
            raise Exhausted(f"unpacks to more than {UNPACKED_MAX_BYTES // GIB} GiB in all", everything=True)
        if so_far + size > ONE_UNPACKED_MAX_BYTES:
            raise Exhausted(f"unpacks to more than {ONE_UNPACKED_MAX_BYTES // GIB} GiB")
        self.check_time()

    def keep(self, size: int) -> None:
        """`size` more bytes on the disk; negative gives back. Raises Exhausted."""
        self.kept += size
        if self.kept > KEPT_MAX_BYTES:
            self.kept -= size
            raise Exhausted(f"what is unpacked takes more than {KEPT_MAX_BYTES // GIB} GiB of disk")

    @contextmanager
    def container(self) -> Iterator[None]:
        """One container at work. Raises Exhausted for one too deep."""
        if len(self._entries) >= DEPTH_MAX:
            raise Exhausted(f"more than {DEPTH_MAX} containers inside each other")
        self._ends.append(min(self._ends[-1], self.clock() + CONTAINER_S))
        self._entries.append(0)
        try:
            yield
        finally:
            self._ends.pop()
            self._entries.pop()
