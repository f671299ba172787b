"""An i.MX8MM by its kernel's files; what is not on that list is the simulated chip of the same fuses."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpagent.hal import ports
from mpagent.hal.soc import PinnedKeyWitness, open_imx
from mpagent.hal.software import SealedKeyring
from mpsim import backend, fuses, silicon
from mpsim.shelf import MemoryShelf
from mpwire import mp
from tests.contract.rigs.sim import SimRig
from tests.mpagent.trees import make_tree

PINNED = (mp.key_id(b"\x04" + silicon.class_public_key("imx8mm", fuses.srk_hash_of("lab"))),)


class ImxRig(SimRig):
    """Closed, and shown so by the class key."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._root = folder / "kernel"
        make_tree(self._root, "imx8mm", (self._chip / "nvmem").read_bytes())

    @contextmanager
    def open(self, shelf: MemoryShelf | None = None) -> Iterator[ports.Board]:
        attester, sealer = backend.open_attester(self._chip), backend.open_sealer(self._chip)
        yield ports.Board(
            soc=open_imx(self._root, None, PinnedKeyWitness(lambda: attester, PINNED, os.urandom)),
            attester=attester,
            sealer=sealer,
            keyring=SealedKeyring(sealer, self.shelf if shelf is None else shelf),
        )


@contextmanager
def make_imx(folder: Path) -> Iterator[ImxRig]:
    """A closed board, powered on."""
    yield ImxRig(folder)
