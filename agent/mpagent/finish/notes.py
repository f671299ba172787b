"""How far the finisher came: a folder of root's own inside the state folder, so that the next boot need not begin anew.

Nothing is believed for standing here. An offset that is wrong costs a download, because the hash of the whole image is
taken from the medium before it can boot; "done" that is wrong costs the board its image or leaves a disk as it is.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from mpagent.durable import Damaged, Disk, told
from mpagent.errors import Tampered
from mpwire.errors import Malformed
from mpwire.messages.plain import HASH
from mpwire.shape import Field, Integer, MapOf, OneOf, Text

FOLDER: Final = "finish"
_FILE: Final = "notes"
NOTES_MAX_BYTES: Final = 512


class Notes(NamedTuple):
    """What was done here by this board's orders."""

    digest: bytes | None = None
    """Of the image that `written` is about."""
    written: int = 0
    """Bytes of it that are on the medium for sure."""
    installed: bool = False
    """That image was read back whole and may boot."""
    volume: str | None = None
    """UUID of the volume that was finished."""


NOTES = MapOf(
    "notes",
    Notes,
    Field(1, "digest", HASH, "SHA-256 of the image", required=False),
    Field(2, "written", Integer(), "bytes on the medium"),
    Field(3, "installed", OneOf(True, False), "read back and switched"),
    Field(4, "volume", Text(36), "UUID of the finished volume", required=False),
    constants={0: 1},
)


class Notebook:
    """Keeps one set of notes."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.notes = self._load()

    def save(self, notes: Notes) -> None:
        """Durable on return."""
        self._disk.write(_FILE, NOTES.encode(notes))
        self.notes = notes

    def _load(self) -> Notes:
        """Damaged notes are none: everything they say is found out again."""
        try:
            raw = self._disk.read(_FILE, NOTES_MAX_BYTES)
            return Notes() if raw is None else NOTES.decode(raw, NOTES_MAX_BYTES)
        except (Damaged, Malformed):
            return Notes()


@contextmanager
def open_notebook(state: Path) -> Iterator[Notebook]:
    """The folder above belongs to another user, who could put a link in its place: it is opened once, without
    following one, and used by its descriptor. Raises Tampered where it is not ours alone."""
    path = state / FOLDER
    with told("open", path):
        if not path.exists() and not path.is_symlink():
            path.mkdir(mode=0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        seen = os.fstat(descriptor)
        if seen.st_uid != os.geteuid() or stat.S_IMODE(seen.st_mode) & 0o077:
            raise Tampered(f"{path} is not the finisher's own folder")
        yield Notebook(Disk(Path(f"/proc/self/fd/{descriptor}")))
    finally:
        os.close(descriptor)


def read_notes(state: Path) -> Notes:
    """For a look alone; changes nothing."""
    return Notebook(Disk(state / FOLDER)).notes
