"""The part and its device tree."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mpagent.checkup.desk import Desk
from mpagent.checkup.finding import EX_OPERATOR, Finding, State
from mpagent.checkup.question import Question
from mpagent.hal.ports import LifeCycle, Provenance
from mpagent.hal.soc import Report

TREE: Final = "proc/device-tree"
_JOB_RINGS: Final = "jr@*"
_SOURCES: Final = {Provenance.KERNEL: "the kernel", Provenance.SECURE_WORLD: "OP-TEE"}
_FUSES: Final = {
    LifeCycle.OPEN: (State.NOTE, "not blown: an open part, whose keys are public test keys"),
    LifeCycle.CLOSED_PENDING_REBOOT: (State.OK, "blown; whether this boot is closed, `life cycle` says"),
    LifeCycle.FIELD_RETURN: (State.NOTE, "field return: no key of this part is worth anything any more"),
}
"""What fuses alone can tell."""


def ask_silicon(desk: Desk) -> Iterator[Question]:
    """The kernel's files alone, and OP-TEE's OCOTP PTA where it answers."""
    needed, asked = desk.wants("soc", "imx"), desk.asks(("soc",), ("imx",))
    yield Question("part", lambda: describe_part(desk.open_imx().read_report()), needed=needed, asked=asked)
    yield Question("device tree", lambda: look_at_tree(desk), needed=False)


def describe_part(report: Report) -> Iterator[Finding]:
    """Its name, and a line for each thing it does not tell."""
    identity, facts, hab = report.identity, report.facts, report.identity.layout.hab
    uid = "not readable" if facts.uid is None else facts.uid.hex()
    srk_hash = "none" if facts.srk_hash is None else facts.srk_hash.hex()
    revision = identity.revision or "of unknown revision"
    by = f"; fuses read by {' and '.join(_SOURCES[one] for one in report.sources)}" if report.sources else ""
    yield Finding("part", State.OK, f"{facts.family} {revision}, uid {uid}{by}")
    yield Finding("SRK hash", State.OK if facts.srk_hash else State.NOTE, srk_hash)
    if hab and facts.life_cycle is not None:
        state, text = _FUSES[facts.life_cycle]
        yield Finding("closed fuse", state, text)
    for note in report.notes:
        if not (hab and note.startswith("life cycle")):  # `life cycle` asks the witnesses too
            yield Finding("part", State.NOTE, note)


def look_at_tree(desk: Desk) -> Finding:
    """CAAM and its job rings as Linux was given them: OP-TEE keeps one for itself and takes it off the tree."""
    identity, tree = desk.part, desk.root / TREE
    if identity is None:
        return Finding("device tree", State.MISSING, "not asked: no i.MX that we know")
    address = identity.layout.caam
    if address is None:
        return Finding("device tree", State.OK, f"{identity.layout.family} has no CAAM, and needs none in the tree")
    if not tree.is_dir():
        return Finding("device tree", State.MISSING, f"{tree} is not there", "mount /proc; boot with a device tree")
    node = next((one for one in tree.rglob(f"crypto@{address:x}") if one.is_dir()), None)
    if node is None or not _is_enabled(node):
        return Finding(
            "device tree",
            State.BROKEN,
            f"CAAM at {address:x} is {'missing' if node is None else 'disabled'}",
            f"use the device tree of {identity.layout.family}, with crypto@{address:x} enabled",
            EX_OPERATOR if _needs_caam(desk) else 0,
        )
    rings = sorted(one.name for one in node.glob(_JOB_RINGS) if _is_enabled(one))
    if not rings:
        return Finding(
            "device tree",
            State.BROKEN,
            f"CAAM at {address:x} has no job ring for Linux",
            "leave Linux a job ring: OP-TEE needs one, not all (CFG_CAAM_JR_DISABLE_NODE)",
            EX_OPERATOR if _needs_caam(desk) else 0,
        )
    return Finding("device tree", State.OK, f"CAAM at {address:x}, {' '.join(rings)} for Linux")


def _needs_caam(desk: Desk) -> bool:
    return desk.wants("seal", "caam")


def _is_enabled(node: Path) -> bool:
    """Devicetree Specification section 2.3.4: no status means okay."""
    try:
        status = (node / "status").read_bytes().rstrip(b"\0")
    except OSError:
        return True
    return status in (b"okay", b"ok")
