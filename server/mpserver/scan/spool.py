"""Where unpacked bytes lie while they are looked at: in memory while they are few, else in a file without a name.

The file lies below /var/tmp, which is on a disk; the kernel frees it with the process, however that ends. Zeros are
holes in it.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from mpserver.scan.budget import Budget
from mpserver.scan.containers.member import Broken
from mpserver.scan.regions import Memory, Space

MEMORY_BYTES: Final = 4 * 1024 * 1024
FOLDER: Final = Path("/var/tmp")
STEP_BYTES: Final = 65_536
"""Of zeros and other bytes: what is not zero throughout is written."""
_ZEROS: Final = bytes(STEP_BYTES)


class Spooled:
    """What a stream gave, whole or up to where it failed."""

    def __init__(self, number: int, budget: Budget) -> None:
        self._number, self._budget = number, budget
        self._parts: list[bytes] = []
        self._file: BinaryIO | None = None
        self.size = self.kept = 0

    def fill(self, chunks: Iterator[bytes]) -> None:
        """Raises what the stream raises, Exhausted and OSError; what came before stays."""
        for chunk in chunks:
            self._budget.unpack(len(chunk), self.size)
            self._add(chunk)

    def _add(self, chunk: bytes) -> None:
        if self._file is None and self.size + len(chunk) > MEMORY_BYTES:
            self._file = _open_nameless()
            whole = b"".join(self._parts)
            self._parts.clear()
            self._write(0, whole)
        if self._file is None:
            self._parts.append(chunk)
        else:
            self._write(self.size, chunk)
        self.size += len(chunk)

    def _write(self, at: int, body: bytes) -> None:
        for start in range(0, len(body), STEP_BYTES):
            part = body[start : start + STEP_BYTES]
            if part != _ZEROS[: len(part)]:
                self._write_part(at + start, part)

    def _write_part(self, at: int, body: bytes) -> None:
        assert self._file is not None
        self._budget.keep(len(body))
        self.kept += len(body)
        rest = memoryview(body)
        try:
            while rest:  # a disk that is nearly full takes a part
                done = os.pwrite(self._file.fileno(), rest, at)
                rest, at = rest[done:], at + done
        except OSError as error:
            raise _no_room(error) from error

    def finish(self) -> Space:
        """The space; closing it gives memory or disk back."""
        if self._file is None:
            return Memory(self._number, b"".join(self._parts))
        self._file.truncate(self.size)
        return Space(self._number, self._file, self.size)


def _open_nameless() -> BinaryIO:
    try:
        return tempfile.TemporaryFile(dir=FOLDER, buffering=0)
    except OSError as error:
        raise _no_room(error) from error


def _no_room(error: OSError) -> Broken:
    return Broken(f"what it unpacks to cannot be kept below {FOLDER}: {error.strerror}")
