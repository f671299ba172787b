"""Slots for readers that do not hold the state folder, so that an enrollment is never kept waiting by them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from mpagent.belonging import NAMED_BY_FUSES, check_chip, check_choice, check_fuses
from mpagent.compose import Device
from mpagent.errors import Tampered
from mpagent.journal import Journal
from mpagent.record import HOLDS_SECRETS, Record
from mpagent.shelf import DiskShelf
from mpagent.vault import Unlocked, Vault
from mpwire.errors import MpError, Retry
from mpwire.secret import Secret

TRIES: Final = 3
"""Generations that one reader follows: nobody writes that many while it reads one."""
Standing = tuple[bytes | None, int]
"""The record's ueid and vault generation."""


class Unprovisioned(MpError):
    """There is nothing to get yet; a unit that waits for a secret is to be started again."""

    exit_code, retry = 75, Retry.LATER


class NoSuchSlot(MpError):
    """The board is provisioned, and its Grant had no slot of this name."""

    exit_code, retry = 77, Retry.OPERATOR


class SlotSource:
    """Values while record, latch and chip agree. Keeps one key in memory: that of the generation it opened last."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._journal = _open_journal(device)
        self._standing: Standing | None = None
        self._unlocked: Unlocked | None = None

    def read(self, slot: str) -> Secret:
        """The value, from memory if the board stands where it stood. Raises as `unlock`, and NoSuchSlot."""
        record = self._read_record()
        standing = (record.ueid, record.generation)
        if self._unlocked is None or self._standing != standing:
            self._unlocked = None
            self._unlocked, self._standing = unlock(self._device)
        if slot not in self._unlocked.names:
            raise NoSuchSlot(f"this board holds no slot {slot!r}")
        return self._unlocked.read(slot).value

    def _read_record(self) -> Record:
        try:
            return _read_finished(self._device, self._journal)
        except MpError:
            self._unlocked = None  # latched, or enrolling anew: what was opened before says nothing any more
            raise


def unlock(device: Device) -> tuple[Unlocked, Standing]:
    """Every slot, opened by this chip now, and what they are of.

    The state folder is not held, so what looks like tampering may be another mpagent that replaces the generation:
    where the record names another one by now, that one is tried; else it counts, and latches, only when it is found
    again while nobody is at work. Raises Busy where somebody is, Unprovisioned, ForeignDisk, NotMine, Tampered and
    what the hardware raises.
    """
    journal = _open_journal(device)
    record = _read_finished(device, journal)
    for _ in range(TRIES):
        try:
            return _unlock(device, record)
        except Tampered:
            before, record = record.generation, _read_finished(device, journal)
            if record.generation == before:
                break
    with device.hold("secret"):
        record = _read_finished(device, journal)
        try:
            return _unlock(device, record, aside=True)
        except Tampered as why:
            device.latch.close(why)
            raise


def _unlock(device: Device, record: Record, aside: bool = False) -> tuple[Unlocked, Standing]:
    assert record.ueid is not None  # checked by _read_finished
    with _open_vault(device, record) as vault:
        if aside:
            vault.read(record.ueid, record.generation)  # sets aside what is damaged
        return vault.unlock(record.ueid, record.generation), (record.ueid, record.generation)


@contextmanager
def _open_vault(device: Device, record: Record) -> Iterator[Vault]:
    """The vault, once this chip is found to be the record's. Opens no part that reading does not need.

    Which backend attested is the record's word: whatever it says, only the chip that sealed the vault opens it.
    """
    from mpagent.hal.choose import open_bench  # hardware libraries are imported by the backend in use

    if record.chosen.get("attest") not in NAMED_BY_FUSES:
        with device.open_board() as board:
            check_chip(record, board)
            yield device.vault(board)
        return
    with open_bench(device.choice, device.places.root, DiskShelf(device.disk)) as bench:
        check_fuses(record, bench.soc[1])
        chosen, counter = {"seal": bench.sealer[0]}, None
        if device.choice.counter:
            chosen["counter"], counter = bench.counter
        check_choice(record, chosen, ("seal", "counter"))
        yield Vault(device.disk, bench.sealer[1], counter, os.urandom)


def _read_finished(device: Device, journal: Journal) -> Record:
    """Raises Tampered when latched, Unprovisioned before the vault counts."""
    device.latch.check()
    record, _ = journal.peek()
    if record.stage not in HOLDS_SECRETS or record.ueid is None:
        raise Unprovisioned("this board holds no secrets yet: run mpagent enroll")
    return record


def _open_journal(device: Device) -> Journal:
    return device.journal(lambda _text: None)
