"""The pinned class key as witness of a closed boot: the one witness of a HAB part that needs no TA of ours."""

from collections.abc import Callable, Collection

from mpagent.errors import HardwareGone
from mpagent.hal.ports import Attester, LifeCycle, Provenance
from mpwire import labels, mp
from mpwire.errors import Malformed, Unauthentic

CHALLENGE_BYTES = 32


class PinnedKeyWitness:
    """CLOSED once the chip signed fresh randomness, in this process, with a key that the image pins.

    An open part signs with a test key, and one whose fuse was blown a moment ago still does; a test key is never
    pinned. One signature: the boot cannot change under a running process.
    """

    provenance = Provenance.KERNEL
    """Linux looked at the signature. That the chip made it, the issuer sees for itself."""

    def __init__(
        self, attester: Callable[[], Attester], key_ids: Collection[bytes], random: Callable[[int], bytes]
    ) -> None:
        """`attester` is called only where a fuse says closed; `key_ids` are SHA-256(X || Y)."""
        self._attester = attester
        self._key_ids = key_ids
        self._random = random
        self._shown = False

    def read_life_cycle(self) -> LifeCycle | None:
        """See lifecycle.Witness. Raises HardwareGone for a signature that is not the pinned key's."""
        self._shown = self._shown or self._sign()
        return LifeCycle.CLOSED if self._shown else None

    def _sign(self) -> bool:
        if not self._key_ids:
            return False
        attester = self._attester()
        material = attester.describe()
        if material.kind != "mp" or material.public_key is None or mp.key_id(material.public_key) not in self._key_ids:
            return False
        challenge = labels.CLOSED_PROOF + self._random(CHALLENGE_BYTES)
        made = attester.attest(challenge)
        try:
            mp.verify_mp(material.public_key, challenge, made.mpmr or b"", made.signature)
        except (Malformed, Unauthentic) as error:
            raise HardwareGone(
                "the chip's signature does not verify under its own MP key", detail=str(error)
            ) from error
        return True
