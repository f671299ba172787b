"""The MP engine of a production image: shut. A finished board is known by its fuses and attests nothing any more."""

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
