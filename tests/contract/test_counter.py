"""ports.Counter: what every counter promises, to itself and to the vault that stands on it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpagent.durable import Disk
from mpagent.errors import Tampered
from mpagent.hal.ports import Sealer
from mpagent.slots import VaultSlot
from mpagent.vault import Vault
from mpsim.backend import open_sealer
from mpsim.board import BoardPlan, make_board
from mpwire.secret import Secret
from tests.contract.rigs.counter import COUNTERS, CounterRig

UEID = b"\x01" + bytes(32)
OLD = (VaultSlot("disk", "local", "sealed", 1, Secret(b"the first key of this disk......")),)
NEW = (VaultSlot("disk", "local", "sealed", 2, Secret(b"the second key of this disk.....")),)


@pytest.fixture(params=COUNTERS)
def counters(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CounterRig]:
    """The counter under contract."""
    with COUNTERS[request.param](tmp_path / "counter") as rig:
        yield rig


@pytest.fixture
def sealer(tmp_path: Path) -> Sealer:
    """Of another chip than the counter: both ports are there on their own."""
    make_board(tmp_path / "board", BoardPlan(closed=True))
    return open_sealer(tmp_path / "board/chip")


def test_counter_rises_and_stays(counters: CounterRig) -> None:
    with counters.open() as counter:
        before = counter.read()
        counter.raise_to(before + 3)
        assert counter.read() == before + 3 == counter.read()


def test_counter_stays_after_a_restart_and_a_power_cut(counters: CounterRig) -> None:
    """The power fails right after the count, with the process still running."""
    with counters.open() as counter:
        raised = counter.read() + 1
        counter.raise_to(raised)
        counters.power_cycle()
    for _ in range(3):
        with counters.open() as counter:
            assert counter.read() == raised
        counters.power_cycle()
    with counters.open() as counter:
        assert counter.read() == raised


def test_counter_never_falls(counters: CounterRig) -> None:
    """Whoever restores an old disk has it say a lower number."""
    with counters.open() as counter:
        before = counter.read()
        counter.raise_to(before + 3)
        for lower in (before + 3, before + 1, 0):
            counter.raise_to(lower)
            assert counter.read() == before + 3


def test_receipts_know_the_counter_by_a_name_that_fits(counters: CounterRig) -> None:
    with counters.open() as counter:
        assert 1 <= len(counter.kind.encode()) <= 16 and counter.kind != "none"


def open_vault(folder: Path, sealer: Sealer, counters: CounterRig) -> tuple[Vault, "CounterOfEachCall"]:
    counter = CounterOfEachCall(counters)
    return Vault(Disk(folder), sealer, counter, os.urandom), counter


class CounterOfEachCall:
    """Every call in a process of its own."""

    kind: str = "each"

    def __init__(self, counters: CounterRig) -> None:
        self._counters = counters

    def read(self) -> int:
        with self._counters.open() as counter:
            return counter.read()

    def raise_to(self, value: int) -> None:
        with self._counters.open() as counter:
            counter.raise_to(value)


def test_vault_takes_the_counter_as_it_stands_and_counts_once_a_generation(
    tmp_path: Path, sealer: Sealer, counters: CounterRig
) -> None:
    """The first generation is one above wherever the chip begins; flash wears by one step for each."""
    vault, counter = open_vault(tmp_path / "state", sealer, counters)
    begin = counter.read()
    first = vault.write(UEID, OLD, above=0)
    second = vault.write(UEID, NEW, above=first)
    assert (first, second, counter.read()) == (begin + 1, begin + 2, begin + 2)
    counters.power_cycle()
    assert vault.read(UEID, second) == NEW


def test_restored_old_disk_is_noticed(tmp_path: Path, sealer: Sealer, counters: CounterRig) -> None:
    """T-284 Rollback: the whole state partition of yesterday, record and vault together, on today's board."""
    state, copy = tmp_path / "state", tmp_path / "copy"
    vault, _ = open_vault(state, sealer, counters)
    first = vault.write(UEID, OLD, above=0)
    shutil.copytree(state, copy)
    second = vault.write(UEID, NEW, above=first)
    vault.discard_others(second)
    shutil.rmtree(state)
    copy.rename(state)
    counters.power_cycle()
    restored, _ = open_vault(state, sealer, counters)
    with pytest.raises(Tampered, match="is not the one the board's each names"):
        restored.read(UEID, first)


def test_cut_between_count_and_record_costs_one_generation(
    tmp_path: Path, sealer: Sealer, counters: CounterRig
) -> None:
    """The record that names the generation was never written; the board goes on instead of calling it tampering."""
    vault, counter = open_vault(tmp_path / "state", sealer, counters)
    lost = vault.write(UEID, OLD, above=0)
    counters.power_cycle()
    again = vault.write(UEID, OLD, above=0)
    vault.discard_others(again)
    assert again == lost + 1 == counter.read()
    assert vault.read(UEID, again) == OLD
