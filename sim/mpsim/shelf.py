"""Shelves for tests: what a power cut leaves, in memory or in a folder."""

from pathlib import Path

from mpsim import storage


class MemoryShelf:
    """A shelf whose content outlives the board object: hand the same one to the next open_board."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def find(self, name: str) -> bytes | None:
        """See ports.Shelf."""
        return self.blobs.get(name)

    def put(self, name: str, blob: bytes) -> None:
        """See ports.Shelf."""
        self.blobs[name] = bytes(blob)


class FolderShelf:
    """A shelf in a folder, one file a name, so that another process can be killed beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, name: str) -> bytes | None:
        """See ports.Shelf."""
        path = self._folder / name
        return storage.get(path) if path.exists() else None

    def put(self, name: str, blob: bytes) -> None:
        """See ports.Shelf."""
        self._folder.mkdir(parents=True, exist_ok=True)
        storage.put(self._folder / name, blob)
