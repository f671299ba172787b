"""The MP engine as attester."""

from typing import Final

from mpagent.hal.mp.door import Door
from mpagent.hal.ports import Attestation, AttesterMaterial
from mpwire import mp
from mpwire.errors import Malformed
from mpwire.limits import MP_MESSAGE_MAX_BYTES
from mpwire.registry import ALG_MP_ES256

PROFILE: Final = "raw"
"""Linux chooses every byte that is signed, through a relay TA of mp_sign's kind too."""


class MpAttester:
    """ports.Attester of kind "mp". Holds nothing open: each call is a session of its own."""

    alg: int = ALG_MP_ES256

    def __init__(self, door: Door) -> None:
        self.door: Final = door
        self._material: AttesterMaterial | None = None

    def describe(self) -> AttesterMaterial:
        """The key of the running boot, read once: closing the part changes it with the next boot.

        Raises MpBroken, MpAbsent (silicon that has no MP after all), HardwareBusy.
        """
        if self._material is None:
            point = self.door.read_key()
            self._material = AttesterMaterial("mp", mp.key_id(point), profile=PROFILE, public_key=point)
        return self._material

    def attest(self, message: bytes) -> Attestation:
        """See ports.Attester. Raises Malformed for a message out of bounds; the chip is not touched then."""
        if not 1 <= len(message) <= MP_MESSAGE_MAX_BYTES:
            raise Malformed(f"an attester signs 1 to {MP_MESSAGE_MAX_BYTES} bytes, not {len(message)}")
        signature, mpmr = self.door.sign(message)
        return Attestation(signature, mpmr=mpmr)
