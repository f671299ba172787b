"""Whether a disk belongs to the chip it runs on (design promise P12)."""

from mpagent.errors import ForeignDisk
from mpagent.hal.ports import Board
from mpagent.proof import name_board
from mpagent.record import Record


def check_chip(record: Record, board: Board) -> None:
    """Raises ForeignDisk when the record names another chip. Changes nothing: back on its board the disk is whole."""
    if record.ueid is not None and record.ueid != name_board(board):
        raise ForeignDisk("this disk belongs to another board: its record names another chip")
