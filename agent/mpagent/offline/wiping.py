"""Destroying a bundle where it lies, once nothing of it is needed any more.

On flash an overwritten block may live on in a spare one until the controller erases it; a bundle is one for a whole
lot anyway. So this keeps honest people from copying what a board has done with, and no laboratory (docs/threats.md).
"""

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from mpagent.offline.sources import Source

_BLKDISCARD: Final = 0x1277
"""_IO(0x12, 119) of linux/fs.h; two 64-bit numbers: from where, how many bytes."""
_SECTOR_BYTES: Final = 4_096
_BLOCK: Final = bytes(1 << 20)


def wipe(source: Source) -> str | None:
    """Why it could not be done, in words; None when it was. A medium that takes no writing costs no PASS."""
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_EXCL if source.is_device else 0)
    try:
        descriptor = os.open(source.path, flags)
        try:
            if _identify(descriptor, source.is_device) != source.identity:
                return f"{source.path} is another file by now"
            if source.is_device:
                _wipe_device(descriptor, source)
            else:
                _wipe_file(descriptor, source)
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"{source.path} cannot be wiped: {error.strerror or type(error).__name__}"
    return None


def _identify(descriptor: int, is_device: bool) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return (found.st_rdev, 0) if is_device else (found.st_dev, found.st_ino)


def _wipe_file(descriptor: int, source: Source) -> None:
    """The manifest last, without its name: cut before, it is still known as one that was taken, and the next start goes
    on; cut after, nobody finds half of a bundle."""
    head = source.frame.places[0].offset
    _overwrite(descriptor, head, os.fstat(descriptor).st_size)
    real = Path(os.path.realpath(source.path))
    real.unlink()
    folder = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    _overwrite(descriptor, 0, head)


def _wipe_device(descriptor: int, source: Source) -> None:
    """The manifest first: without its salt the rest is noise, also where the device cannot discard."""
    head, end = source.frame.places[0].offset, source.frame.end
    _overwrite(descriptor, 0, head)
    try:
        fcntl.ioctl(descriptor, _BLKDISCARD, struct.pack("=QQ", 0, end // _SECTOR_BYTES * _SECTOR_BYTES))
        _overwrite(descriptor, 0, head)  # what was discarded may read as it was before
    except OSError:
        _overwrite(descriptor, head, end)


def _overwrite(descriptor: int, start: int, end: int) -> None:
    os.lseek(descriptor, start, os.SEEK_SET)
    while start < end:
        start += os.write(descriptor, _BLOCK[: end - start])
    os.fsync(descriptor)
