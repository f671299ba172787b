"""The fuse file of an i.MX8M, as the kernel's nvmem file spells it.

Arithmetic (drivers/nvmem/imx-ocotp.c): offset = (bank * 4 + word) * 4; words are little-endian. The unique id is the
64-bit number whose low word stands first, so it reads backwards in the file. The SRK hash stands in the order of CST's
fuse file.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

SRK_HASH_OFFSET: Final = 0x60
"""Bank 6 word 0 to bank 7 word 3."""
SRK_HASH_BYTES: Final = 32
LOCK_WORD_OFFSET: Final = 0x1C
"""Bank 1 word 3."""
CLOSED_BIT: Final = 0x0200_0000
"""SEC_CONFIG[1]: bit 25 of bank 1 word 3."""
UID_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one part keeps its fuses."""

    size_bytes: int
    uid_offset: int
    uid_upper_offset: int | None
    """8MP only: the upper half of its 128-bit id; Linux prints it in front of the lower half."""


_SMALL: Final = Layout(size_bytes=1024, uid_offset=0x4, uid_upper_offset=None)
LAYOUTS: Final[Mapping[str, Layout]] = MappingProxyType(
    {
        "imx8mq": _SMALL,
        "imx8mm": _SMALL,
        "imx8mn": _SMALL,
        "imx8mp": Layout(size_bytes=1536, uid_offset=0x8, uid_upper_offset=0x280),
    }
)


def burn(part: str, uid: bytes, uid_upper: bytes, srk_hash: bytes) -> bytes:
    """The fuse file of a new, open part. `uid` and `uid_upper` are big-endian, as printed, 8 bytes each."""
    layout = LAYOUTS[part]
    fuses = bytearray(layout.size_bytes)
    fuses[layout.uid_offset : layout.uid_offset + UID_BYTES] = uid[::-1]
    if layout.uid_upper_offset is not None:
        fuses[layout.uid_upper_offset : layout.uid_upper_offset + UID_BYTES] = uid_upper[::-1]
    fuses[SRK_HASH_OFFSET : SRK_HASH_OFFSET + SRK_HASH_BYTES] = srk_hash
    return bytes(fuses)


def blow_closed(fuses: bytes) -> bytes:
    """The same fuses with the closed bit set; a fuse never goes back, so setting it again changes nothing."""
    word = _word(fuses, LOCK_WORD_OFFSET) | CLOSED_BIT
    return fuses[:LOCK_WORD_OFFSET] + word.to_bytes(4, "little") + fuses[LOCK_WORD_OFFSET + 4 :]


def is_closed(fuses: bytes) -> bool:
    """What the fuse says; what the running boot says is another question."""
    return bool(_word(fuses, LOCK_WORD_OFFSET) & CLOSED_BIT)


def read_uid(part: str, fuses: bytes) -> bytes:
    """The 8 bytes of the unique id, big-endian as printed: on an 8MP the lower half."""
    offset = LAYOUTS[part].uid_offset
    return fuses[offset : offset + UID_BYTES][::-1]


def read_serial_number(part: str, fuses: bytes) -> str:
    """/sys/devices/soc0/serial_number: 16 upper-case hex digits; 32 on an 8MP whose upper half is not zero."""
    lower = read_uid(part, fuses).hex().upper()
    offset = LAYOUTS[part].uid_upper_offset
    if offset is None:
        return lower
    upper = fuses[offset : offset + UID_BYTES][::-1]
    return (upper.hex().upper() if any(upper) else "") + lower


def read_srk_hash(fuses: bytes) -> bytes:
    """SHA-256 of the SRK table as fused, 32 bytes."""
    return fuses[SRK_HASH_OFFSET : SRK_HASH_OFFSET + SRK_HASH_BYTES]


def srk_hash_of(name: str) -> bytes:
    """The SRK hash of an imagined OEM key set: a name is easier to remember than 64 digits."""
    return hashlib.sha256(b"mpsim srk table: " + name.encode()).digest()


def _word(fuses: bytes, offset: int) -> int:
    return int.from_bytes(fuses[offset : offset + 4], "little")
