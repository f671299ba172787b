"""The newest head, kept outside the database: a restored older ledger is found out by it (promise P2).

Two records of 512 bytes in one file, written in turn and in place: a cut while one is written leaves the other, and
a full disk cannot stop a write, for the file never grows. Not synced: the database is, and a record a batch too old
after a power cut only says less than it could.
"""

import fcntl
import hashlib
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

from mpserver.errors import StoreDamaged
from mpwire.merkle import EMPTY_ROOT

RECORD_BYTES: Final = 512
"""A sector: the least that a disk writes whole."""
_FORM: Final = struct.Struct(">8sQ32s32s")
_MAGIC: Final = b"mphead/1"


class LastHead(NamedTuple):
    """What was known to be committed."""

    size: int
    root: bytes


class LastHeadFile:
    """One file; several servers of one ledger may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def make(self) -> None:
        """For an empty ledger, durable."""
        record = _pack(LastHead(0, EMPTY_ROOT))
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.pwrite(file, record * 2, 0)
            os.fsync(file)
        finally:
            os.close(file)

    def read(self) -> LastHead:
        """The larger of the whole records. Raises StoreDamaged when there is none, OSError when there is no file."""
        file = os.open(self._path, os.O_RDONLY)
        try:
            return max(one for _, one in self._records(file))
        finally:
            os.close(file)

    def raise_to(self, head: LastHead) -> None:
        """Keep `head` unless a larger one is there already. Raises OSError."""
        file = os.open(self._path, os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            records = self._records(file)
            newest, kept = max((one, at) for at, one in records)
            if newest.size < head.size:
                os.pwrite(file, _pack(head), RECORD_BYTES * (1 - kept))
        finally:
            os.close(file)

    def _records(self, file: int) -> list[tuple[int, LastHead]]:
        raw = os.pread(file, 2 * RECORD_BYTES, 0)
        found = [(at, _unpack(raw[at * RECORD_BYTES : (at + 1) * RECORD_BYTES])) for at in (0, 1)]
        whole = [(at, one) for at, one in found if one is not None]
        if not whole:
            raise StoreDamaged(f"{self._path} holds no whole record of the last ledger head")
        return whole


def _pack(head: LastHead) -> bytes:
    body = _MAGIC + struct.pack(">Q", head.size) + head.root
    return (body + hashlib.sha256(body).digest()).ljust(RECORD_BYTES, b"\0")


def _unpack(record: bytes) -> LastHead | None:
    if len(record) != RECORD_BYTES:
        return None
    magic, size, root, digest = _FORM.unpack_from(record)
    body = record[: _FORM.size - 32]
    return LastHead(size, root) if magic == _MAGIC and hashlib.sha256(body).digest() == digest else None
