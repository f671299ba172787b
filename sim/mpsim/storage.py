"""Durable files of a simulated chip: what survives pulling the plug of the machine that simulates it."""

import json
import os
from pathlib import Path
from typing import Any, ClassVar

from mpwire.errors import MpError, Retry


class BoardBroke(MpError):
    """Reading or writing the folder of a board failed; what was there is as it was."""

    exit_code: ClassVar[int] = 74
    retry: ClassVar[Retry] = Retry.OPERATOR


def put(path: Path, content: bytes) -> None:
    """Replace a file durably: temporary file, file sync, rename, folder sync. Never seen half-written."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(fresh, "wb", opener=_owner_only) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
        sync_folder(path.parent)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise BoardBroke(f"cannot write {path}: {error.strerror}") from error


def put_json(path: Path, value: object) -> None:
    """The same for a small JSON value, with sorted keys."""
    put(path, json.dumps(value, sort_keys=True).encode() + b"\n")


def get(path: Path) -> bytes:
    """The whole file. Raises BoardBroke."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BoardBroke(f"cannot read {path}: {error.strerror}") from error


def get_json(path: Path) -> Any:
    """The value of a file that `put_json` wrote. Raises BoardBroke also for what is not JSON."""
    try:
        return json.loads(get(path))
    except ValueError as error:
        raise BoardBroke(f"{path} is damaged: not JSON") from error


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
