"""What `doctor` wants to know of MP: does it work, if not why, and who else on this image may use the key."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

from mpagent.hal.mp import causes
from mpagent.hal.mp.causes import Cause, MpAbsent, MpBroken, Part
from mpagent.hal.mp.door import PROBE_MESSAGE, PTA, Door, find_door
from mpagent.hal.optee import faults
from mpwire import mp
from mpwire.errors import Unauthentic

XTEST_MP_SIGN: Final = UUID("8aaaf200-2450-11e4-abe2-0002a5d5c51c")
"""NXP's test TA. It signs whatever Linux wants, so it has no place on a production image."""

_GIVEN: Final = (causes.KEY_HIDDEN, causes.OLD_ABI, causes.CURVE_P521, causes.SIZE_UNKNOWN, causes.KEY_OFF_CURVE)
"""Failures of ours with which somebody else has the key all the same; of KEY_HIDDEN by recovery from a signature."""


class TaState(StrEnum):
    """Whether a TA answers."""

    ANSWERS = "answers"
    MISSING = "missing"
    UNKNOWN = "unknown"
    """tee-supplicant does not answer: nobody can load a TA now, and somebody may later."""
    REFUSES = "refuses"
    """There, and does not open: a wrong signature, or of another OP-TEE."""


class Examination(NamedTuple):
    """The findings; `cause` is None when MP works, as far as it was tried."""

    cause: Cause | None
    detail: str
    door: UUID | None
    """Of the pseudo-TA or relay TA that is used; None when none opens."""
    public_key: bytes | None
    """The 65-byte point, if it can be read through the door. Under mp_use `secret` it is one: do not print it."""
    mpmr: bytes | None
    """As the chip hashed it, if it signs."""
    xtest_ta: TaState
    key_readable: bool
    """Whether Linux can come by the MP public key on this image in any way we know, a signature included."""


def examine(
    node: Path, relay_tas: Sequence[UUID], deadline_s: float, part: Part, *, may_sign: bool = True
) -> Examination:
    """Try everything once: open, read the key, sign, verify. The signature stays in this process.

    Not `may_sign` (mp_use `secret`): the key is read, and no signing command is sent to anybody.

    Raises NoNode, NoPermission, OtherTee, KernelRefused, HardwareBusy, Hanging: nothing can be said of MP then.
    """
    xtest, key_by_xtest = find_xtest_ta(node, deadline_s), False
    if xtest is TaState.ANSWERS and XTEST_MP_SIGN not in relay_tas:
        key_by_xtest = _gives_key(Door(node, XTEST_MP_SIGN, part, deadline_s, may_sign))
    try:
        door = find_door(node, relay_tas, deadline_s, part, may_sign=may_sign)
    except (MpAbsent, MpBroken) as shut:
        return Examination(shut.cause, shut.detail, None, None, None, xtest, key_by_xtest)
    return _try(door, xtest, key_by_xtest)


def _try(door: Door, xtest: TaState, key_by_xtest: bool) -> Examination:
    point, mpmr, detail = None, None, ""
    cause: Cause | None = None
    try:
        point = door.read_key()
        if door.may_sign:
            signature, mpmr = door.sign(PROBE_MESSAGE)
            cause = judge_signature(point, mpmr, signature)
    except (MpAbsent, MpBroken) as failed:
        cause, detail = failed.cause, failed.detail
    readable = key_by_xtest or point is not None or cause in _GIVEN
    return Examination(cause, detail, door.uuid, point, mpmr, xtest, readable)


def judge_signature(point: bytes, mpmr: bytes, signature: bytes) -> Cause | None:
    """None when this signature over PROBE_MESSAGE holds under the chip's own key and MPMR."""
    try:
        mp.verify_mp(point, PROBE_MESSAGE, mpmr, signature)
    except Unauthentic:
        return causes.SIGNATURE_FALSE
    return None


def find_xtest_ta(node: Path, deadline_s: float) -> TaState:
    """Whether NXP's test TA mp_sign can be opened on this image. Raises as `examine` does."""
    try:
        Door(node, XTEST_MP_SIGN, causes.UNKNOWN_PART, deadline_s).open()
    except faults.TeeFailed as failed:
        return TaState.MISSING if failed.result == faults.ITEM_NOT_FOUND else TaState.REFUSES
    except faults.NobodyAnswered:
        return TaState.UNKNOWN
    return TaState.ANSWERS


def is_key_readable(node: Path, relay_tas: Sequence[UUID], deadline_s: float) -> bool:
    """Whether Linux can come by the MP public key: through the pseudo-TA, a relay TA, or xtest's TA.

    Raises NoNode, NoPermission, OtherTee, KernelRefused, HardwareBusy, Hanging.
    """
    uuids = dict.fromkeys((PTA, *relay_tas, XTEST_MP_SIGN))
    return any(_gives_key(Door(node, uuid, causes.UNKNOWN_PART, deadline_s)) for uuid in uuids)


def _gives_key(door: Door) -> bool:
    try:
        door.read_key()
    except (MpAbsent, MpBroken) as failed:
        return failed.cause in _GIVEN
    return True
