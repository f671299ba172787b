"""One mpagent at a time on a state folder."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mpagent.durable import told
from mpagent.errors import Busy, StorageBroke, StorageFull

_FILE: Final = "lock"
_HOLDER_MAX_BYTES: Final = 200


@contextmanager
def hold(folder: Path, command: str) -> Iterator[None]:
    """Hold the state folder for this block; the kernel lets go when the process ends, however it ends.

    Raises Busy naming process id and command of the holder. On a read-only partition the file of an earlier run is
    held as it is: a finished board shows its secrets there too, and whatever has to be written says what it lacks.
    """
    path = folder / _FILE
    with told("make", path):
        descriptor, writable = _open(path)
    try:
        _take(descriptor, path)
        if writable:
            _sign(descriptor, f"process {os.getpid()} (mpagent {command})", path)
        yield
    finally:
        os.close(descriptor)


def read_holder(folder: Path) -> str | None:
    """Who holds the state folder now, or None; takes nothing."""
    try:
        descriptor = os.open(folder / _FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _read(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> tuple[int, bool]:
    """The lock file and whether its holder can be written into it. Raises OSError."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600), True
    except OSError as error:
        if error.errno != errno.EROFS or not path.is_file():
            raise
        return os.open(path, os.O_RDONLY | flags), False


def _take(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy(f"{_read(descriptor)} holds {path.parent}") from None
    except OSError as error:
        raise StorageBroke(f"cannot lock {path}: {error.strerror}; the file system must support flock") from error


def _sign(descriptor: int, holder: str, path: Path) -> None:
    """Not synced: who held it matters only while the process lives."""
    try:
        os.pwrite(descriptor, holder.encode(), 0)
        os.ftruncate(descriptor, len(holder.encode()))
    except OSError as error:
        raise StorageFull(f"cannot write {path}: {error.strerror}; the state folder must take a new file") from error


def _read(descriptor: int) -> str:
    return os.pread(descriptor, _HOLDER_MAX_BYTES, 0).decode("utf-8", "replace") or "another mpagent"
