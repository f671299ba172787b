"""The only durable writer of the device. What it wrote is there whole after a power cut, or as it was before.

A write is: temporary file, file sync, rename, folder sync. Every file ends with the SHA-256 of what stands before it,
so that damage (a worn flash cell, a half-erased block) is told from what an older version or a stranger wrote.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from mpagent.errors import StorageBroke, StorageFull
from mpwire.errors import MpError, Retry

TRAILER_BYTES: Final = 32
_TEMPORARY: Final = ".new"
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_SET_ASIDE_MAX: Final = 100
"""Damaged files kept beside the good one; beyond that the last is replaced."""
_FULL: Final = {
    errno.ENOSPC: "free some space on it",
    errno.EDQUOT: "raise the quota or free some space",
    errno.EROFS: "mount it writable",
    errno.EACCES: "run mpagent as the owner of this folder",
    errno.EPERM: "run mpagent as the owner of this folder",
}
_STRANGE: Final = "nothing but what mpagent made belongs there"
"""A folder where a file should be, a link, a file where the folder should be; or a device that fails."""


class Damaged(MpError):
    """A file that is there and is not what was written; the caller sets it aside and says what that means."""

    exit_code, retry = 65, Retry.NEVER


class Disk:
    """One folder and every durable file below it. Names are relative, with "/" between folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder, for its owner alone, and remove what an interrupted write left. Call it under the lock."""
        with told("make", self.folder):
            _make_folder(self.folder)
            for left_over in sorted(self.folder.glob(f"**/.*{_TEMPORARY}")):
                _forget(left_over)

    def read(self, name: str, high: int) -> bytes | None:
        """What `write` was given last, of at most `high` bytes; None when there is no such file. Raises Damaged."""
        path = self.folder / name
        with told("read", path):
            try:
                descriptor = os.open(path, _READ)
            except (FileNotFoundError, NotADirectoryError):
                return None
            with open(descriptor, "rb", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise Damaged(f"{path} is not a file")
                whole = _read_up_to(file.fileno(), high + TRAILER_BYTES + 1)
        content, trailer = whole[:-TRAILER_BYTES], whole[-TRAILER_BYTES:]
        if len(content) > high or hashlib.sha256(content).digest() != trailer:
            raise Damaged(f"{path} is damaged: its checksum does not match")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Replace one file. On StorageFull or StorageBroke the former content stands and nothing else is left."""
        path = self.folder / name
        fresh = _fresh(path)
        with told("write", path):
            _make_folder(path.parent)
            try:
                _write_synced(fresh, content + hashlib.sha256(content).digest())
                os.replace(fresh, path)
            except OSError:
                _forget(fresh)
                raise
            _sync_folder(path.parent)

    def stage(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write beside NAME what is too large to hold, synced and without a trailer; `publish` gives it the name.

        On any failure, of the chunks too, nothing is left; a cut leaves what `prepare` removes.
        """
        path = self.folder / name
        fresh = _fresh(path)
        with told("write", path):
            _make_folder(path.parent)
            try:
                _write_chunks(fresh, chunks)
            except Exception:
                _forget(fresh)
                raise

    def publish(self, name: str) -> None:
        """What was staged is the file of this name from here on, durably."""
        path = self.folder / name
        with told("write", path):
            os.replace(_fresh(path), path)
            _sync_folder(path.parent)

    def unstage(self, name: str) -> None:
        """Forget what was staged and not published; nothing there is fine."""
        _forget(_fresh(self.folder / name))

    def open(self, name: str, *, staged: bool = False) -> BinaryIO:
        """A large file to read from, as `stage` wrote it. Raises Damaged where there is none; the caller closes it."""
        path = self.folder / name
        with told("read", path):
            try:
                descriptor = os.open(_fresh(path) if staged else path, _READ)
            except FileNotFoundError:
                raise Damaged(f"{path} is gone") from None
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise Damaged(f"{path} is not a file")
            return os.fdopen(descriptor, "rb")

    def measure_free(self) -> int:
        """Bytes that can still be written."""
        there = next(one for one in (self.folder, *self.folder.parents) if one.exists())
        with told("measure", there):
            space = os.statvfs(there)
        return space.f_bavail * space.f_frsize

    def remove(self, name: str) -> None:
        """Take a file away for good; one that is not there is fine."""
        path = self.folder / name
        with told("remove", path):
            if path.exists() or path.is_symlink():
                path.unlink()
                _sync_folder(path.parent)

    def names(self, folder: str) -> tuple[str, ...]:
        """Names of the files in one folder below, sorted, without those of unfinished writes."""
        path = self.folder / folder
        with told("list", path):
            try:
                return tuple(sorted(one for one in os.listdir(path) if not one.startswith(".")))
            except (FileNotFoundError, NotADirectoryError):
                return ()

    def set_aside(self, name: str) -> str:
        """Rename a damaged file to NAME.damaged-N for a person to look at; returns the new name."""
        path = self.folder / name
        fresh = path
        with told("set aside", path):
            for number in range(1, _SET_ASIDE_MAX + 1):
                fresh = path.with_name(f"{path.name}.damaged-{number}")
                if not fresh.exists():
                    break
            os.replace(path, fresh)
            _sync_folder(path.parent)
        return fresh.name


def _fresh(path: Path) -> Path:
    return path.with_name(f".{path.name}{_TEMPORARY}")


def _read_up_to(descriptor: int, high: int) -> bytes:
    parts: list[bytes] = []
    left = high
    while left and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _write_synced(path: Path, content: bytes) -> None:
    _write_chunks(path, (content,))


def _write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[os.write(descriptor, view) :]
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    """Make the missing folders of this path, each durable in the one above."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _forget(path: Path) -> None:
    """Remove a temporary file. A disk that refuses this reports itself at the next write, and only then it matters."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


@contextmanager
def told(verb: str, path: Path) -> Iterator[None]:
    """Turn what the kernel says into our words: the path, the cause and what to do."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or type(error).__name__
        remedy = _FULL.get(error.errno or 0)
        if remedy is not None and verb != "read":
            raise StorageFull(f"cannot {verb} {path}: {cause}; {remedy}") from error
        raise StorageBroke(f"cannot {verb} {path}: {cause}; {remedy or _STRANGE}") from error
