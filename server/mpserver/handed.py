"""What a person hands over on a command line: hex, or @FILE as it is."""

import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

from mpserver.errors import Usage


def read_value(option: str, told: str, most: int) -> bytes:
    """At most `most` bytes. Raises Usage naming the option."""
    if told.startswith("@"):
        return read_file(Path(told[1:]), most)
    raw = read_hex(told)
    if raw is None:
        raise Usage(f"{option} is not pairs of hexadecimal digits; write @FILE for a file")
    if len(raw) > most:
        raise Usage(f"{option} is longer than {most} bytes")
    return raw


def read_hex(told: str) -> bytes | None:
    """Pairs of digits, spaces between them allowed; None for anything else."""
    try:
        return bytes.fromhex(told.removeprefix("0x"))
    except ValueError:
        return None


def read_file(path: Path, most: int) -> bytes:
    """A file or, for "-", standard input. Raises Usage where it cannot be read or is longer."""
    if str(path) == "-" and sys.stdin is None:
        raise Usage("cannot read standard input: it is closed")
    try:
        file: BinaryIO
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        raise Usage(f"cannot read {path}: {error.strerror}") from error
    if len(raw) > most:
        raise Usage(f"{path} is longer than {most} bytes")
    return raw


def open_plain(path: Path) -> BinaryIO:
    """A regular file, to be read. Raises Usage for a pipe, a device or a folder, which never hold what is asked for.

    Opened without waiting: a pipe that nobody writes would hold the command for ever.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Usage(f"cannot read {spell_path(path)}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Usage(f"cannot read {spell_path(path)}: it is no plain file")
    return os.fdopen(handle, "rb")


def spell_path(path: Path) -> str:
    """For a screen: names on a medium from a factory hold what they want, line ends and control codes too."""
    told = str(path)
    return told if told.isprintable() else ascii(told)


def read_fingerprint(told: str) -> str:
    """Its digits alone: people write them in groups, with colons, in capitals."""
    return "".join(told.split()).replace(":", "").lower()
