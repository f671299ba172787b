"""A board whose attester is MP through OP-TEE: the product's code in a process of its own, over the emulated ioctls."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpagent.errors import HardwareBusy, HardwareGone
from mpagent.hal import ports
from mpagent.hal.mp import MpAttester
from mpagent.hal.shut import SecretAttester
from mpagent.hal.software import SealedKeyring
from mpsim import backend, fuses, silicon
from mpsim.optee.bench import EmulatedTee
from mpsim.shelf import MemoryShelf
from mpwire import mp
from mpwire.errors import Malformed
from mpwire.secret import Secret
from tests.mpagent.tee_program import DEADLINE_S, Failed, TeeProgram
from tests.mpsim.tee_bench import tee_of_board

_KINDS = {"Malformed": Malformed, "HardwareBusy": HardwareBusy}


class FarAttester:
    """ports.Attester, told over a pipe what the one in the other process says."""

    def __init__(self, program: TeeProgram, alg: int) -> None:
        self._program = program
        self.alg = alg

    def describe(self) -> ports.AttesterMaterial:
        try:
            return self._program.describe()
        except Failed as failed:
            raise _KINDS.get(failed.kind, HardwareGone)(str(failed)) from failed

    def attest(self, message: bytes) -> ports.Attestation:
        try:
            return self._program.attest(message)
        except Failed as failed:
            raise _KINDS.get(failed.kind, HardwareGone)(str(failed)) from failed


class FarClassKey:
    """ports.ClassKey in the other process."""

    def __init__(self, program: TeeProgram) -> None:
        self._program = program

    def extract(self) -> Secret:
        try:
            return Secret(self._program.call("extract"))
        except Failed as failed:
            raise _KINDS.get(failed.kind, HardwareGone)(str(failed)) from failed


class MpRig:
    """A closed imx8mm with its OP-TEE; what is not the attester is the simulated chip."""

    def __init__(self, tee: EmulatedTee, *, secret: bool = False) -> None:
        self._tee = tee
        self._secret = secret
        self.shelf = MemoryShelf()

    @contextmanager
    def open(self, shelf: MemoryShelf | None = None) -> Iterator[ports.Board]:
        sealer = backend.open_sealer(self._tee.chip)
        with TeeProgram(self._tee.environment()) as program:
            program.call("open_class_key", DEADLINE_S) if self._secret else program.open()
            yield ports.Board(
                soc=backend.open_soc(self._tee.chip),
                attester=SecretAttester() if self._secret else FarAttester(program, MpAttester.alg),
                sealer=sealer,
                keyring=SealedKeyring(sealer, self.shelf if shelf is None else shelf),
                class_key=FarClassKey(program) if self._secret else None,
            )

    def power_cycle(self) -> None:
        self._tee.power_cycle()

    def check(self, material: ports.AttesterMaterial, attestation: ports.Attestation, message: bytes) -> None:
        point = b"\x04" + silicon.class_public_key("imx8mm", fuses.srk_hash_of("lab"))
        assert material.public_key == point and material.attester_id == mp.key_id(point)
        assert attestation.mpmr is not None
        mp.verify_mp(point, message, attestation.mpmr, attestation.signature)


@contextmanager
def make_mp(folder: Path) -> Iterator[MpRig]:
    """A closed board, powered on, tee-supplicant running."""
    with tee_of_board(folder) as tee:
        yield MpRig(tee)


@contextmanager
def make_secret_mp(folder: Path) -> Iterator[MpRig]:
    """The same where the MP public key is a secret; at the end OP-TEE was asked for no signature."""
    with tee_of_board(folder) as tee:
        yield MpRig(tee, secret=True)
        assert tee.count_signatures() == 0
