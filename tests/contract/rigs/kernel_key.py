"""A simulated i.MX8M whose sealer is a kernel's trusted key; kernel and CAAM are imitated (mpsim.kernel_keys)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpagent.hal import ports
from mpagent.hal.caam import open_kernel_key
from mpagent.hal.software import SealedKeyring
from mpsim import backend
from mpsim.board import BoardPlan, make_board
from mpsim.kernel_keys import SoftKernel, SoftWrapper
from mpsim.shelf import MemoryShelf


class KernelKeyRig:
    """A closed part; source caam."""

    def __init__(self, folder: Path) -> None:
        make_board(folder / "soc", BoardPlan(closed=True))
        self._chip = folder / "soc" / "chip"
        self._root = folder / "root"
        self._kernel = SoftKernel(self._root, "caam")
        self.shelf = MemoryShelf()

    @contextmanager
    def open(self, shelf: MemoryShelf | None = None) -> Iterator[ports.Board]:
        wrapper = SoftWrapper(self._kernel)
        sealer = open_kernel_key(["caam"], root=self._root, keys=self._kernel, wrapper=wrapper)
        yield ports.Board(
            soc=backend.open_soc(self._chip),
            attester=backend.open_attester(self._chip),
            sealer=sealer,
            keyring=SealedKeyring(sealer, self.shelf if shelf is None else shelf),
        )
        assert self._kernel.keys_held == 0, "a key of the kernel was left behind"

    def power_cycle(self) -> None:
        self._kernel.reboot()

    def check(self, material: ports.AttesterMaterial, attestation: ports.Attestation, message: bytes) -> None:
        raise AssertionError("the attester of this board is not under contract")


@contextmanager
def make_kernel_key(folder: Path) -> Iterator[KernelKeyRig]:
    """A board, powered on."""
    yield KernelKeyRig(folder)
