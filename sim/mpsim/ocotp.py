"""OP-TEE's OCOTP pseudo-TA of a simulated part, with the word that it reads wrongly on an 8MP (docs/hardware.md)."""

from collections.abc import Callable, Sequence
from typing import Final

from mpagent.errors import HardwareAbsent

_CHIP_UID_OFFSET: Final = 0x4
"""Words 1 and 2, on every part: an 8MP has its UID in words 2 and 3."""


class SimOcotp:
    """Answers from the bytes of a fuse file, asked for afresh at each call."""

    def __init__(self, fuses: Callable[[], bytes], *, built_in: bool = True) -> None:
        """`built_in` False: an OP-TEE without this PTA."""
        self._fuses = fuses
        self._built_in = built_in
        self.calls: list[str] = []

    def chip_uid(self) -> bytes:
        """CHIP_UID: 8 bytes, little-endian."""
        self._open("chip_uid")
        return self._fuses()[_CHIP_UID_OFFSET : _CHIP_UID_OFFSET + 8]

    def read_fuses(self, places: Sequence[tuple[int, int]]) -> list[int]:
        """READ_FUSE of each (bank, word)."""
        self._open("read_fuses")
        content = self._fuses()
        offsets = [(bank * 4 + word) * 4 for bank, word in places]
        return [int.from_bytes(content[offset : offset + 4], "little") for offset in offsets]

    def _open(self, verb: str) -> None:
        self.calls.append(verb)
        if not self._built_in:
            raise HardwareAbsent("this OP-TEE has no OCOTP PTA")
