"""Power cuts of a board: where they fall between switching it on and PASS, and what a run of them came to."""

import random
import sqlite3
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from tests.qemu.board import Board
from tests.qemu.factory import PASS_MAX_S, Line
from tests.qemu.guest import BOOT_MAX_S, Guest, GuestBroke

PHASES: Final = ("boot", "start", "exchange", "sealing", "closing")
"""From power to the first unit of multi-user.target; to the first connection; to the Grant in the ledger; to the
receipt in the ledger; to the target. Each begins where the one before ended."""
_POLL_S: Final = 0.01


class Cut(NamedTuple):
    """One cut, and where the enrollment stood then."""

    number: int
    phase: str
    partition: str
    at_s: float
    """After QEMU's start."""
    ledger: str
    """What the server knew: nothing, granted, closed."""


def find_state(line: Line, before: int) -> str:
    """What the ledger has of the board that came after `before` others."""
    file = f"file:{line.office.state / 'ledger.db'}?mode=ro"
    connection = sqlite3.connect(file, uri=True)
    try:
        units, closed = connection.execute("SELECT count(*), total(closed IS NOT NULL) FROM units").fetchone()
    finally:
        connection.close()
    return "nothing" if units <= before else "closed" if closed > before else "granted"


def measure_phases(line: Line, board: Board) -> dict[str, float]:
    """How long each phase of a whole first boot takes here and now, in seconds."""
    ends: list[float] = []
    before = line.office.counted()
    began = time.monotonic()
    guest = Guest(board, "provision", bare=False, options="")
    guest.power_on()
    try:
        for phase in PHASES:
            _await_end(phase, line, board, guest, before)
            ends.append(time.monotonic() - began)
    finally:
        guest.cut_power()
    return dict(zip(PHASES, (end - start for start, end in zip([0.0, *ends], ends, strict=False)), strict=True))


def cut(number: int, line: Line, board: Board, phases: dict[str, float], chance: random.Random) -> Cut:
    """Switch the board on and cut its power somewhere in a phase; the phases take turns."""
    phase = PHASES[number % len(PHASES)]
    before = line.office.counted()
    guest = Guest(board, "provision", bare=False, options="")
    began = time.monotonic()
    guest.power_on()
    try:
        for earlier in PHASES[: PHASES.index(phase)]:
            _await_end(earlier, line, board, guest, before)
        time.sleep(chance.random() * phases[phase])
    finally:
        guest.cut_power()
    found = find_state(line, before)
    return Cut(number, phase, board.partition.value, round(time.monotonic() - began, 2), found)


def _await_end(phase: str, line: Line, board: Board, guest: Guest, before: int) -> None:
    if phase == "boot":
        guest.wait_for("BENCH-BEGIN", BOOT_MAX_S)
    elif phase == "start":
        _await(lambda: board.calls() > 0, guest)
    elif phase == "exchange":
        _await(lambda: find_state(line, before) != "nothing", guest)
    elif phase == "sealing":
        _await(lambda: find_state(line, before) == "closed", guest)
    else:
        guest.wait_for("BENCH-PROVISIONED", PASS_MAX_S)


def _await(true: Callable[[], bool], guest: Guest) -> None:
    deadline = time.monotonic() + PASS_MAX_S
    while not true():
        if time.monotonic() > deadline:
            raise GuestBroke(f"the board came no further; its console:\n{guest.console()[-3000:]}")
        time.sleep(_POLL_S)
