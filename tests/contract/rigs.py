"""Boards under contract: each rig is one kind of board with its power switch, and can make a stranger of its kind."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from mpagent.hal import ports
from mpagent.hal.choose import BoardChoice, open_board
from mpsim import fuses, silicon
from mpsim.board import BoardPlan, make_board, power_cycle
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire import mp, p256, tpm2


class Rig(Protocol):
    """One chip and its disk."""

    shelf: MemoryShelf

    def open(self, shelf: MemoryShelf | None = None) -> AbstractContextManager[ports.Board]:
        """A process starts on this board; with another shelf, it finds another board's disk."""

    def power_cycle(self) -> None:
        """The plug is pulled and put back."""

    def check(self, material: ports.AttesterMaterial, attestation: ports.Attestation, message: bytes) -> None:
        """Verify as an issuer would. Raises Unauthentic."""


class SimRig:
    """A closed imx8mm in a folder."""

    def __init__(self, folder: Path) -> None:
        make_board(folder, BoardPlan(closed=True))
        self._chip = folder / "chip"
        self.shelf = MemoryShelf()

    def open(self, shelf: MemoryShelf | None = None) -> AbstractContextManager[ports.Board]:
        choice = BoardChoice(attest="sim", seal="sim", keys="sealed", soc="sim", sim_chip=self._chip)
        return open_board(choice, Path("/"), self.shelf if shelf is None else shelf)

    def power_cycle(self) -> None:
        power_cycle(self._chip)

    def check(self, material: ports.AttesterMaterial, attestation: ports.Attestation, message: bytes) -> None:
        point = b"\x04" + silicon.class_public_key("imx8mm", fuses.srk_hash_of("lab"))[-64:]
        assert material.attester_id == mp.key_id(point)
        assert attestation.mpmr is not None
        mp.verify_mp(point, message, attestation.mpmr, attestation.signature)


@dataclass
class TpmRig:
    """A board with a software TPM and nothing else."""

    tpm: SoftTpm
    choice: BoardChoice
    shelf: MemoryShelf

    def open(self, shelf: MemoryShelf | None = None) -> AbstractContextManager[ports.Board]:
        choice = replace(self.choice, tpm_tcti=self.tpm.tcti)
        return open_board(choice, Path("/"), self.shelf if shelf is None else shelf)

    def power_cycle(self) -> None:
        self.tpm.power_cycle()

    def check(self, material: ports.AttesterMaterial, attestation: ports.Attestation, message: bytes) -> None:
        assert material.ek_public and material.ak_public and attestation.attest
        assert material.attester_id == tpm2.make_name(material.ek_public) + tpm2.make_name(material.ak_public)
        ak = tpm2.read_public(material.ak_public)
        tpm2.check_ek(tpm2.read_public(material.ek_public))
        tpm2.check_ak(ak)
        tpm2.verify_quote(
            attestation.attest, attestation.signature, ak.unique, sha256(message).digest(), attestation.pcrs
        )


@contextmanager
def make_rig(kind: str, folder: Path) -> Iterator[Rig]:
    """A fresh board of this kind, powered on."""
    if kind == "sim":
        yield SimRig(folder)
        return
    with SoftTpm(folder) as tpm:
        keys = "tpm" if kind == "tpm" else "sealed"
        yield TpmRig(tpm, BoardChoice(attest="tpm", seal="tpm", keys=keys, soc="none"), MemoryShelf())


def check_signature(key: ports.DeviceKey, message: bytes) -> bytes:
    """Sign with the key, verify with its public half; the signature."""
    signature = key.sign(message)
    p256.verify(key.public_key(), message, signature)
    return signature
