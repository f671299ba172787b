"""What the board holds when a run begins: the record, and the generation it stands on, unsealed by this chip now."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from mpagent.belonging import FOREIGN, check_chip, note_choice
from mpagent.durable import Damaged, Disk
from mpagent.errors import ConfigWrong, ForeignDisk, Tampered
from mpagent.hal.ports import Board
from mpagent.offline.facts import Facts, read_facts
from mpagent.proof import name_board
from mpagent.record import Record, Stage
from mpagent.slots import VaultSlot
from mpagent.vault import Vault, load_generation
from mpwire.errors import Malformed


class Holdings(NamedTuple):
    """All of it; nothing at first."""

    generation: int = 0
    slots: Mapping[str, VaultSlot] = MappingProxyType({})
    facts: Facts = Facts()
    torn: Mapping[str, VaultSlot] = MappingProxyType({})
    """Slots whose file is not whole: not among `slots`, and not forgotten: what brings one again must not be older.
    While there are any, no bundle counts as taken before."""


def find_holdings(record: Record, board: Board, vault: Vault, disk: Disk) -> Holdings:
    """Whatever became of the record: lost, or cut before it could name the generation that counts.

    Raises ForeignDisk, Tampered, NotMine and what vault and hardware raise. Changes nothing.
    """
    check_chip(record, board)
    number = vault.find_standing(record.generation)
    if number == 0:
        return Holdings()
    ueid = name_board(board)
    _check_owner(disk, number, ueid)
    unlocked = vault.unlock(ueid, number)
    try:
        facts = read_facts(unlocked.read_facts())
    except Malformed as error:
        raise Tampered(f"vault generation {number}: its facts are none of ours: {error}") from error
    if facts is None:
        raise ConfigWrong(f'vault generation {number} was granted over a line, and this image says mp_use = "secret"')
    return Holdings(number, {one.name: one for one in unlocked.read_all()}, facts)


def make_record(record: Record, holdings: Holdings, board: Board) -> Record:
    """The record of a board that stands on these holdings."""
    facts = holdings.facts
    return record._replace(
        stage=Stage.APPLIED,
        ueid=name_board(board),
        generation=holdings.generation,
        job=facts.job,
        grant_digest=facts.last,
        epoch=max(record.epoch, facts.epoch),
        time_floor=max(record.time_floor, facts.of("mp").floor),
        chosen=note_choice(board),
    )


def _check_owner(disk: Disk, number: int, ueid: bytes) -> None:
    """A cloned disk without its record is a foreign one, and no tampering."""
    try:
        found = load_generation(disk, number)
    except Damaged:
        return  # for the vault to say
    if found is not None and found.ueid != ueid:
        raise ForeignDisk(FOREIGN)
