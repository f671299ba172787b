"""Whether a disk belongs to the chip it runs on (design promise P12), and to the parts the enrollment began with."""

from collections.abc import Mapping
from typing import Final

from mpagent.errors import ForeignDisk, HardwareGone
from mpagent.hal.ports import Board
from mpagent.proof import name_board
from mpagent.record import Record

_KEPT: Final = ("attest", "seal", "keys", "counter")
"""The choices a Proof and a vault depend on."""


def note_choice(board: Board) -> Mapping[str, str]:
    """What a record keeps of the backends in use."""
    return {sort: board.chosen[sort] for sort in _KEPT if sort in board.chosen}


def check_chip(record: Record, board: Board) -> None:
    """Changes nothing: back on its board, or with its part working again, the disk is whole.

    Raises ForeignDisk when the record names another chip, HardwareGone when another backend is in use than before.
    """
    for sort, before in record.chosen.items():
        now = board.chosen.get(sort)
        if now != before:
            raise HardwareGone(
                f"this board began with {sort} = {before!r}, and now {now!r} is the first that is there",
                advice=f"bring {before!r} back, or have the OEM approve a rework; mpagent doctor tries each part",
            )
    if record.ueid is not None and record.ueid != name_board(board):
        raise ForeignDisk("this disk belongs to another board: its record names another chip")
