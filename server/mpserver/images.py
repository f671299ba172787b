"""Production images that boards fetch by range (docs/wire.md 4.9): files named by their own SHA-256."""

import hashlib
import os
import re
from pathlib import Path
from typing import Final, NamedTuple

from mpserver.errors import StateBroke, Usage
from mpserver.keystore import sync_directory
from mpwire import registry

FOLDER: Final = "images"
_NAME: Final = re.compile("[0-9a-f]{64}")
_RANGE: Final = re.compile("bytes=([0-9]{1,19})-([0-9]{1,19})?")
_CHUNK_BYTES: Final = 1_048_576


class Piece(NamedTuple):
    """What one request gets: bytes `start` to `end` of a file, the end not included."""

    file: Path
    size: int
    start: int
    end: int
    is_range: bool


def keep_image(folder: Path, source: Path) -> tuple[str, int]:
    """Copy it to its name, durably, and hash what is copied. (digest in hex, bytes). Raises Usage, StateBroke."""
    temporary, size, digest = folder / ".new", 0, hashlib.sha256()
    try:
        file = source.open("rb")
    except OSError as error:
        raise Usage(f"{source}: {error.strerror}") from error
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
        with file, temporary.open("wb") as copy:
            while part := file.read(_CHUNK_BYTES):
                digest.update(part)
                size += copy.write(part)
            copy.flush()
            os.fsync(copy.fileno())
        if size == 0:
            temporary.unlink()
            raise Usage(f"{source} is empty")
        temporary.rename(folder / digest.hexdigest())
        sync_directory(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StateBroke(f"cannot keep the image in {folder}: {error.strerror}") from error
    return digest.hexdigest(), size


def find_piece(folder: Path, path: str, asked: str | None) -> Piece | int:
    """What a GET of `path` with this Range header is answered with, or the status that refuses it."""
    name = path.removeprefix(registry.IMAGE_PATH)
    if not _NAME.fullmatch(name):
        return 404
    try:
        size = (folder / name).stat().st_size
    except OSError:
        return 404
    if asked is None:
        return Piece(folder / name, size, 0, size, is_range=False)
    told = _RANGE.fullmatch(asked)
    start = int(told[1]) if told else size
    end = min(size, int(told[2]) + 1 if told and told[2] else size)
    return 416 if start >= end else Piece(folder / name, size, start, end, is_range=True)
