"""Where bundles lie: a file, a folder of files, or a block device that begins with one. Read, never written here."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from mpagent.errors import MediumBroke, NoBundle
from mpagent.offline.words import refuse, told
from mpwire.bundle import HEAD_BYTES, Frame, read_bundle

SUFFIX: Final = ".mpbundle"
"""How the name of a bundle ends in a folder of other things."""
FOLDER_MAX: Final = 64
"""Bundles looked at in one folder, by their names."""
_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM)
"""A medium that is not there, or not in its drive."""
_EMPTY: Final = (bytes(HEAD_BYTES), b"\xff" * HEAD_BYTES)
"""How an erased block device reads."""
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Source(NamedTuple):
    """One bundle, open. Whatever happens to its name meanwhile, it is read through this descriptor."""

    path: Path
    file: BinaryIO
    frame: Frame
    is_device: bool
    identity: tuple[int, int]
    """Device and inode: what the path must still name when it is wiped."""


def list_bundles(places: Sequence[Path]) -> list[Path]:
    """What may be a bundle, place by place. A place that is not there has none. Raises MediumBroke.

    Whoever filled the medium chose the names, and we say them: one that a terminal would act on is none of a bundle.
    """
    found: list[Path] = []
    for place in places:
        try:
            if stat.S_ISDIR(os.stat(place).st_mode):
                names = sorted(name for name in os.listdir(place) if _is_named(name))
                found += [place / name for name in names[:FOLDER_MAX]]
            else:
                found.append(place)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise MediumBroke(f"cannot look for bundles at {place}: {_say(error)}") from error
    return found


def _is_named(name: str) -> bool:
    return name.endswith(SUFFIX) and name[0] != "." and name.isprintable()


@contextmanager
def open_bundle(path: Path) -> Iterator[Source]:
    """11.4.1: the frame and its manifest. Raises NoBundle, BundleBroke for what is none, MediumBroke.

    A pipe, a folder or a terminal in a bundle's place is refused, and not waited for.
    """
    try:
        descriptor = os.open(path, _OPEN)
    except OSError as error:
        if error.errno in _ABSENT:
            raise NoBundle(f"no bundle: {path} is not there") from error
        raise MediumBroke(f"cannot read {path}: {_say(error)}") from error
    found = os.fstat(descriptor)
    is_device = stat.S_ISBLK(found.st_mode)
    if not is_device and not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise refuse("bundle-frame", f"{path} is no file and no block device")
    with open(descriptor, "rb") as file:
        with reading(path), told("bundle-manifest"):
            if is_device and file.peek(HEAD_BYTES)[:HEAD_BYTES] in _EMPTY:
                raise NoBundle(f"no bundle: {path} is empty")
            frame = read_bundle(file)
        identity = (found.st_rdev, 0) if is_device else (found.st_dev, found.st_ino)
        window = _Window(file, frame.end) if is_device else file
        yield Source(path, window, frame, is_device, identity)  # type: ignore[arg-type]  # read and seek are all


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What the kernel says while a bundle is read: a stick that is pulled, a worn card. Raises MediumBroke."""
    try:
        yield
    except OSError as error:
        raise MediumBroke(f"cannot read {path}: {_say(error)}") from error


class _Window:
    """A block device as far as its bundle goes: what lies behind is of no concern."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file, self._end = file, end

    def read(self, size: int) -> bytes:
        return self._file.read(max(0, min(size, self._end - self._file.tell())))

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)


def _say(error: OSError) -> str:
    return error.strerror or type(error).__name__
