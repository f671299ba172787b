"""OP-TEE's DIGPROG pseudo-TA: the register that names part and revision (optee_os core/pta/imx/digprog.c)."""

from pathlib import Path
from typing import Final
from uuid import UUID

from mpagent.hal.optee.calls import Command, ask_built_in
from mpagent.hal.optee.records import ValueOut, read_value

DIGPROG: Final = UUID("bfdbe409-3302-4abf-99bc-5f623226a739")
_NAME: Final = "DIGPROG pseudo-TA"
_ANY: Final = 0
"""It takes any command number."""


def read_digprog(node: Path, deadline_s: float) -> int:
    """The 32-bit register as it stands. Raises HardwareAbsent where OP-TEE lacks it, and what calls.ask raises."""
    ((answer,),) = ask_built_in(node, DIGPROG, _NAME, [Command(_ANY, (ValueOut(),))], deadline_s)
    return read_value(answer)
