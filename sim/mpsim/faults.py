"""Accidents to come, written down in the chip's folder, so that a test can script another process's board.

Each call of a verb takes the next fault scripted for it; a verb without faults works. Verbs are those of the ports:
read_facts, describe, attest, extract, seal, unseal.
"""

import os
import signal
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Final, NoReturn

from mpsim import storage
from mpsim.storage import BoardBroke

VERBS: Final = ("read_facts", "describe", "attest", "extract", "seal", "unseal")


class Fault(StrEnum):
    """What the next call of a verb meets."""

    BUSY = "busy"
    """HardwareBusy; nothing happens in the chip."""
    GONE = "gone"
    """HardwareGone; nothing happens in the chip."""
    ZERO = "zero"
    """The chip answers with zero bytes, as OP-TEE does when the MPMR was locked before it started."""
    FLIP = "flip"
    """One bit of the answer is wrong."""
    LOSE_POWER_BEFORE = "lose-power-before"
    """The calling process dies (SIGKILL) before the chip is touched."""
    LOSE_POWER_AFTER = "lose-power-after"
    """The calling process dies (SIGKILL) after the chip answered and before anybody heard it."""


def script(chip: Path, verb: str, accidents: Iterable[Fault]) -> None:
    """Append faults for a verb; durable. An unknown verb is a mistake of the test: ValueError."""
    if verb not in VERBS:
        raise ValueError(f"no such verb: {verb}")
    plan = _load(chip)
    plan.setdefault(verb, []).extend(accidents)
    _save(chip, plan)


def take(chip: Path, verb: str) -> Fault | None:
    """The next fault of this verb, which is then used up."""
    plan = _load(chip)
    waiting = plan.get(verb)
    if not waiting:
        return None
    fault = waiting.pop(0)
    _save(chip, plan)
    return fault


def lose_power() -> NoReturn:
    """End this process as a power cut does: nothing is flushed, nothing is said."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit  # not reached: SIGKILL cannot be held off


def _load(chip: Path) -> dict[str, list[Fault]]:
    path = chip / "faults.json"
    if not path.exists():
        return {}
    value = storage.get_json(path)
    try:
        return {str(verb): [Fault(fault) for fault in waiting] for verb, waiting in value.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise BoardBroke(f"{path} is damaged") from error


def _save(chip: Path, plan: dict[str, list[Fault]]) -> None:
    storage.put_json(chip / "faults.json", plan)
