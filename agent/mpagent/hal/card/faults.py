"""What a card's status word and a result of PC/SC mean for the caller, in one line with the next step.

Status words: ISO/IEC 7816-4 section 5.6, SP 800-73-4 Part 2. PC/SC results: pcsclite.h of pcsc-lite 1.9.
"""

from collections.abc import Mapping
from typing import Final

from mpagent.errors import HardwareAbsent, HardwareBusy, HardwareGone
from mpwire.errors import MpError

NOT_FOUND: Final = 0x6A82
BLOCKED: Final = 0x6983
_WORDS: Final[Mapping[int, str]] = {
    0x6581: "its memory failed",
    0x6700: "wrong length",
    0x6882: "secure messaging wanted",
    0x6982: "PIN wanted",
    BLOCKED: "PIN blocked",
    0x6985: "conditions of use not met",
    0x6A80: "wrong data",
    0x6A81: "not supported",
    NOT_FOUND: "not found",
    0x6A86: "wrong parameters",
    0x6A88: "no such key",
    0x6D00: "instruction unknown",
    0x6E00: "class unknown",
    0x6F00: "no diagnosis",
}


def name_status(status: int) -> str:
    """The status word in hex and, where there is one, in words."""
    return f"{status:04X}, {_WORDS[status]}" if status in _WORDS else f"{status:04X}"


def explain_status(status: int, doing: str) -> MpError:
    """The failure behind a status word that no caller expects, while `doing` (e.g. "signing")."""
    return HardwareGone(
        f"the card refused with {name_status(status)} while {doing}",
        advice="compare the card with what its issuer put on it: opensc-tool and pkcs15-tool show it",
    )


_REMOVED: Final = (
    "the card was taken out or lost its power",
    "put the card back and run the command again; nothing is lost",
)
_NO_SERVICE: Final = ("the PC/SC service does not run", "start it: systemctl start pcscd.socket")
_NO_READER: Final = ("there is no card reader", "plug the reader in; pcscd needs its driver (libccid)")
_READER_LEFT: Final = ("the card reader was taken away", "plug the reader in again and run the command again")
_GONE: Final[Mapping[str, tuple[str, str]]] = {
    "SCARD_E_NO_SMARTCARD": ("there is no card in the reader", "put the card in"),
    "SCARD_W_REMOVED_CARD": _REMOVED,
    "SCARD_E_NOT_TRANSACTED": _REMOVED,
    "SCARD_E_COMM_DATA_LOST": _REMOVED,
    "SCARD_E_READER_UNAVAILABLE": _READER_LEFT,
    "SCARD_E_UNKNOWN_READER": _READER_LEFT,
    "SCARD_W_UNRESPONSIVE_CARD": ("the card does not answer to reset", "turn the card over, or clean its contacts"),
    "SCARD_W_UNSUPPORTED_CARD": ("the reader does not know this kind of card", "use a PIV card"),
    "SCARD_E_PROTO_MISMATCH": ("the card speaks neither T=0 nor T=1", "use a PIV card"),
    "SCARD_W_SECURITY_VIOLATION": ("this user may not use the card", "allow it in pcscd's polkit rules"),
}
_ABSENT: Final[Mapping[str, tuple[str, str]]] = {
    "SCARD_E_NO_SERVICE": _NO_SERVICE,
    "SCARD_E_SERVICE_STOPPED": _NO_SERVICE,
    "SCARD_E_NO_READERS_AVAILABLE": _NO_READER,
}
_BUSY: Final[Mapping[str, str]] = {
    "SCARD_E_SHARING_VIOLATION": "another program holds the card: end it (gpg's scdaemon keeps a card for good)",
    "SCARD_W_RESET_CARD": "another program reset the card",
    "SCARD_W_UNPOWERED_CARD": "the card lost its power for a moment",
    "SCARD_E_SERVER_TOO_BUSY": "the PC/SC service is busy",
    "SCARD_E_TIMEOUT": "the PC/SC service did not answer in time",
}
RESULTS: Final = (*_ABSENT, *_BUSY, *_GONE)
"""Every result with a meaning of its own."""


def explain_result(name: str, code: int, doing: str) -> MpError:
    """The failure behind a PC/SC result, by its name in pcsclite.h, while `doing`. Absent: no service, or no reader."""
    detail = f"PC/SC result 0x{code & 0xFFFFFFFF:08X} {name} while {doing}"
    if name in _ABSENT:
        text, advice = _ABSENT[name]
        return HardwareAbsent(f"{text} ({doing})", detail=detail, advice=advice)
    if name in _BUSY:
        return HardwareBusy(f"{_BUSY[name]} ({doing})", detail=detail)
    text, advice = _GONE.get(
        name, (f"the PC/SC service refused with 0x{code & 0xFFFFFFFF:08X}", "look at pcscd's log: journalctl -u pcscd")
    )
    return HardwareGone(f"{text} ({doing})", detail=detail, advice=advice)
