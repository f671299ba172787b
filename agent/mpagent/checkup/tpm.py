"""The TPM: its lockout and its room."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from mpagent.checkup.desk import Desk
from mpagent.checkup.finding import Finding, State
from mpagent.checkup.question import Question
from mpagent.shelf import DiskShelf

_FIRST: Final = 0x200
"""TPM_PT_PERMANENT and what follows up to LOCKOUT_RECOVERY (TPM 2.0 Library, Part 2, section 6.13)."""
_COUNT: Final = 0x12
_PERMANENT, _LOADED_AVAIL, _TRANSIENT_AVAIL, _COUNTERS_AVAIL = 0x200, 0x204, 0x207, 0x20B
_TRIES, _TRIES_MAX, _INTERVAL_S = 0x20E, 0x20F, 0x210
_IN_LOCKOUT: Final = 1 << 9
"""TPMA_PERMANENT.inLockout (Part 2, section 8.6)."""
_SLOTS_NEEDED: Final = 3


def ask_tpm(desk: Desk) -> Iterator[Question]:
    """Where the image says where its TPM is, or the kernel shows one."""
    tcti = None if desk.device is None else desk.device.choice.tpm_tcti
    if tcti is not None:
        yield Question("TPM", lambda: _look(desk, tcti), needed=False)  # who needs it says so under its own name
    elif (desk.root / "dev/tpmrm0").exists():
        yield Question("TPM", lambda: Finding("TPM", State.NOTE, "/dev/tpmrm0 is there, and this image names no TPM"))


def _look(desk: Desk, tcti: str) -> Iterator[Finding]:
    from mpagent.hal.tpm import open_tpm

    with open_tpm(tcti, DiskShelf(desk.disk)) as parts:
        figures = parts.chip.read_properties(_FIRST, _COUNT)
        yield describe_lockout(figures)
        yield describe_room(figures, managed=Path(tcti).name == "tpmrm0")


def describe_lockout(figures: Mapping[int, int]) -> Finding:
    """Our objects are noDA: a lockout is somebody else's failed tries, and stops those of others."""
    tries, high, interval_s = (figures.get(number, 0) for number in (_TRIES, _TRIES_MAX, _INTERVAL_S))
    if figures.get(_PERMANENT, 0) & _IN_LOCKOUT:
        cause = f"in dictionary-attack lockout after {tries} failed tries; what we make is exempt"
        return Finding("TPM", State.NOTE, cause, f"one try comes back every {interval_s} s; its owner ends it at once")
    return Finding("TPM", State.OK, f"answers; {tries} of {high} failed tries")


def describe_room(figures: Mapping[int, int], *, managed: bool) -> Finding:
    """What one process finds free; a resource manager swaps for us."""
    objects, sessions = figures.get(_TRANSIENT_AVAIL, 0), figures.get(_LOADED_AVAIL, 0)
    counters = figures.get(_COUNTERS_AVAIL, 0)
    text = f"room for {objects} objects, {sessions} sessions, {counters} NV counters"
    if not managed and min(objects, sessions) < _SLOTS_NEEDED:
        return Finding("TPM room", State.NOTE, text, "end the other programs that use the TPM, or use /dev/tpmrm0")
    return Finding("TPM room", State.OK, text)
