"""What a refusal of a PKCS#11 module means, in one line with the next step.

Refusals are known by the names python-pkcs11 gives to return values (PKCS#11 section 5.1).
"""

from typing import Final

from mpissuer.errors import NotNow
from mpwire.errors import MpError, Retry

_FULL: Final = {"SessionCount": "sessions", "DeviceMemory": "memory", "HostMemory": "memory"}
_GONE: Final = frozenset(
    (
        *("CryptokiNotInitialized", "DeviceError", "DeviceRemoved", "SessionClosed", "SessionHandleInvalid"),
        *("SlotIDInvalid", "TokenNotPresent", "TokenNotRecognised", "UserNotLoggedIn"),
    )
)
"""The token, or the session on it, is no longer what it was when we logged in."""
_STALE: Final = frozenset(("KeyHandleInvalid", "ObjectHandleInvalid"))
_VAGUE: Final = frozenset(("FunctionFailed", "GeneralError"))
"""What a token says that is pulled in the middle of a call (SoftHSM2), among much else."""


class TokenAway(NotNow):
    """The token is not in its slot, not the right one, or has no session left. Nothing was done; later it may be."""

    def __init__(self, detail: str) -> None:
        super().__init__("token", detail=detail)


class TokenRefused(MpError):
    """The token is there and will not do what the keys in it are for. Nothing was done; its own log says why."""

    exit_code, retry = 74, Retry.LATER


def explain(refused: RuntimeError, doing: str) -> MpError:
    """The failure behind a refusal, while `doing` (e.g. "signing")."""
    name = type(refused).__name__
    if name in _FULL:
        return TokenAway(f"no free {_FULL[name]} in the token while {doing}: another program holds them")
    if name in _GONE or name in _STALE:
        return TokenAway(f"the token went away while {doing} ({name}): put it back")
    return TokenRefused(f"the token refused while {doing} ({name}): see the log of the PKCS#11 module")


def is_worth_another_try(refused: RuntimeError) -> bool:
    """With objects looked up anew, or on a new login."""
    return type(refused).__name__ in _GONE | _STALE | _VAGUE


def is_full(refused: RuntimeError) -> bool:
    """Whether another program has to let go of something first."""
    return type(refused).__name__ in _FULL


def is_gone(refused: RuntimeError) -> bool:
    """Whether a new login may help."""
    return type(refused).__name__ in _GONE


def is_stale(refused: RuntimeError) -> bool:
    """Whether the object of a handle is no longer there, or no longer under this handle."""
    return type(refused).__name__ in _STALE
