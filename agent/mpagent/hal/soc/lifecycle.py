"""What the life-cycle numbers of SNVS, SECO and ELE mean, and who can tell the running boot's.

A fuse says what the next boot will be; these say what this boot is. Linux reads none of them by itself: whoever can
(a TA, an ELE library, a proof by the MP key) comes in as a `Witness`.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, Protocol

from mpagent.errors import HardwareGone
from mpagent.hal.ports import LifeCycle, Provenance


class Witness(Protocol):
    """Knows the life cycle of the running boot."""

    name: str
    """As receipts print it: "mp-key", "secure-world", "open-blob"."""
    provenance: Provenance
    """Of the live state alone; a claim made of it and of a fuse has the weaker of the two."""

    def read_life_cycle(self) -> LifeCycle | None:
        """None: it cannot say. CLOSED only where this boot showed it."""


class Dialect(Enum):
    """Whose number it is."""

    HPSR = "SNVS HPSR bits 14:12"
    SECO = "SECO life cycle"
    ELE = "ELE life cycle (FSB 0x41c)"
    ELE_95 = "i.MX95 life cycle (FSB 0x414)"
    LMDA = "ELE get-info LMDA"


_OPEN, _CLOSED, _RETURNED = LifeCycle.OPEN, LifeCycle.CLOSED, LifeCycle.FIELD_RETURN
_KNOWN: Final[Mapping[Dialect, Mapping[int, LifeCycle]]] = MappingProxyType(
    {
        # optee_os core/drivers/imx_snvs.c: fab, open, closed; every other value is field return.
        Dialect.HPSR: {0: _OPEN, 1: _OPEN, 3: _CLOSED} | {value: _RETURNED for value in (2, 4, 5, 6, 7)},
        # U-Boot arch/arm/mach-imx/imx8/ahab.c: pristine, fab, open, NXP closed (open to the OEM), OEM closed, returns.
        Dialect.SECO: {1: _OPEN, 2: _OPEN, 8: _OPEN, 0x20: _OPEN, 0x80: _CLOSED, 0x100: _RETURNED, 0x200: _RETURNED},
        # U-Boot arch/arm/mach-imx/ele_ahab.c: blank, fab, provisioned, open; closed, locked; returns.
        Dialect.ELE: {1: _OPEN, 2: _OPEN, 4: _OPEN, 8: _OPEN, 0x20: _CLOSED, 0x100: _CLOSED, 0x40: _RETURNED,
                      0x80: _RETURNED},
        Dialect.ELE_95: {0x10: _OPEN, 0x40: _CLOSED, 0x80: _CLOSED},
        Dialect.LMDA: {0x10: _OPEN, 0x40: _CLOSED, 0x200: _CLOSED},
    }
)  # fmt: skip


def translate(dialect: Dialect, value: int) -> LifeCycle:
    """Raises HardwareGone for a number whose meaning is not known: SECO's "no return", a bricked part, nonsense."""
    known = _KNOWN[dialect].get(value)
    if known is None:
        raise HardwareGone(f"{dialect.value} reads {value:#x}, which is no state a product is made in")
    return known
