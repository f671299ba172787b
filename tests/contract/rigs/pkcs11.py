"""A board whose keys live in a PKCS#11 token: the real backend over a real token in software."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mpagent.hal import ports
from mpagent.hal.pkcs11 import open_pkcs11
from mpsim import backend
from mpsim.board import BoardPlan, make_board
from mpsim.shelf import MemoryShelf
from mpsim.softhsm import MODULE, SoftHsm

WITHOUT_GCM = (
    *("CKM_AES_KEY_GEN", "CKM_AES_CBC", "CKM_GENERIC_SECRET_KEY_GEN", "CKM_SHA256_HMAC"),
    *("CKM_EC_KEY_PAIR_GEN", "CKM_ECDSA", "CKM_ECDH1_DERIVE"),
)
"""What OP-TEE's PKCS#11 TA has of what we use, as it was before it learned GCM."""


class Pkcs11Rig:
    """Every board of this kind has a token of the same label, as boards with OP-TEE have."""

    def __init__(self, folder: Path, mechanisms: Sequence[str] | None) -> None:
        make_board(folder / "soc", BoardPlan(closed=True))
        self._chip = folder / "soc" / "chip"
        self.token = SoftHsm(folder / "token")
        self.token.offer(mechanisms)
        self.token.initialize()
        self.shelf = MemoryShelf()

    @contextmanager
    def open(self, shelf: MemoryShelf | None = None) -> Iterator[ports.Board]:
        self.token.insert()
        on = self.shelf if shelf is None else shelf
        with open_pkcs11(MODULE, self.token.label, self.token.pin_file, on) as parts:
            yield ports.Board(
                soc=backend.open_soc(self._chip),
                attester=backend.open_attester(self._chip),
                sealer=parts.sealer,
                keyring=parts.keyring,
            )

    def power_cycle(self) -> None:
        self.token.insert()

    def check(self, material: ports.AttesterMaterial, attestation: ports.Attestation, message: bytes) -> None:
        raise AssertionError("this kind brings no attester of its own")


@contextmanager
def make_pkcs11(folder: Path) -> Iterator[Pkcs11Rig]:
    """A token with all that SoftHSM2 knows."""
    yield Pkcs11Rig(folder, None)


@contextmanager
def make_pkcs11_without_gcm(folder: Path) -> Iterator[Pkcs11Rig]:
    """A token with the mechanisms of OP-TEE's PKCS#11 TA."""
    yield Pkcs11Rig(folder, WITHOUT_GCM)
