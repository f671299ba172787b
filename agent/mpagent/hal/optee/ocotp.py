"""OP-TEE's OCOTP pseudo-TA: fuses without root and without opening the fuse file (optee_os core/pta/imx/ocotp.c).

On i.MX6, 7 and 8M. Nothing here is signed: it says what the secure world reads, to whoever asks Linux.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast
from uuid import UUID

from mpagent.errors import HardwareGone
from mpagent.hal.optee.calls import Command, ask_built_in
from mpagent.hal.optee.records import Answer, MemoryOut, ValueIn, ValueOut, read_value

OCOTP: Final = UUID("9abdf255-d8fa-40de-8f60-4d0b27927b7d")
UID_BYTES: Final = 8
"""The pseudo-TA takes no other size."""
_CHIP_UID: Final = 0
_READ_FUSE: Final = 1
_NAME: Final = "OCOTP pseudo-TA"


def read_chip_uid(node: Path, deadline_s: float) -> bytes:
    """CHIP_UID as OP-TEE gives it, 8 bytes: fuse words 1 and 2 of bank 0, little-endian each, in that order.

    On 8MQ, 8MM and 8MN these are the bytes of the UID in nvmem, which prints the other way round. On 8MP it is not the
    UID: Linux reads words 2 and 3 there, so use read_fuses. Raises HardwareAbsent where OP-TEE lacks the pseudo-TA, and
    what calls.ask raises.
    """
    ((uid,),) = ask_built_in(node, OCOTP, _NAME, [Command(_CHIP_UID, (MemoryOut(UID_BYTES),))], deadline_s)
    return check_uid(uid)


def check_uid(answer: Answer) -> bytes:
    """Raises HardwareGone unless it has UID_BYTES."""
    uid = cast(bytes, answer)
    if len(uid) != UID_BYTES:
        raise HardwareGone(f"the {_NAME} gave a UID of {len(uid)} bytes, and not {UID_BYTES}")
    return uid


def read_fuses(node: Path, places: Sequence[tuple[int, int]], deadline_s: float) -> tuple[int, ...]:
    """The 32-bit fuse words at these places (bank, word), in one session; raises as read_chip_uid does.

    A word that is locked against reading comes as the fuse block gives it: that is for the caller to know.
    """
    commands = [Command(_READ_FUSE, (ValueIn(bank, word), ValueOut())) for bank, word in places]
    answers = ask_built_in(node, OCOTP, _NAME, commands, deadline_s)
    return tuple(read_value(word) for _, word in answers)
