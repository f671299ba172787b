"""A blob made on an open part as witness of a closed boot: for parts that do not attest by MP."""

from collections.abc import Callable
from pathlib import Path

from mpagent.errors import HardwareAbsent
from mpagent.hal.caam.closed import opens_open_blob
from mpagent.hal.caam.keyctl import KernelKeys, Keys
from mpagent.hal.caam.source import Source, find_source
from mpagent.hal.ports import LifeCycle, Provenance


class OpenBlobWitness:
    """OPEN where the CAAM opens the image's test blob, CLOSED where it refuses; asked once for a process."""

    name = "open-blob"
    provenance = Provenance.KERNEL

    def __init__(self, digits: str, root: Path, make_keys: Callable[[], Keys] = KernelKeys) -> None:
        """`digits`: 160 hexadecimal digits, as the kernel of an open part printed them. /sys is below `root`."""
        self._digits = digits
        self._root = root
        self._make_keys = make_keys
        self._told: LifeCycle | None = None

    def read_life_cycle(self) -> LifeCycle | None:
        """See soc.lifecycle.Witness. None where the kernel has no trusted keys of the CAAM."""
        if self._told is None:
            keys = self._make_keys()
            try:
                keys.join_session()
                if find_source(keys, self._root) is not Source.CAAM:
                    return None
            except (HardwareAbsent, OSError):
                return None
            self._told = LifeCycle.OPEN if opens_open_blob(keys, self._digits) else LifeCycle.CLOSED
        return self._told
