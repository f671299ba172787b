"""The backend `mp`: manufacturing protection of i.MX8M, 7D and 6UL through OP-TEE, profile "raw"."""

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from mpagent.hal.mp.attester import MpAttester
from mpagent.hal.mp.causes import UNKNOWN_PART, Part
from mpagent.hal.mp.classkey import MpClassKey
from mpagent.hal.mp.door import find_door

__all__ = ["UNKNOWN_PART", "MpAttester", "MpClassKey", "Part", "open_class_key", "open_mp"]


def open_mp(node: Path, relay_tas: Sequence[UUID], deadline_s: float, part: Part = UNKNOWN_PART) -> MpAttester:
    """The MP attester behind OP-TEE's device node: through its pseudo-TA, or the first relay TA that opens.

    Nothing is signed and no key is read yet. `deadline_s` bounds each call; on a board without the pseudo-TA and
    without tee-supplicant the opening takes all of it. `part` makes the texts of failures exact. Raises HardwareAbsent
    (no node, another TEE, no MP), HardwareGone (permission, access control, broken), HardwareBusy.
    """
    return MpAttester(find_door(node, relay_tas, deadline_s, part))


def open_class_key(node: Path, relay_tas: Sequence[UUID], deadline_s: float, part: Part = UNKNOWN_PART) -> MpClassKey:
    """The same engine where its public key is a secret (mp_use `secret`): through this door nothing can be signed.

    No key is read yet. Raises as `open_mp`.
    """
    return MpClassKey(find_door(node, relay_tas, deadline_s, part, may_sign=False))
