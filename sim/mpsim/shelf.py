"""A shelf for tests: what a power cut leaves."""


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
