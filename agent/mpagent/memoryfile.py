"""A secret as a file, where a file is gone with the power: on tmpfs or ramfs and nowhere else (promise P8)."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from mpagent.durable import told
from mpwire.errors import MpError, Retry

_IN_MEMORY: Final = ("tmpfs", "ramfs")


class OnDisk(MpError):
    """A secret was to become a file that outlives the power. Nothing was written."""

    exit_code, retry = 73, Retry.OPERATOR


def write_secret(path: Path, content: bytes | Iterable[bytes]) -> None:
    """The file for its owner alone, whole or not at all; what was there is replaced, a link and not what it names.

    A large secret comes in chunks; where they fail, nothing is left. Raises OnDisk, StorageFull, StorageBroke; then
    the former file stands.
    """
    with told("write", path):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            kind = _find_kind(os.fstat(folder).st_dev)
            if kind not in _IN_MEMORY:
                raise OnDisk(f"{path.parent} is on {kind}: a secret goes to tmpfs or ramfs alone, such as /run")
            _write(folder, path.name, (content,) if isinstance(content, bytes) else content)
        finally:
            os.close(folder)


def _write(folder: int, name: str, chunks: Iterable[bytes]) -> None:
    fresh = f".{name}.new-{os.getpid()}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            for chunk in chunks:
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]
        os.replace(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
    except Exception:
        os.unlink(fresh, dir_fd=folder)
        raise


def _find_kind(device: int) -> str:
    """The file system of this device number, from mountinfo (proc(5)); unknown where no mount has it."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            fields, _, kinds = line.partition(" - ")
            if fields.split()[2] == wanted:
                return kinds.split()[0]
    return "an unknown file system"
