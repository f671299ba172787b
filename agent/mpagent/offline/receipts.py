"""Receipts of bundles: kept in the state folder, and laid where the line collects them."""

import os
from pathlib import Path
from typing import Final

from mpagent.durable import Damaged, Disk
from mpwire.bundlereceipt import LENGTH_BYTES, ROW_MAX_BYTES, SUFFIX, read_receipt

FOLDER: Final = "receipts"
KEPT_MAX: Final = 16
"""Receipts kept of one board; the newest one lists every slot, so the oldest go first."""


def name_receipt(row: bytes) -> str:
    """UEID-VERSION.receipts; an update's has its authority before the version, for each counts its own."""
    receipt = read_receipt(row[LENGTH_BYTES:]).receipt
    authority = "" if receipt.authority == "mp" else f"{receipt.authority}-"
    return f"{receipt.ueid.hex()}-{authority}{receipt.version}{SUFFIX}"


def keep_receipt(disk: Disk, row: bytes) -> None:
    """Durable in the state folder when it returns; the same row again writes nothing."""
    name = f"{FOLDER}/{name_receipt(row)}"
    if _read(disk, name) == row:
        return
    others = sorted(disk.names(FOLDER), key=lambda one: (disk.folder / FOLDER / one).stat().st_mtime)
    for other in others[: max(0, len(others) - KEPT_MAX + 1)]:
        disk.remove(f"{FOLDER}/{other}")
    disk.write(name, row)


def read_receipts(disk: Disk) -> dict[str, bytes]:
    """Rows by their names; one that is damaged is passed over, for the vault still has the newest."""
    found = {name: _read(disk, f"{FOLDER}/{name}") for name in disk.names(FOLDER) if name.endswith(SUFFIX)}
    return {name: row for name, row in found.items() if row is not None}


def export_receipts(disk: Disk, folder: Path) -> str | None:
    """Lay every receipt there that is not there yet; why it could not be done, None when all are there.

    The folder is not made: where the medium is missing, its mount point is an empty folder of the board's own disk
    at best. Each file is whole or not there.
    """
    try:
        for name, row in read_receipts(disk).items():
            if not _is_there(folder / name, row):
                _put(folder, name, row)
    except OSError as error:
        return f"{folder}: {error.strerror or type(error).__name__}"
    return None


def _read(disk: Disk, name: str) -> bytes | None:
    try:
        return disk.read(name, ROW_MAX_BYTES + LENGTH_BYTES)
    except Damaged:
        return None


def _is_there(path: Path, row: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    with open(descriptor, "rb") as file:
        try:
            return file.read(len(row) + 1) == row
        except OSError:
            return False


def _put(folder: Path, name: str, row: bytes) -> None:
    fresh = folder / f".{name}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        view = memoryview(row)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(fresh, folder / name)
    above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(above)
    finally:
        os.close(above)
