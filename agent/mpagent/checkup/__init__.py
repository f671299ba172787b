"""`mpagent doctor`: one line for each ability, by rooms of questions. Changes nothing on the board.

A backend adds its questions as a room of its own here. Chips are opened over a state folder that is only read; what a
part would keep stays in memory and is dropped.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from mpagent.checkup.card import ask_card
from mpagent.checkup.desk import Desk
from mpagent.checkup.finding import Finding, State, explain, find_worst
from mpagent.checkup.home import ask_home, tell_guard, tell_image
from mpagent.checkup.kernel import ask_kernel
from mpagent.checkup.line import ask_line
from mpagent.checkup.offline import ask_offline
from mpagent.checkup.parts import ask_parts
from mpagent.checkup.protection import ask_protection
from mpagent.checkup.question import Question, answer
from mpagent.checkup.silicon import ask_silicon
from mpagent.checkup.tee import ask_tee
from mpagent.checkup.tpm import ask_tpm
from mpagent.compose import Device, read_device
from mpwire.errors import MpError
from mpwire.guard import Guarded

__all__ = ["Finding", "State", "examine", "find_worst"]

ROOMS: Final[tuple[Callable[[Desk], Iterator[Question]], ...]] = (
    ask_home,
    ask_silicon,
    ask_tee,
    ask_protection,
    ask_kernel,
    ask_tpm,
    ask_card,
    ask_parts,
    ask_offline,
    ask_line,
)
"""In the order of a boot: what is below is told first."""


def examine(root: Path, guarded: Guarded, *, production: bool = False) -> Iterator[Finding]:
    """Every ability, each told as soon as it is known."""
    device: Device | None = None
    try:
        device = read_device(root)
        yield tell_image(device)
    except MpError as error:
        yield explain("image", error)
    yield from tell_guard(guarded)
    desk = Desk(root, device, production=production)
    for room in ROOMS:
        for question in room(desk):
            yield from answer(question)
