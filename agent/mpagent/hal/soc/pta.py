"""The OCOTP PTA behind a device node, as a source of fuse words."""

from collections.abc import Sequence
from pathlib import Path

from mpagent.errors import HardwareAbsent
from mpagent.hal.optee import NoPermission
from mpagent.hal.optee.ocotp import read_fuses


class OpteeOcotp:
    """fuses.Ocotp."""

    def __init__(self, node: Path, deadline_s: float) -> None:
        """`node` is /dev/tee0; `deadline_s` bounds each reading."""
        self._node = node
        self._deadline_s = deadline_s

    def read_fuses(self, places: Sequence[tuple[int, int]]) -> tuple[int, ...]:
        """See fuses.Ocotp. A node we may not open is a second source we do not have, as a fuse file would be."""
        try:
            return read_fuses(self._node, places, self._deadline_s)
        except NoPermission as closed:
            raise HardwareAbsent(str(closed), advice=closed.advice) from closed
