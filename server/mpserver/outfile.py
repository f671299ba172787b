"""A large file for somebody else: whole or not at all, whenever the disk is full or the power fails.

It is written beside its place as NAME.new. What a power cut leaves there is overwritten by the next try.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mpserver.errors import StateBroke, Usage
from mpserver.keystore import sync_directory


class NewFile:
    """What is being written. `keep` puts it into its place."""

    def __init__(self, path: Path, temporary: Path, file: BinaryIO) -> None:
        self.file, self._path, self._temporary = file, path, temporary

    def sync(self) -> None:
        """On the medium, and not in its place yet. Raises StateBroke."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def keep(self) -> None:
        """In its place, and durable there. Raises StateBroke."""
        try:
            self._temporary.replace(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise cannot_write(self._path, error) from error


@contextmanager
def writing(path: Path, *, force: bool) -> Iterator[NewFile]:
    """Removed at the end unless it was kept. Raises Usage: it is there and `force` is not said; StateBroke."""
    check_place(path, force=force)
    temporary = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise cannot_write(path, error) from error
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _taken(temporary) from None
        if not _is_named(file, temporary):  # finished by somebody else just now, and not ours to empty
            raise _taken(temporary)
        try:
            file.truncate(0)
            yield NewFile(path, temporary, file)
        finally:
            if _is_named(file, temporary):
                temporary.unlink()


def check_place(path: Path, *, force: bool) -> None:
    """Before any work. Raises Usage."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise Usage(f"{path} is no plain file: name a file in a folder")
    if path.exists() and not force:
        raise Usage(f"{path} exists already; --force replaces it")
    if not path.parent.is_dir():
        raise Usage(f"there is no folder {path.parent}")


def cannot_write(path: Path, error: OSError) -> StateBroke:
    """With the system's own word for it."""
    return StateBroke(f"cannot write {path}: {error.strerror}")


def _is_named(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _taken(path: Path) -> Usage:
    return Usage(f"{path} is being written by somebody else")
