"""OP-TEE's MP driver over the chip of a simulated board (core/drivers/crypto/caam/mp/caam_mp.c, hal_ctrl.c).

The chip's behaviour is silicon.py's; this adds what the driver in front of it does: sizes, their order of checks, and
the states that a boot chain can leave it in.
"""

import hashlib
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from mpsim import silicon
from mpsim.optee.gp import Result, TeeRefusal
from mpsim.optee.scenario import Scenario
from mpwire import limits, mp

SCALAR_BYTES: Final = {"P-256": 32, "P-521": 66}
MPMR_OF_OEM: Final = b"OEM boot loader was here first.."
"""Written and locked by a boot loader, in the scenarios where OP-TEE found the register locked."""


class MpDriver:
    """One call's view of the engine."""

    def __init__(self, chip: silicon.Chip, scenario: Scenario) -> None:
        self._chip = chip
        self._scenario = scenario
        self._scalar_bytes = 0 if scenario.mpmr_locked == "sizes" else SCALAR_BYTES[scenario.curve]

    def export_key(self, room: int) -> bytes:
        """X || Y. Raises TeeRefusal; Short with the needed size."""
        key = self._check_engine()
        if room < 2 * self._scalar_bytes:
            raise Short(2 * self._scalar_bytes)
        if self._scenario.mpmr_locked or self._scenario.key == "zero":
            return bytes(2 * self._scalar_bytes)
        if self._scenario.curve == "P-521":
            numbers = self._p521().public_key().public_numbers()
            key = b"".join(part.to_bytes(66, "big") for part in (numbers.x, numbers.y))
        return key[:-1] + bytes([key[-1] ^ 1]) if self._scenario.key == "off-curve" else key

    def sign(self, message: bytes, room: int) -> bytes:
        """c || d. The engine's state is looked at first, then the room, then the message."""
        self._check_engine()
        if room < 2 * self._scalar_bytes:
            raise Short(2 * self._scalar_bytes)
        if len(message) > limits.MP_MESSAGE_MAX_BYTES:
            raise TeeRefusal(Result.EXCESS_DATA)
        if not message:
            raise TeeRefusal(Result.BAD_PARAMETERS)
        if self._scenario.mpmr_locked:
            return bytes(2 * self._scalar_bytes)
        if self._scenario.curve == "P-521":
            return self._sign_p521(message)
        return self._chip.mp_sign(message)[0]

    def export_mpmr(self) -> bytes:
        """The register as the engine hashes it."""
        if self._scenario.mpmr_locked:
            return MPMR_OF_OEM
        return silicon.MPMR_VALUES[self._chip.read_make().mpmr]

    def _check_engine(self) -> bytes:
        """The chip's own public key. Raises TeeRefusal NOT_SUPPORTED: no key after boot, or silicon without MP."""
        try:
            return self._chip.mp_public_key()
        except silicon.Refusal as refusal:
            raise TeeRefusal(refusal.result) from refusal

    def _p521(self) -> ec.EllipticCurvePrivateKey:
        seed = hashlib.sha512(b"mpsim p521" + self._chip.mp_public_key()).digest()
        return ec.derive_private_key(int.from_bytes(seed, "big") + 1, ec.SECP521R1())

    def _sign_p521(self, message: bytes) -> bytes:
        """No vector of such a part is known; the hash is taken to be SHA-256 as on P-256."""
        signed = mp.digest(message, self.export_mpmr())
        der = self._p521().sign(signed, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        return b"".join(part.to_bytes(66, "big") for part in utils.decode_dss_signature(der))


class Short(TeeRefusal):
    """SHORT_BUFFER, and the size that would do."""

    def __init__(self, needed: int) -> None:
        super().__init__(Result.SHORT_BUFFER)
        self.needed = needed
