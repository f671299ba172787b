"""What an OP-TEE binary tells of its MP pseudo-TA: whether the door is guarded stands in the code that opens a session.

The pseudo-TA's head holds UUID, name, flags and five entry points (optee_os core/include/kernel/pseudo_ta.h), and its
name stands in the same binary, which gives the address the binary is linked to. Built with
CFG_NXP_CAAM_MP_NO_ACCESS_CTRL the entry that opens a session returns at once; otherwise it asks who calls. Held
against builds of optee_os for an i.MX8MM, with and without (docs/hardware.md); 64-bit only.
"""

from enum import Enum
from struct import unpack, unpack_from
from typing import Final

from mpserver.scan.regions import Region

UUID: Final = bytes.fromhex("7c8b2683e385e811adc0fa7ae01bbebc")
"""83268b7c-85e3-11e8-adc0-fa7ae01bbebc as memory has it."""
NAME: Final = b"manufacturing_protection.pta\x00"
REACH_BYTES: Final = 4 * 1024 * 1024
"""An OP-TEE core takes less than 2 MiB."""
_STEP_BYTES: Final = 256 * 1024
_HEAD_BYTES: Final = 72
_FLAGS: Final = 0x1C
"""Single instance, many sessions, kept alive: every pseudo-TA has them."""
_FLAGS_MAX: Final = 0x1000
_HEADS_MAX: Final = 16
_CODE_WORDS: Final = 32
_RET: Final = 0xD65F03C0


class Door(Enum):
    """Whether Linux may open the pseudo-TA."""

    OPEN = "open"
    SHUT = "shut"
    UNKNOWN = "unknown"


def is_head(raw: bytes) -> bool:
    """Whether the 72 bytes that begin with the UUID are a pseudo-TA's head, and not what a caller has."""
    if len(raw) < _HEAD_BYTES:
        return False
    name, flags, gap = unpack_from("<QII", raw, 16)
    return bool(name) and flags & _FLAGS == _FLAGS and flags < _FLAGS_MAX and gap == 0


def judge_door(region: Region, name_at: int) -> Door:
    """Of the pseudo-TA whose name stands at `name_at`."""
    for at in _find_heads(region, name_at):
        head = region.read(at, _HEAD_BYTES)
        if not is_head(head):
            continue
        name, _, _, _, _, opening = unpack("<QIIQQQ", head[16:56])
        if not opening:
            return Door.OPEN  # the core lets everybody in where there is no entry
        code = opening - name + name_at
        if 0 <= code < region.size:
            return _judge_code(region.read(code, 4 * _CODE_WORDS))
    return Door.UNKNOWN


def _find_heads(region: Region, name_at: int) -> list[int]:
    found: list[int] = []
    start, end = max(0, name_at - REACH_BYTES), min(region.size, name_at + REACH_BYTES)
    for at in range(start, end, _STEP_BYTES):
        window = region.read(at, _STEP_BYTES + len(UUID) - 1)
        place = window.find(UUID)
        while place >= 0 and len(found) < _HEADS_MAX:
            found.append(at + place)
            place = window.find(UUID, place + 1)
    return found


def _judge_code(code: bytes) -> Door:
    """Straight to its end: nobody is asked. A branch before, and a word that says no: somebody is."""
    words = unpack_from(f"<{len(code) // 4}I", code)
    for number, word in enumerate(words):
        if word == _RET:
            return Door.OPEN if _gives_zero(words[:number]) else Door.UNKNOWN
        if _branches(word):
            return Door.SHUT if any(map(_denies, words)) else Door.UNKNOWN
    return Door.UNKNOWN


def _denies(word: int) -> bool:
    """Part of TEE_ERROR_ACCESS_DENIED, 0xffff0001, into a register: mov of all of it, or movk of its upper half."""
    return word & 0xFFFFFFE0 in (0x129FFFC0, 0x72BFFFE0)


def _gives_zero(words: tuple[int, ...]) -> bool:
    """w0 or x0 is set to nothing: by mov, or from the zero register."""
    return any(one in (0x52800000, 0xD2800000, 0x2A1F03E0, 0xAA1F03E0) for one in words)


def _branches(word: int) -> bool:
    """B, BL, B.cond, CBZ, CBNZ, TBZ, TBNZ, BR, BLR (Arm ARM C4.1.3)."""
    return (
        word & 0x7C000000 == 0x14000000
        or word & 0xFE000000 in (0x54000000, 0x34000000, 0xB4000000, 0x36000000, 0xB6000000)
        or word & 0xFFDFFC1F == 0xD61F0000
    )
