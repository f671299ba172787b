"""The one error base of every room: what failed, what it means for the caller, and two texts.

The public text may reach a peer or a screen and so holds no secret; the detail goes to the local log alone.
Exit codes are those of sysexits.h; tests/walls compares them with docs/operate.md.
"""

from enum import StrEnum
from typing import ClassVar


class Retry(StrEnum):
    """What has to happen before trying again can help."""

    NEVER = "never"
    LATER = "later"
    OPERATOR = "operator"


class MpError(Exception):
    """A failure we foresaw. str() may reach a peer or a screen, so it holds no secret."""

    exit_code: ClassVar[int] = 70
    retry: ClassVar[Retry] = Retry.NEVER

    def __init__(self, public: str, *, detail: str = "") -> None:
        super().__init__(public)
        self.detail = detail


class PeerBroke(MpError):
    """The peer spoke and broke wire.md: malformed, out of turn, or unauthentic. Nothing we keep has changed."""

    exit_code, retry = 76, Retry.LATER


class Malformed(PeerBroke):
    """Bytes that are not what wire.md section 2 or 3 allows; raised by the decoder and the shapes only."""


class Unauthentic(PeerBroke):
    """A signature, MAC, certificate or AEAD tag that does not verify."""
