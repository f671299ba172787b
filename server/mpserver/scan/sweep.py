"""One pass over bytes, window by window; windows overlap by the longest mark, so none is cut in two."""

from collections import Counter
from collections.abc import Callable
from typing import Final

from mpserver.scan.budget import Budget
from mpserver.scan.marks import Automaton, Mark
from mpserver.scan.regions import Region

WINDOW_BYTES: Final = 1024 * 1024
FAMILY_MAX: Final = 2_000
"""Marks of one family in one region; then it is looked for no further there, and that is told."""
MAGICS_MAX: Final = 200_000
_ZEROS: Final = bytes(WINDOW_BYTES)

Told = Callable[[int, int, Mark], None]


def sweep(
    region: Region, automaton: Automaton, budget: Budget, tell: Told, progress: Callable[[int], None]
) -> list[str]:
    """Offset, length and mark go to `tell`, by rising offset in each stretch; `progress` gets the bytes done.

    Returns the families that were too many. Raises Exhausted, OSError.
    """
    counts: Counter[str] = Counter()
    dropped: list[str] = []
    for start, size in region.ranges():
        at, end = start, start + size
        before = b""
        while at < end:
            body = region.read(at, min(WINDOW_BYTES, end - at))
            if not body:
                return dropped
            budget.check_time()
            progress(len(body))
            if body == _ZEROS[: len(body)] and not any(before):
                at += len(body)
                continue
            window = before + body
            begun = at - len(before)
            for place, length, mark in automaton.find(window):
                if place + length <= len(before):
                    continue  # told with the window before
                counts[mark.family] += 1
                if counts[mark.family] > (MAGICS_MAX if mark.family == "magic" else FAMILY_MAX):
                    dropped.append(mark.family)
                    break
                tell(begun + place, length, mark)
            if dropped and counts[dropped[-1]]:
                automaton = automaton.without(dropped[-1])
                counts[dropped[-1]] = 0
                continue  # this window again, without that family
            before = window[-automaton.overlap :]
            at += len(body)
    return dropped
