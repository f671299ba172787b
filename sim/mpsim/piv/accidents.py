"""Accidents to come, written down in a card's folder, so that a test can script the card of another process."""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Final

from mpsim import storage

INSTRUCTIONS: Final = {"select": 0xA4, "verify": 0x20, "get-data": 0xCB, "authenticate": 0x87, "get-response": 0xC0}
_FILE: Final = "accidents.json"


class Accident(StrEnum):
    """What the next command of an instruction meets."""

    NONE = "none"
    """Nothing: lets a command pass that comes before the one meant."""
    REMOVE = "remove"
    """The card is pulled before it answers."""
    REFUSE = "refuse"
    """6F00, and nothing done."""
    SLOW = "slow"
    """The right answer, a second late."""
    GARBAGE = "garbage"
    """9000 with bytes that are no TLV."""
    FLIP = "flip"
    """One bit in the middle of the right answer is wrong."""
    ENDLESS = "endless"
    """The answer never ends: every GET RESPONSE promises more."""
    WRONG_LE = "wrong-le"
    """6C00: say it again with another Le."""


def script(folder: Path, instruction: str, accidents: Iterable[Accident]) -> None:
    """Append accidents for an instruction; durable. An unknown one is a mistake of the test: KeyError."""
    plan = _load(folder)
    plan.setdefault(str(INSTRUCTIONS[instruction]), []).extend(accidents)
    storage.put_json(folder / _FILE, plan)


def take(folder: Path, instruction: int) -> Accident:
    """The next accident of this instruction, which is then used up."""
    plan = _load(folder)
    waiting = plan.get(str(instruction), [])
    if not waiting:
        return Accident.NONE
    accident = Accident(waiting.pop(0))
    storage.put_json(folder / _FILE, plan)
    return accident


def _load(folder: Path) -> dict[str, list[str]]:
    path = folder / _FILE
    plan: dict[str, list[str]] = storage.get_json(path) if path.exists() else {}
    return plan
