"""One answer of `mpagent doctor`: an ability, how it is, why, and what to do."""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

from mpagent.advice import advise
from mpagent.errors import HardwareAbsent, HardwareGone
from mpwire.errors import MpError

EX_SOFTWARE: Final = 70
EX_OPERATOR: Final = 77
_GRAVEST_FIRST: Final = (65, EX_SOFTWARE, 78, EX_OPERATOR, 74, 73, 76, 69, 75)
"""Exit codes of docs/operate.md: damaged here; a bug; what a person must change; what time or another host may mend."""


class State(StrEnum):
    """How an ability is."""

    OK = "ok"
    NOTE = "note"
    """Works, or is not asked for, and somebody should know this."""
    MISSING = "missing"
    """Not on this board, or not in its software."""
    BROKEN = "broken"
    """There, and it does not work."""


class Finding(NamedTuple):
    """One line."""

    ability: str
    state: State
    cause: str
    next: str = ""
    """What to do, as a clause without a full stop."""
    exit_code: int = 0
    """What the command ends with if this is the worst; 0 where the image can do without."""


def explain(ability: str, error: MpError, *, needed: bool = True, asked: bool = True) -> Finding:
    """What a failure means for this ability.

    `needed` is whether the image cannot do without it, `asked` whether it names it at all: otherwise nobody has to do
    anything about a part that is not there.
    """
    if isinstance(error, HardwareAbsent) and not asked:
        return Finding(ability, State.MISSING, f"{error}; this image does not ask for it")
    state = State.MISSING if isinstance(error, HardwareAbsent) else State.BROKEN
    counts = needed or (asked and state is State.BROKEN)  # what is missing is passed over, what is broken stops
    advice = error.advice if isinstance(error, HardwareGone) else advise(error)
    following = advice or ("check that part and its driver" if isinstance(error, HardwareGone) else "")
    return Finding(ability, state, str(error), following, error.exit_code if counts else 0)


def explain_bug(ability: str, error: Exception) -> Finding:
    """Its text may hold anything, a secret too: only kind and place are told."""
    place: TracebackType | None = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else f" at {Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}"
    return Finding(ability, State.BROKEN, f"a bug in mpagent: {type(error).__name__}{where}", "report it", EX_SOFTWARE)


def find_worst(findings: Iterable[Finding]) -> int:
    """The exit code of the gravest finding, 0 when nothing is wrong."""
    codes = {one.exit_code for one in findings if one.exit_code}
    known = [code for code in _GRAVEST_FIRST if code in codes]
    return known[0] if known else max(codes, default=0)
