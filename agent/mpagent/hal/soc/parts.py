"""Where each i.MX part keeps what it says of itself (docs/hardware.md, "Names, fuses and life cycle per part")."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Span(NamedTuple):
    """Bytes of the fuse file."""

    offset: int
    length: int


class Layout(NamedTuple):
    """One part."""

    family: str
    soc_ids: tuple[str, ...]
    """As /sys/devices/soc0/soc_id spells it, mainline first."""
    fuse_files: tuple[str, ...]
    """Names below /sys/bus/nvmem/devices, as patterns: the number at the end may differ."""
    fuse_bytes: int
    """Size of that file; at least this, where the drivers differ."""
    srk_hash: Span
    serial_digits: tuple[int, ...]
    """How many hex digits soc0/serial_number has; the name is made of the last `uid_bytes` of them."""
    uid_bytes: int
    uid: Span | None = None
    """Where Linux may read the same id from fuses; its words stand lowest first, so the bytes read backwards."""
    uid_upper: Span | None = None
    """8MP only: the other half of its 128 bits."""
    hab: bool = False
    """Life cycle by fuses: CLOSED_WORD and FIELD_RETURN_WORD."""
    ocotp_pta: bool = False
    """OP-TEE has its OCOTP PTA on this part."""
    caam: int | None = None
    """Physical address of CAAM; None where there is none."""


CLOSED_WORD: Final = Span(0x1C, 4)
"""Bank 1 word 3 (U-Boot arch/arm/mach-imx/hab.c)."""
CLOSED_BIT: Final = 0x0200_0000
FIELD_RETURN_WORD: Final = Span(0x8C, 4)
"""Bank 8 word 3. Any bit of it counts: the bits are burnt one after the other."""
LOCKED_WORD: Final = 0xBADA_BADA
"""What a read-locked fuse word reads."""

_CAAM_8M: Final = 0x3090_0000
_CAAM_8Q: Final = 0x3140_0000
_CAAM_8ULP: Final = 0x292E_0000
_ELE_FILES: Final = ("ELE-OCOTP*", "fsb_s400_fuse*")
"""Mainline's driver and the vendor kernel's."""


def _imx8m(family: str, soc_id: str, *, is_8mp: bool = False) -> Layout:
    """linux drivers/nvmem/imx-ocotp.c, drivers/soc/imx/soc-imx8m.c; optee_os core/drivers/imx_ocotp.c."""
    return Layout(
        family=family,
        soc_ids=(soc_id,),
        fuse_files=("imx-ocotp*",),
        fuse_bytes=1536 if is_8mp else 1024,
        srk_hash=Span(0x60, 32),
        serial_digits=(16, 32) if is_8mp else (16,),
        uid_bytes=8,
        uid=Span(0x8 if is_8mp else 0x4, 8),
        uid_upper=Span(0x280, 8) if is_8mp else None,
        hab=True,
        ocotp_pta=True,
        caam=_CAAM_8M,
    )


def _imx8q(family: str, soc_ids: tuple[str, ...], srk_word: int) -> Layout:
    """linux drivers/nvmem/imx-ocotp-scu.c, drivers/firmware/imx/imx-scu-soc.c; SRK hash: SHA-512."""
    return Layout(
        family=family,
        soc_ids=soc_ids,
        fuse_files=("imx-scu-ocotp*",),
        fuse_bytes=3200,
        srk_hash=Span(srk_word * 4, 64),
        serial_digits=(16,),
        uid_bytes=8,
        caam=_CAAM_8Q,
    )


def _ele(family: str, soc_id: str, srk_word: int, caam: int | None = None) -> Layout:
    """linux drivers/nvmem/imx-ocotp-ele.c, drivers/soc/imx/soc-imx9.c. The UID has 128 bits."""
    return Layout(
        family=family,
        soc_ids=(soc_id,),
        fuse_files=_ELE_FILES,
        fuse_bytes=srk_word * 4 + 32,
        srk_hash=Span(srk_word * 4, 32),
        serial_digits=(32,),
        uid_bytes=16,
        caam=caam,
    )


LAYOUTS: Final[Mapping[str, Layout]] = MappingProxyType(
    {
        one.family: one
        for one in (
            _imx8m("imx8mq", "i.MX8MQ"),
            _imx8m("imx8mm", "i.MX8MM"),
            _imx8m("imx8mn", "i.MX8MN"),
            _imx8m("imx8mp", "i.MX8MP", is_8mp=True),
            # The SCU's chip ids; a vendor kernel spells names.
            _imx8q("imx8qm", ("0x1", "i.MX8QM"), srk_word=722),
            _imx8q("imx8qxp", ("0x2", "i.MX8QXP"), srk_word=730),
            _ele("imx8ulp", "i.MX8ULP", srk_word=120, caam=_CAAM_8ULP),
            _ele("imx93", "i.MX93", srk_word=128),
            _ele("imx95", "i.MX95", srk_word=128),
        )
    }
)
"""By family, as mpsim and hwmodel spell it."""


def find_layout(soc_id: str) -> Layout | None:
    """The part that calls itself so, or None."""
    return next((one for one in LAYOUTS.values() if soc_id in one.soc_ids), None)
