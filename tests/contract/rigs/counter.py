"""Counters under contract, each with its power switch."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, Protocol

from mpagent.hal.ports import Counter
from mpagent.hal.tpm import open_tpm
from mpsim.counter import SoftCounter
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm


class CounterRig(Protocol):
    """One board with a counter."""

    def open(self) -> AbstractContextManager[Counter]:
        """A process starts on this board."""

    def power_cycle(self) -> None:
        """The plug is pulled and put back."""


class SoftCounterRig:
    """A variable, which no disk reaches."""

    def __init__(self) -> None:
        self._counter = SoftCounter()

    @contextmanager
    def open(self) -> Iterator[Counter]:
        yield self._counter

    def power_cycle(self) -> None:
        """Nothing is lost."""


class TpmCounterRig:
    """An NV index of a software TPM."""

    def __init__(self, tpm: SoftTpm) -> None:
        self._tpm = tpm

    @contextmanager
    def open(self) -> Iterator[Counter]:
        with open_tpm(self._tpm.tcti, MemoryShelf()) as parts:
            yield parts.counter

    def power_cycle(self) -> None:
        self._tpm.power_cycle()


@contextmanager
def _make_soft(_folder: Path) -> Iterator[CounterRig]:
    yield SoftCounterRig()


@contextmanager
def _make_tpm(folder: Path) -> Iterator[CounterRig]:
    with SoftTpm(folder) as tpm:
        yield TpmCounterRig(tpm)


@contextmanager
def _make_used_tpm(folder: Path) -> Iterator[CounterRig]:
    """Somebody else's counter stood at 3 when ours was made: it begins above that."""
    with SoftTpm(folder) as tpm:
        tpm.use_tool("tpm2_nvdefine", "0x01800001", "-C", "o", "-a", "nt=counter|ownerread|ownerwrite|no_da")
        for _ in range(3):
            tpm.use_tool("tpm2_nvincrement", "0x01800001", "-C", "o")
        yield TpmCounterRig(tpm)


COUNTERS: Final[Mapping[str, Callable[[Path], AbstractContextManager[CounterRig]]]] = {
    "soft": _make_soft,
    "tpm-nv": _make_tpm,
    "tpm-nv-of-a-used-tpm": _make_used_tpm,
}
