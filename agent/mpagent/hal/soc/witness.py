"""The pinned class key as witness of a closed boot: the one witness of a HAB part that needs no TA of ours."""

from collections.abc import Callable, Collection

from mpagent.closed import signs_with_pinned_key
from mpagent.hal.ports import Attester, LifeCycle, Provenance


class PinnedKeyWitness:
    """CLOSED once the chip signed with a key that the image pins, in this process.

    One signature: the boot cannot change under a running process.
    """

    name = "mp-key"
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
        if not self._shown and self._key_ids:
            self._shown = signs_with_pinned_key(self._attester(), self._key_ids, self._random)
        return LifeCycle.CLOSED if self._shown else None
