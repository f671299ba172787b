"""Shared memory as the kernel lends it out: an area lives while somebody of the caller holds or maps its descriptor."""

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

PAGE_BYTES: Final = mmap.PAGESIZE


class Area(Protocol):
    """One shared-memory object."""

    size: int
    descriptor: int

    def read(self, offset: int, size: int) -> bytes:
        """Bytes as the normal world put them."""

    def write(self, offset: int, content: bytes) -> None:
        """Bytes for the normal world."""

    def close(self) -> None:
        """The server's own hold on it."""


class Allocated:
    """SHM_ALLOC: whole pages, behind a descriptor that the caller maps."""

    def __init__(self, size: int) -> None:
        self.size = -(-size // PAGE_BYTES) * PAGE_BYTES
        self.descriptor = os.memfd_create("tee-shm", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, self.size)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.descriptor, size, offset)

    def write(self, offset: int, content: bytes) -> None:
        os.pwrite(self.descriptor, content, offset)

    def close(self) -> None:
        os.close(self.descriptor)


@dataclass
class Registered:
    """SHM_REGISTER: memory of the caller; the descriptor stands for it and maps nothing."""

    process_id: int
    address: int
    size: int

    def __post_init__(self) -> None:
        self.descriptor = os.memfd_create("tee-shm", os.MFD_CLOEXEC)

    def read(self, offset: int, size: int) -> bytes:
        with open(f"/proc/{self.process_id}/mem", "rb", buffering=0) as memory:
            memory.seek(self.address + offset)
            return memory.read(size)

    def write(self, offset: int, content: bytes) -> None:
        with open(f"/proc/{self.process_id}/mem", "r+b", buffering=0) as memory:
            memory.seek(self.address + offset)
            memory.write(content)

    def close(self) -> None:
        os.close(self.descriptor)


def is_held(area: Area, process_id: int) -> bool:
    """Whether this process has the area's descriptor open or mapped. What another inherited does not count."""
    inode = os.fstat(area.descriptor).st_ino
    folder = Path("/proc") / str(process_id)
    if any(line.split()[4] == str(inode) and "memfd:tee-shm" in line for line in _lines(folder / "maps")):
        return True
    return any(_inode_of(entry) == inode for entry in _entries(folder / "fd"))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []  # the process ended meanwhile


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []  # the process ended meanwhile


def _inode_of(entry: Path) -> int | None:
    try:
        return entry.stat().st_ino if "memfd:tee-shm" in os.readlink(entry) else None
    except OSError:
        return None  # closed meanwhile
