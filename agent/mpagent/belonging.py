"""Whether a disk belongs to the chip it runs on (design promise P12), and to the parts the enrollment began with."""

from collections.abc import Collection, Mapping
from typing import Final

from mpagent.errors import ConfigWrong, ForeignDisk, HardwareGone
from mpagent.hal.ports import Board, Soc
from mpagent.image import Image
from mpagent.proof import name_board
from mpagent.record import Record, Stage
from mpwire.ueid import make_ueid

_KEPT: Final = ("attest", "seal", "keys", "counter")
"""The choices a Proof and a vault depend on."""
NAMED_BY_FUSES: Final = ("mp", "sim")
"""Backends of attest that need not be asked to know the board: a production image shuts the MP engine."""
FOREIGN: Final = "this disk belongs to another board: its record names another chip"


def note_choice(board: Board) -> Mapping[str, str]:
    """What a record keeps of the backends in use."""
    return {sort: board.chosen[sort] for sort in _KEPT if sort in board.chosen}


def check_flow(record: Record, image: Image) -> None:
    """Raises ConfigWrong for a board that was provisioned in the other way than its image asks for."""
    by_bundles = record.stage is Stage.APPLIED
    if image.mp_use == "secret" and record.stage not in (Stage.BLANK, Stage.APPLIED):
        raise ConfigWrong('this board was enrolled over a line, and its image says mp_use = "secret"')
    if image.mp_use != "secret" and by_bundles:
        raise ConfigWrong('this board was provisioned by bundles, and its image does not say mp_use = "secret"')


def check_chip(record: Record, board: Board) -> None:
    """Changes nothing: back on its board, or with its part working again, the disk is whole.

    Raises ForeignDisk when the record names another chip, HardwareGone when another backend is in use than before.
    """
    check_choice(record, board.chosen, _KEPT)
    if record.ueid is not None and record.ueid != name_board(board):
        raise ForeignDisk(FOREIGN)


def check_fuses(record: Record, soc: Soc) -> None:
    """`check_chip` for who only reads, on a board that its fuses name: MP is shut in a production image.

    Raises ForeignDisk when the record names another chip, HardwareGone where the fuses cannot be read.
    """
    facts = soc.read_facts()
    if facts.uid is None:
        raise HardwareGone("this board is named by its fuse UID, and the chip gives none")
    if record.ueid != make_ueid("mp", facts.family, facts.uid):
        raise ForeignDisk(FOREIGN)


def check_choice(record: Record, chosen: Mapping[str, str], sorts: Collection[str]) -> None:
    """Raises HardwareGone when a backend of one of these sorts is another than the one the record began with."""
    for sort in sorts:
        before, now = record.chosen.get(sort), chosen.get(sort)
        if before is not None and now != before:
            raise HardwareGone(
                f"this board began with {sort} = {before!r}, and now {now!r} is the first that is there",
                advice=f"bring {before!r} back, or have the OEM approve a rework; mpagent doctor tries each part",
            )
