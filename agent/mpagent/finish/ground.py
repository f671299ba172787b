"""Where a block device really lies: byte ranges of whole disks, by what the kernel tells in sysfs.

A write that would touch the state partition, or anything in use, is refused before its first byte.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from mpagent.errors import TargetRefused

SECTOR_BYTES: Final = 512
"""The unit of `start` and `size` in sysfs, whatever the disk's own sectors are."""
_DEPTH_MAX: Final = 8
"""Devices upon devices; more is a loop."""


class Extent(NamedTuple):
    """Bytes `start` to `end` of one disk, the end not included."""

    disk: str
    """MAJOR:MINOR of the whole disk."""
    start: int
    end: int

    def meets(self, other: "Extent") -> bool:
        """Whether they share a byte."""
        return self.disk == other.disk and self.start < other.end and other.start < self.end


class Ground(NamedTuple):
    """The kernel's view below one root."""

    root: Path

    def locate(self, path: Path) -> tuple[Path, str]:
        """The node behind the links of a path from the root on, and its MAJOR:MINOR. Raises TargetRefused."""
        found = Path(os.path.realpath(self.root / path.relative_to("/")))
        try:
            seen = found.stat()
        except OSError as error:
            raise TargetRefused(f"{path}: {error.strerror}") from error
        if not stat.S_ISBLK(seen.st_mode):
            raise TargetRefused(f"{path} is no block device")
        return found, _name(seen.st_rdev)

    def find_extents(self, device: str, depth: int = 0) -> tuple[Extent, ...]:
        """The ranges below a device: its own, or those of all it is made of (device mapper, RAID)."""
        folder = Path(os.path.realpath(self.root / "sys/dev/block" / device))
        if depth > _DEPTH_MAX or not folder.is_dir():
            raise TargetRefused(f"the kernel does not tell where block device {device} lies")
        below = sorted(folder.glob("slaves/*/dev"))
        if below:
            return tuple(one for path in below for one in self.find_extents(_read(path), depth + 1))
        size = int(_read(folder / "size")) * SECTOR_BYTES
        if not (folder / "partition").exists():
            return (Extent(device, 0, size),)
        start = int(_read(folder / "start")) * SECTOR_BYTES
        return (Extent(_read(folder.parent / "dev"), start, start + size),)

    def measure(self, device: str) -> int:
        """Bytes of a device."""
        return sum(one.end - one.start for one in self.find_extents(device))

    def in_use(self) -> Iterator[tuple[str, tuple[Extent, ...]]]:
        """Each mounted file system and each swap, by its name, with where it lies."""
        for line in _lines(self.root / "proc/self/mountinfo"):
            left, _, right = line.partition(" - ")
            number, point = left.split()[2], left.split()[4]
            device = self._device_of_mount(number, right.split()[1])
            if device is not None:
                yield point, self.find_extents(device)
        for line in _lines(self.root / "proc/swaps")[1:]:
            name = line.split()[0]
            if name.startswith("/dev/"):
                yield f"swap on {name}", self.find_extents(self.locate(Path(name))[1])

    def find_folder(self, folder: Path) -> tuple[Extent, ...]:
        """Where the file system of a folder lies; nothing for one without a block device. Raises TargetRefused."""
        try:
            number = _name(folder.stat().st_dev)
        except OSError as error:
            raise TargetRefused(f"{folder}: {error.strerror}") from error
        if not number.startswith("0:"):
            return self.find_extents(number)
        for line in _lines(self.root / "proc/self/mountinfo"):
            left, _, right = line.partition(" - ")
            if left.split()[2] == number:
                device = self._device_of_mount(number, right.split()[1])
                return () if device is None else self.find_extents(device)
        return ()

    def _device_of_mount(self, number: str, source: str) -> str | None:
        """btrfs and others mount under a number of their own: there the source tells the device."""
        if not number.startswith("0:"):
            return number
        try:
            seen = os.stat(self.root / source.lstrip("/")) if source.startswith("/dev/") else None
        except OSError:
            return None
        return None if seen is None or not stat.S_ISBLK(seen.st_mode) else _name(seen.st_rdev)


def check_target(ground: Ground, target: Path, size: int | None, state: Path, folder: Path) -> Path:
    """The node that may be written: `size` bytes of it, or all. Raises TargetRefused before anything was written.

    `state` is the partition that the image names as the state's, `folder` the state folder, which has to lie there:
    otherwise what enrollment sealed lies inside the image that is to be replaced.
    """
    node, device = ground.locate(target)
    written = ground.find_extents(device)
    whole = sum(one.end - one.start for one in written)
    if size is not None and len(written) == 1:
        written = (written[0]._replace(end=min(written[0].end, written[0].start + size)),)
    kept = ground.find_extents(ground.locate(state)[1])
    lies = ground.find_folder(folder)
    if not lies or not all(any(_holds(one, other) for one in kept) for other in lies):
        raise TargetRefused(f"{folder} does not lie on the state partition {state}: mount that there")
    if _meet(written, kept):
        raise TargetRefused(f"writing {target} would overwrite the state partition {state}")
    for name, extents in ground.in_use():
        if _meet(written, extents):
            raise TargetRefused(f"{target} is in use: {name}")
    if size is not None and size > whole:
        raise TargetRefused(f"{target} has {whole} bytes and the image {size}")
    return node


def _meet(some: tuple[Extent, ...], others: tuple[Extent, ...]) -> bool:
    return any(one.meets(other) for one in some for other in others)


def _holds(outer: Extent, inner: Extent) -> bool:
    return outer.disk == inner.disk and outer.start <= inner.start and inner.end <= outer.end


def _name(number: int) -> str:
    return f"{os.major(number)}:{os.minor(number)}"


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except OSError as error:
        raise TargetRefused(f"{path}: {error.strerror}") from error


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TargetRefused(f"{path}: {error.strerror}") from error
