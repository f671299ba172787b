"""What a TPM's response code means for the caller, in one line with the next step.

Codes: TPM 2.0 Library, Part 2, section 6.6; layers above the TPM: TSS 2.0 Overview, section "Response codes".
"""

from typing import Final

from mpagent.errors import HardwareBusy, HardwareGone, HardwareLockout
from mpwire.errors import MpError

HANDLE: Final = 0x08B
"""A handle of this number does not exist."""
NV_UNINITIALIZED: Final = 0x14A
"""An NV index that is defined and was never written."""
VALUE: Final = 0x084
"""A parameter is not what it must be."""
LOCKOUT: Final = 0x921
"""Dictionary-attack lockout."""

WRONG_NAME: Final = (0x08E, 0x0A2)
"""AUTH_FAIL, BAD_AUTH: of an object without a password, that its Name is not the one the caller's HMAC covers."""

_FORMAT_ONE: Final = 0x080
_TPM_LAYERS: Final = (0x00000000, 0x000B0000, 0x000C0000)
"""The TPM itself, and a resource manager that speaks in its name."""
_TRY_AGAIN: Final = {
    0x128: "TPM_RC_PCR_CHANGED",
    0x908: "TPM_RC_YIELDED",
    0x90A: "TPM_RC_TESTING",
    0x920: "TPM_RC_NV_RATE",
    0x922: "TPM_RC_RETRY",
    0x923: "TPM_RC_NV_UNAVAILABLE",
}
_FULL: Final = {0x902: "objects", 0x903: "sessions", 0x904: "memory", 0x905: "sessions", 0x906: "objects"}
_PASSWORD: Final = (0x08E, 0x0A2, 0x12F)
"""AUTH_FAIL, BAD_AUTH, AUTH_UNAVAILABLE."""


def reduce_code(rc: int) -> int:
    """The response code without the number of the handle, session or parameter it complains of.

    A code of a layer that is not a TPM is returned whole.
    """
    if rc & 0xFFFF0000 not in _TPM_LAYERS:
        return rc
    code = rc & 0xFFFF
    return code & 0x0BF if code & _FORMAT_ONE else code


def is_about_input(code: int) -> bool:
    """Whether a reduced code complains of a handle, session or parameter it was given (format one)."""
    return code <= 0xFFFF and bool(code & _FORMAT_ONE)


def explain(rc: int, doing: str) -> MpError:
    """The failure behind a response code, while `doing` (e.g. "signing"); LOCKOUT has its own explanation below."""
    code = reduce_code(rc)
    detail = f"TPM response code 0x{rc:08x} while {doing}"
    if code in _TRY_AGAIN:
        return HardwareBusy(f"the TPM is busy ({_TRY_AGAIN[code]}) while {doing}: try again", detail=detail)
    if code in _FULL:
        return HardwareBusy(
            f"no free {_FULL[code]} in the TPM while {doing}: another program holds them; end it, "
            "or let every program use /dev/tpmrm0",
            detail=detail,
        )
    if code in _PASSWORD:
        return HardwareGone(
            f"the TPM asks for a password while {doing}: its owner or endorsement hierarchy is taken; "
            "clear the TPM or empty that password",
            detail=detail,
        )
    if rc & 0xFFFF0000 in _TPM_LAYERS:
        return HardwareGone(f"the TPM refused with 0x{code:03x} while {doing}: see tpm2_rc_decode", detail=detail)
    return HardwareGone(f"the TPM does not answer while {doing}: check that it is there and free", detail=detail)


def explain_lockout(doing: str, tries: int, tries_max: int, recovery_s: int, detail: str) -> MpError:
    """The lockout with the TPM's own figures: tries counted, tries allowed, seconds until one is given back."""
    return HardwareLockout(
        f"the TPM is in dictionary-attack lockout ({tries} of {tries_max} failed tries) and refuses while {doing}: "
        f"it gives back one try every {recovery_s} s while powered, or its owner ends it with the lockout password",
        detail=detail,
    )
