"""What an image is written to: a block device, or a file that another installer takes."""

import errno
import fcntl
import hashlib
import mmap
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mpagent.durable import told
from mpagent.errors import StorageBroke, StorageFull, TargetRefused

CHUNK_BYTES: Final = 1_048_576
"""What is held in memory at once; a multiple of every sector and erase size below it."""
SECTOR_BYTES: Final = 512
"""What every medium writes whole or not at all; those with larger sectors write more."""
_ZEROS: Final = bytes(CHUNK_BYTES)
_BLKZEROOUT: Final = 0x127F
_BLKROGET: Final = 0x125E
"""linux/fs.h."""


class Medium:
    """Bytes 0 to `size` of a device or file. Every verb may raise StorageBroke; what was written then is not known."""

    def __init__(self, path: Path, descriptor: int, is_device: bool) -> None:
        self._path, self._descriptor, self._is_device = path, descriptor, is_device

    def write(self, offset: int, content: bytes) -> None:
        """A MiB of zeros is not sent to a device: the kernel zeroes the range, by a command of the device where it can.

        Never left out, because what stood there before is not known to be zero; in a file, which is cut to the
        offset before it grows, zeros become a hole.
        """
        with told("write", self._path):
            if content == _ZEROS[: len(content)] and len(content) == CHUNK_BYTES:
                return self._zero(offset, len(content))
            view = memoryview(content)
            while view:
                count = os.pwrite(self._descriptor, view, offset)
                view, offset = view[count:], offset + count

    def erase_head(self, size: int) -> None:
        """Zeros over the first `size` bytes, durable on return, the first sector before the others: a cut in between
        leaves nothing that looks like the beginning of an image."""
        self.write(0, _ZEROS[: min(size, SECTOR_BYTES)])
        self.sync()
        for offset in range(SECTOR_BYTES, size, CHUNK_BYTES // 2):
            self.write(offset, _ZEROS[: min(CHUNK_BYTES // 2, size - offset)])
        self.sync()

    def cut(self, size: int) -> None:
        """A file ends here from now on; a device keeps what it has."""
        if not self._is_device:
            with told("write", self._path):
                os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        """All that was written is on the medium on return, and its write cache was flushed."""
        with told("write", self._path):
            os.fdatasync(self._descriptor)

    def read_back(self, offset: int, size: int) -> Iterator[bytes]:
        """What the medium itself has, past the kernel's cache."""
        return _read_past_cache(self._path, self._is_device, offset, size)

    def hash_back(self, offset: int, size: int, hashed: "hashlib._Hash") -> None:
        """Add what the medium has to a hash."""
        for part in self.read_back(offset, size):
            hashed.update(part)

    def _zero(self, offset: int, size: int) -> None:
        if self._is_device:
            fcntl.ioctl(self._descriptor, _BLKZEROOUT, struct.pack("QQ", offset, size))
        else:
            os.ftruncate(self._descriptor, offset + size)


@contextmanager
def open_device(path: Path) -> Iterator[Medium]:
    """Nobody else may have it mounted or in use (O_EXCL). Raises TargetRefused before anything was written."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        why = "it is in use" if error.errno == errno.EBUSY else error.strerror
        raise TargetRefused(f"{path} cannot be written: {why}") from error
    try:
        if struct.unpack("i", fcntl.ioctl(descriptor, _BLKROGET, bytes(4)))[0]:
            raise TargetRefused(f"{path} cannot be written: it is read-only")
        yield Medium(path, descriptor, is_device=True)
    finally:
        os.close(descriptor)


@contextmanager
def open_spool(root: Path, path: Path, size: int) -> Iterator[Medium]:
    """A file for another installer. Raises TargetRefused where somebody else could lay a link on the way to it, and
    StorageFull where the image cannot fit, both before its first byte came."""
    with told("write", path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_way(root, path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        space = os.statvfs(path.parent)
        held = os.fstat(descriptor).st_blocks * 512
        room = space.f_bavail * space.f_frsize + held
        if room < size:
            raise StorageFull(f"{path.parent} has room for {room} bytes and the image has {size}")
        yield Medium(path, descriptor, is_device=False)
    finally:
        os.close(descriptor)


def _check_way(root: Path, folder: Path) -> None:
    """Every folder from the root down belongs to the finisher's user, and nobody else writes there."""
    while folder != root:
        seen = folder.lstat()
        if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or stat.S_IMODE(seen.st_mode) & 0o022:
            raise TargetRefused(f"{folder} is not a folder of root's alone, so the image is not kept below it")
        folder = folder.parent


def read_device(path: Path, size: int) -> Iterator[bytes]:
    """The first `size` bytes that a block device itself has. Raises StorageBroke where it ends before."""
    return _read_past_cache(path, True, 0, size)


def _read_past_cache(path: Path, is_device: bool, offset: int, size: int) -> Iterator[bytes]:
    with told("read", path), _open_past_cache(path, is_device) as descriptor:
        buffer = mmap.mmap(-1, CHUNK_BYTES)  # on a page, as O_DIRECT demands
        while size:
            got = os.preadv(descriptor, [buffer], offset)
            count = min(got, size)
            if count == 0:
                raise StorageBroke(f"{path} ends before the image does")
            yield buffer[:count]
            offset, size = offset + count, size - count


@contextmanager
def _open_past_cache(path: Path, is_device: bool) -> Iterator[int]:
    """A device is read by O_DIRECT; of a file the cached pages are dropped: not every file system has O_DIRECT."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags | (os.O_DIRECT if is_device else 0))
    try:
        if not is_device:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        yield descriptor
    finally:
        os.close(descriptor)
