"""ports.Shelf on the state partition: wrapped device keys, each in a file of its own."""

from typing import Final

from mpagent.durable import Damaged, Disk
from mpagent.errors import Tampered

BLOB_MAX_BYTES: Final = 8_192
"""A TPM key's private and public area, or a sealed software key, with room."""
_FOLDER: Final = "shelf"


class DiskShelf:
    """Blobs below shelf/. A damaged one is set aside, never replaced by a new key behind the issuer's back."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def find(self, name: str) -> bytes | None:
        """Raises Tampered when the blob is damaged: another key would be taken for a clone (promise P3)."""
        file = _file(name)
        try:
            return self._disk.read(file, BLOB_MAX_BYTES)
        except Damaged as damage:
            kept = self._disk.set_aside(file)
            raise Tampered(f"device key {name}: {damage}; set aside as {kept}") from damage

    def put(self, name: str, blob: bytes) -> None:
        """Durable when it returns; on an error the former blob stands."""
        self._disk.write(_file(name), blob)


def _file(name: str) -> str:
    """A file name for any label: slot names may hold any printable character, "/" and "." too."""
    plain = name.replace("-", "").replace("_", "").isalnum() and name.isascii()
    return f"{_FOLDER}/{name}" if plain and len(name) <= 64 else f"{_FOLDER}/x.{name.encode().hex()}"
