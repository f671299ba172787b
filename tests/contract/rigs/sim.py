"""The simulated i.MX8M, with keys sealed to it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from mpagent.hal import ports
from mpagent.hal.choose import BoardChoice, open_board
from mpsim import fuses, silicon
from mpsim.board import BoardPlan, make_board, power_cycle
from mpsim.shelf import MemoryShelf
from mpwire import mp


class SimRig:
    """A closed imx8mm in a folder."""

    def __init__(self, folder: Path, *, secret: bool = False) -> None:
        make_board(folder, BoardPlan(closed=True))
        self._secret = secret
        self._chip = folder / "chip"
        self.shelf = MemoryShelf()

    def open(self, shelf: MemoryShelf | None = None) -> AbstractContextManager[ports.Board]:
        choice = BoardChoice(
            attest=("sim",),
            seal=("sim",),
            keys=("sealed",),
            soc=("sim",),
            sim_chip=self._chip,
            mp_secret=self._secret,
        )
        return open_board(choice, Path("/"), self.shelf if shelf is None else shelf)

    def power_cycle(self) -> None:
        power_cycle(self._chip)

    def check(self, material: ports.AttesterMaterial, attestation: ports.Attestation, message: bytes) -> None:
        point = b"\x04" + silicon.class_public_key("imx8mm", fuses.srk_hash_of("lab"))[-64:]
        assert material.attester_id == mp.key_id(point)
        assert attestation.mpmr is not None
        mp.verify_mp(point, message, attestation.mpmr, attestation.signature)


@contextmanager
def make_sim(folder: Path) -> Iterator[SimRig]:
    """A closed board, powered on."""
    yield SimRig(folder)


@contextmanager
def make_secret_sim(folder: Path) -> Iterator[SimRig]:
    """The same where the MP public key is a secret."""
    yield SimRig(folder, secret=True)
