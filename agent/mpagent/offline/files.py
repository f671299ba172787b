"""Slots of kind `file`: too large for the vault, so they lie beside it under a key that lies in it.

On disk a file is the same chunks as in a bundle (docs/wire.md 11.3) under a fresh key, in files/SLOT-GENERATION. The
value of its slot is a note: the key, the size and the file's name. The file is whole and durable before a generation
names it, and is removed after the record names another.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from mpagent.durable import Damaged, Disk
from mpagent.errors import StorageFull
from mpagent.slots import VaultSlot
from mpwire.errors import Unauthentic
from mpwire.limits import BUNDLE_CHUNK_BYTES, BUNDLE_FILE_MAX_BYTES
from mpwire.messages.grant import SECRET
from mpwire.secret import Secret
from mpwire.shape import Field, Integer, MapOf, Text
from mpwire.stream import TAG_BYTES, count_ciphertext, find_last, open_chunks, open_last, seal_chunks

FOLDER: Final = "files"
KIND: Final = "file"
KEY_BYTES: Final = 32
NAME_MAX_BYTES: Final = 200
NOTE_MAX_BYTES: Final = 512
SPARE_BYTES: Final = 8_388_608
"""Left free beside the files: vault, record and the file system's own needs."""


class Note(NamedTuple):
    """What the vault holds of a file."""

    key: Secret
    size: int
    name: str
    """Below files/."""


NOTE = MapOf(
    "file-note",
    Note,
    Field(1, "key", SECRET(KEY_BYTES, KEY_BYTES), "key of its chunks"),
    Field(2, "size", Integer(BUNDLE_FILE_MAX_BYTES), "bytes of plain text"),
    Field(3, "name", Text(NAME_MAX_BYTES), "its file"),
    constants={0: 1},
)


def read_note(slot: VaultSlot) -> Note:
    """Of a slot of kind `file`."""
    return NOTE.decode(slot.value.reveal(), NOTE_MAX_BYTES)


def name_file(slot: str, generation: int) -> str:
    """For any slot name: they may hold every printable character, "/" and "." too."""
    plain = slot.replace("-", "").replace("_", "").isalnum() and slot.isascii()
    return f"{slot if plain else f'x.{slot.encode().hex()}'}-{generation:06d}"


def check_room(disk: Disk, sizes: Iterable[int]) -> None:
    """Before the first byte is written. Raises StorageFull."""
    needed = sum(count_ciphertext(size) for size in sizes)
    free = disk.measure_free()
    if needed and free < needed + SPARE_BYTES:
        raise StorageFull(
            f"{disk.folder} has {free >> 20} MiB left, and the files of this bundle need "
            f"{(needed + SPARE_BYTES >> 20) + 1}: free some space on it"
        )


def stage_file(disk: Disk, note: Note, chunks: Iterator[bytes]) -> None:
    """Encrypt it anew beside its name."""
    disk.stage(f"{FOLDER}/{note.name}", seal_chunks(note.key, chunks, note.size))


def read_file(disk: Disk, note: Note, *, staged: bool = False) -> Iterator[bytes]:
    """Its plain text, chunk by chunk. Raises Damaged: it is gone, torn, or other bytes than were stored.

    That the end is the end is known at the end alone.
    """
    path = disk.folder / FOLDER / note.name
    with closing(disk.open(f"{FOLDER}/{note.name}", staged=staged)) as file:
        _check_size(os.fstat(file.fileno()).st_size, path, note)
        with _read(path):
            yield from open_chunks(note.key, file.read, note.size)


def probe_file(disk: Disk, note: Note) -> None:
    """Its size, and its last chunk, which says that it is the last. Raises Damaged.

    For every boot of a finished board: reading gibibytes would hold it up, and who reads the file finds the rest.
    """
    path = disk.folder / FOLDER / note.name
    with closing(disk.open(f"{FOLDER}/{note.name}")) as file:
        _check_size(os.fstat(file.fileno()).st_size, path, note)
        last = find_last(note.size)
        with _read(path):
            file.seek(last * (BUNDLE_CHUNK_BYTES + TAG_BYTES))
            open_last(note.key, file.read(), last)


def _check_size(found: int, path: Path, note: Note) -> None:
    if found != count_ciphertext(note.size):
        raise Damaged(f"{path} is torn: it has not the size that was stored")


@contextmanager
def _read(path: Path) -> Iterator[None]:
    try:
        yield
    except Unauthentic:
        raise Damaged(f"{path} is damaged: it is not what was stored") from None
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from error


def sweep(disk: Disk, slots: Sequence[VaultSlot]) -> None:
    """Remove every file that these slots, those of the durable record, do not name."""
    kept = {read_note(one).name for one in slots if one.kind == KIND}
    for name in disk.names(FOLDER):
        if name not in kept:
            disk.remove(f"{FOLDER}/{name}")
