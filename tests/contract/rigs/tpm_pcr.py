"""A software TPM that measures what its board boots: a sealer bound to what the OEM approved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpagent.hal import ports
from mpagent.hal.choose import NoSoc
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from tests.mpagent.measured import MeasuredBoard

SOFTWARE = "approved loader"


class MeasuredRig:
    """Boots the same approved software at every power cycle."""

    def __init__(self, board: MeasuredBoard) -> None:
        self._board = board
        self.shelf = MemoryShelf()
        board.approve(SOFTWARE)
        board.boot(SOFTWARE)

    @contextmanager
    def open(self, shelf: MemoryShelf | None = None) -> Iterator[ports.Board]:
        with self._board.open(self.shelf if shelf is None else shelf) as parts:
            yield ports.Board(NoSoc(), parts.attester, parts.sealer, parts.keyring)

    def power_cycle(self) -> None:
        self._board.boot(SOFTWARE)

    def check(self, material: ports.AttesterMaterial, attestation: ports.Attestation, message: bytes) -> None:
        raise NotImplementedError("its attester is the one of rigs/tpm.py, and under contract there")


@contextmanager
def make_measured(folder: Path) -> Iterator[MeasuredRig]:
    """Sealed keys bound to approved software."""
    with SoftTpm(folder / "tpm") as tpm:
        yield MeasuredRig(MeasuredBoard(tpm, folder / "pcrs"))
