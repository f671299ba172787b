"""The MP engine of a board that attests nothing: shut by a production image, or kept from signing by mp_use `secret`.

Such a board is known by its fuses.
"""

from typing import NoReturn

from mpagent.errors import HardwareGone
from mpagent.hal.ports import AttesterMaterial
from mpwire import registry


class ShutAttester:
    """ports.Attester of a board that MP attested, where Linux may not reach the engine: it has a kind and no key."""

    alg = registry.ALG_MP_ES256

    def describe(self) -> AttesterMaterial:
        """Without a key, so it shows nothing: neither that the part is closed nor that it is genuine."""
        return AttesterMaterial("mp", b"")

    def attest(self, message: bytes) -> NoReturn:
        """Raises HardwareGone."""
        raise HardwareGone(
            "this production image attests nothing: its MP engine is shut",
            advice="provision the board with the provisioning image",
        )


class SecretAttester(ShutAttester):
    """Where the MP public key is a secret: a signature, sent, logged or dropped, is the key."""

    def attest(self, message: bytes) -> NoReturn:
        """Raises HardwareGone."""
        raise HardwareGone(
            "this image keeps the MP public key secret (mp_use); any signature would give it away: nothing was signed",
            advice="use an image whose product says mp_use = sign, on parts with other SRK fuses",
        )
