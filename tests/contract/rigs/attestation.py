"""A board whose attester is OP-TEE's attestation pseudo-TA, in a process of its own over the emulated ioctls."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from mpagent.hal import ports
from mpagent.hal.attestation import OpteeAttester
from mpagent.hal.software import SealedKeyring
from mpsim import backend
from mpsim.optee.bench import EmulatedTee
from mpsim.shelf import MemoryShelf
from mpwire import optee
from tests.contract.rigs.mp import FarAttester
from tests.mpagent.tee_program import DEADLINE_S, TeeProgram
from tests.mpsim.tee_bench import tee_of_board


class AttestationRig:
    """A board with its OP-TEE; what is not the attester is the simulated chip."""

    def __init__(self, tee: EmulatedTee) -> None:
        self._tee = tee
        self.shelf = MemoryShelf()

    @contextmanager
    def open(self, shelf: MemoryShelf | None = None) -> Iterator[ports.Board]:
        sealer = backend.open_sealer(self._tee.chip)
        with TeeProgram(self._tee.environment()) as program:
            program.call("open_attestation", DEADLINE_S)
            yield ports.Board(
                soc=backend.open_soc(self._tee.chip),
                attester=FarAttester(program, OpteeAttester.alg),
                sealer=sealer,
                keyring=SealedKeyring(sealer, self.shelf if shelf is None else shelf),
            )

    def power_cycle(self) -> None:
        self._tee.power_cycle()

    def check(self, material: ports.AttesterMaterial, attestation: ports.Attestation, message: bytes) -> None:
        assert material.rsa_public is not None and attestation.measurement is not None
        assert material.attester_id == sha256(material.rsa_public).digest()
        optee.verify_optee(material.rsa_public, message, attestation.measurement, attestation.signature)


@contextmanager
def make_attestation(folder: Path) -> Iterator[AttestationRig]:
    """Powered on, tee-supplicant running, no key made yet."""
    with tee_of_board(folder) as tee:
        yield AttestationRig(tee)
