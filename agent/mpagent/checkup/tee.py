"""OP-TEE: is it there, and what was built into it as far as it shows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import UUID

from mpagent.checkup.desk import CALL_S, Desk
from mpagent.checkup.finding import Finding, State
from mpagent.checkup.question import Question
from mpagent.checkup.silicon import TREE
from mpagent.errors import HardwareAbsent, HardwareGone
from mpagent.hal import attestation
from mpagent.hal.mp import door
from mpagent.hal.optee import NobodyAnswered, TeeFailed, ask, check_node
from mpagent.hal.optee.digprog import DIGPROG
from mpagent.hal.optee.faults import ACCESS_DENIED, ITEM_NOT_FOUND
from mpagent.hal.optee.ocotp import OCOTP

_APPLICATIONS: Final = {
    "MP": door.PTA,
    "OCOTP": OCOTP,
    "DIGPROG": DIGPROG,
    "attestation": attestation.PTA,
    "PKCS#11": UUID("fd02c9da-306c-48c7-a49c-bbd827ae86ee"),
}
"""What a board may want of OP-TEE. On i.MX upstream builds in all but MP (optee_os core/arch/arm/plat-imx/conf.mk)."""
_USERS: Final = ("mp", "optee")
"""Attesters behind it. A sealer that needs OP-TEE (a token's module, the kernel's source tee) says so itself."""


def ask_tee(desk: Desk) -> Iterator[Question]:
    """The node first: without it the rest has no answer."""
    needed = bool(desk.names("attest")) and set(desk.names("attest")) <= set(_USERS)
    yield Question("OP-TEE", lambda: look_at_node(desk), needed=needed, asked=desk.asks(("attest",), _USERS))
    yield Question("OP-TEE build", lambda: list_build(desk), deadline_s=CALL_S * (len(_APPLICATIONS) + 1), needed=False)


def look_at_node(desk: Desk) -> Finding:
    """Its release does not show to Linux: the boot log has it."""
    try:
        check_node(desk.node)
    except HardwareAbsent as absent:
        announced = (desk.root / TREE / "firmware/optee").is_dir()
        where = "; the device tree has firmware/optee, so its driver is missing" if announced else ""
        raise HardwareAbsent(f"{absent}{where}", advice=absent.advice) from absent
    return Finding("OP-TEE", State.OK, f"answers at {desk.node}; its release stands in the boot log")


def list_build(desk: Desk) -> Finding:
    """Which applications open, one try each."""
    try:
        check_node(desk.node)
    except HardwareGone:
        return Finding("OP-TEE build", State.MISSING, "not asked: OP-TEE cannot be reached")
    answers = {name: _try(desk.node, uuid) for name, uuid in _APPLICATIONS.items()}
    there = [f"{name}{note}" for name, (opens, note) in answers.items() if opens]
    absent = [f"{name}{note}" for name, (opens, note) in answers.items() if not opens]
    text = f"has {', '.join(there) or 'nothing we know'}" + (f"; not {', '.join(absent)}" if absent else "")
    return Finding("OP-TEE build", State.OK, text)


def _try(node: Path, uuid: UUID) -> tuple[bool, str]:
    """Whether it is there, and what else to say of it."""
    try:
        ask(node, uuid, (), CALL_S)
    except NobodyAnswered:
        return False, " (tee-supplicant is silent)"
    except TeeFailed as failed:
        if failed.result == ITEM_NOT_FOUND:
            return False, ""
        return True, " (refuses Linux)" if failed.result == ACCESS_DENIED else f" ({failed})"
    return True, ""
