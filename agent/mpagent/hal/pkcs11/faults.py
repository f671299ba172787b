"""What a refusal of a PKCS#11 module means for the caller, in one line with the next step.

Refusals are known by the names python-pkcs11 gives to return values (PKCS#11 section 5.1): they are the same in every
release, while the classes behind them moved.
"""

from typing import Final

from mpagent.errors import HardwareBusy, HardwareGone
from mpwire.errors import MpError

_FULL: Final = {"SessionCount": "sessions", "DeviceMemory": "memory", "HostMemory": "memory"}
_GONE: Final = frozenset(
    (
        *("DeviceError", "DeviceRemoved", "KeyHandleInvalid", "ObjectHandleInvalid", "SessionClosed"),
        *("SessionHandleInvalid", "SlotIDInvalid", "TokenNotPresent", "TokenNotRecognised", "UserNotLoggedIn"),
    )
)
"""The token, or the session on it, is no longer what it was when we logged in."""
_DAMAGED: Final = frozenset(("EncryptedDataInvalid", "EncryptedDataLenRange"))


def explain(refused: RuntimeError, doing: str) -> MpError:
    """The failure behind a refusal, while `doing` (e.g. "signing")."""
    name = type(refused).__name__
    detail = f"{name} {refused} while {doing}"
    if name in _FULL:
        return HardwareBusy(
            f"no free {_FULL[name]} in the PKCS#11 token while {doing}: another program holds them", detail=detail
        )
    if name in _GONE:
        return HardwareGone(
            f"the PKCS#11 token went away while {doing} ({name})",
            detail=detail,
            advice="check that the token is in its slot (OP-TEE: that tee-supplicant runs), then start again",
        )
    return HardwareGone(
        f"the PKCS#11 token refused while {doing} ({name})",
        detail=detail,
        advice="see the PKCS#11 module's own log for the reason",
    )


def is_about_ciphertext(refused: RuntimeError) -> bool:
    """Whether the module itself says that the bytes it was given to decrypt are wrong."""
    return type(refused).__name__ in _DAMAGED
