"""What a command shows: one value for --json, and the same as lines for people."""

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpserver.errors import StateBroke, Usage
from mpserver.keystore import sync_directory
from mpwire.secret import Secret


@dataclass(frozen=True, slots=True)
class Shown:
    """A command's result. `text` is what people read; "" makes it from the value."""

    value: Any
    text: str = ""
    exit_code: int = 0


def write_new(path: Path, raw: bytes, mode: int = 0o666) -> None:
    """A file for somebody else, whole or not at all, never over another. Raises Usage, StateBroke.

    `mode` is that of open(2), before the umask.
    """
    try:
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            try:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                path.unlink()
                raise
    except FileExistsError:
        raise Usage(f"{path} exists already") from None
    except OSError as error:
        raise StateBroke(f"cannot write {path}: {error.strerror}") from error


def write_secret(path: Path, value: Secret) -> None:
    """A file of mode 600, whole or not at all whatever ends this process, never over another.

    Raises Usage where one stands, StateBroke: also on a file system without links, which has no modes either.
    """
    try:
        handle, made = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(handle, "wb") as file:
                file.write(value.reveal())
                file.flush()
                os.fsync(file.fileno())
            os.link(made, path)
        finally:
            os.unlink(made)
        sync_directory(path.parent)
    except FileExistsError:
        raise Usage(f"{path} exists already") from None
    except OSError as error:
        raise StateBroke(f"cannot write {path}: {error.strerror}") from error


def write_shown(shown: Shown, as_json: bool) -> None:
    """To standard output, whole or not at all. Raises StateBroke: a result nobody could read is a failure."""
    if sys.stdout is None:
        raise StateBroke("cannot write the output: standard output is closed")
    text = json.dumps(shown.value, ensure_ascii=False) if as_json else shown.text or _as_text(shown.value)
    try:
        sys.stdout.write(text.rstrip("\n") + "\n")
        sys.stdout.flush()
    except OSError as error:
        raise StateBroke(f"cannot write the output: {error.strerror}") from error


def _as_text(value: Any) -> str:
    if isinstance(value, Mapping):
        width = max((len(str(name)) for name in value), default=0)
        return "\n".join(f"{name:<{width}}  {_cell(one)}" for name, one in value.items())
    if isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
        return _as_table(value)
    return "none" if not value else str(value)


def _as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    titles = list(rows[0])
    cells = [titles, *([_cell(row[title]) for title in titles] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
