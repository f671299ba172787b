"""A board with a real TPM stack over a software TPM."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from mpagent.hal import ports
from mpagent.hal.choose import BoardChoice, open_board
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire import tpm2


@dataclass
class TpmRig:
    """A board with a software TPM and nothing else."""

    tpm: SoftTpm
    choice: BoardChoice
    shelf: MemoryShelf

    def open(self, shelf: MemoryShelf | None = None) -> AbstractContextManager[ports.Board]:
        choice = self.choice._replace(tpm_tcti=self.tpm.tcti)
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
def make_tpm(folder: Path) -> Iterator[TpmRig]:
    """Device keys in the TPM."""
    with SoftTpm(folder) as tpm:
        yield TpmRig(tpm, BoardChoice(attest=("tpm",), seal=("tpm",), keys=("tpm",), soc=("none",)), MemoryShelf())


@contextmanager
def make_tpm_with_sealed_keys(folder: Path) -> Iterator[TpmRig]:
    """Device keys in software, sealed by the TPM."""
    with SoftTpm(folder) as tpm:
        yield TpmRig(tpm, BoardChoice(attest=("tpm",), seal=("tpm",), keys=("sealed",), soc=("none",)), MemoryShelf())
