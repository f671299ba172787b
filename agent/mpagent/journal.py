"""Keeps the record through power cuts and worn flash.

Two files take turns, so the record before the present one is still there. A damaged file is set aside and the other
one counts: that is one step back in the enrollment, where saying the same bytes again brings the same answer
(promise P3). With both damaged the enrollment starts from BLANK with the same device keys; the epoch and the time
floor then start again from those of the image.
"""

from collections.abc import Callable
from typing import Final

from mpagent.durable import Damaged, Disk
from mpagent.record import RECORD, RECORD_MAX_BYTES, Record
from mpwire.errors import Malformed

FILES: Final = ("record-a", "record-b")
_TURN_BYTES: Final = 8
"""Big-endian count of saves, before the record."""


class Journal:
    """One record. `report` hears, in words for the operator, of every file set aside."""

    def __init__(self, disk: Disk, report: Callable[[str], None]) -> None:
        self._disk = disk
        self._report = report
        self._turn = 0
        self._next = FILES[0]

    def load(self) -> Record:
        """The newest whole record; BLANK when there is none. Sets damaged files aside."""
        newest = Record()
        self._turn, self._next = 0, FILES[0]
        for name, other in (FILES, FILES[::-1]):
            found = self._read(name)
            if isinstance(found, Damaged):
                kept = self._disk.set_aside(name)
                self._report(f"{found}; set aside as {kept}, the enrollment goes on from what is left")
            elif found is not None and found[0] > self._turn:
                self._turn, newest = found
                self._next = other
        return newest

    def peek(self) -> tuple[Record, tuple[str, ...]]:
        """What `load` would return, and what it would report; touches nothing."""
        found = [self._read(name) for name in FILES]
        damages = tuple(str(one) for one in found if isinstance(one, Damaged))
        whole = [one for one in found if one is not None and not isinstance(one, Damaged)]
        return max(whole, key=lambda one: one[0], default=(0, Record()))[1], damages

    def save(self, record: Record) -> None:
        """Durable when it returns; on any error the record saved before it stands."""
        turn = self._turn + 1
        self._disk.write(self._next, turn.to_bytes(_TURN_BYTES, "big") + RECORD.encode(record))
        self._turn = turn
        self._next = FILES[1 - FILES.index(self._next)]

    def _read(self, name: str) -> tuple[int, Record] | Damaged | None:
        try:
            raw = self._disk.read(name, _TURN_BYTES + RECORD_MAX_BYTES)
            if raw is None:
                return None
            return int.from_bytes(raw[:_TURN_BYTES], "big"), RECORD.decode(raw[_TURN_BYTES:], RECORD_MAX_BYTES)
        except Damaged as damage:
            return damage
        except Malformed as error:
            return Damaged(f"{self._disk.folder / name} is damaged: {error}")
