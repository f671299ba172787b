"""What can be said of a board from its state partition alone: no chip, no network, nothing changed."""

from typing import Any

from mpagent.durable import Damaged, Disk
from mpagent.record import Record
from mpagent.vault import load_generation
from mpwire.limits import CLOSED_MAX_BYTES
from mpwire.messages.plain import CLOSED


def describe_record(record: Record) -> dict[str, Any]:
    """The record's public part."""
    closed = None if record.closed is None else CLOSED.decode(record.closed, CLOSED_MAX_BYTES)
    return {
        "stage": record.stage.value,
        "ueid": None if record.ueid is None else record.ueid.hex(),
        "job": record.job,
        "ledger_index": None if closed is None else closed.leaf_index,
    }


def list_slots(disk: Disk, generation: int) -> list[dict[str, Any]]:
    """Name, kind, destination and version of every slot, still sealed; none before there is a generation.

    Raises Damaged where the generation is gone or is not what was written.
    """
    if not generation:
        return []
    found = load_generation(disk, generation)
    if found is None:
        raise Damaged(f"vault generation {generation} is gone from {disk.folder}")
    return [
        {"name": one.name, "kind": one.kind, "destination": one.destination, "version": one.version}
        for one in found.slots
    ]


def find_slots(disk: Disk, generation: int) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The slots, and what is wrong with them in words: for a command that reports and does not judge."""
    try:
        return list_slots(disk, generation), ()
    except Damaged as damage:
        return [], (str(damage),)
