"""A job secret as people and scanners carry it: one line of text that notices a mistyped character.

"MPJS1:" and then base32 (RFC 4648, upper case, no padding) of the secret and the first 4 bytes of
SHA-256("mpagent/1/bundle-job-secret" || secret). Dashes and spaces may stand anywhere behind the colon: people group.
"""

import base64
import hashlib
import hmac
import re
from typing import Final

from mpwire.bundlekeys import JOB_SECRET_MAX_BYTES, JOB_SECRET_MIN_BYTES
from mpwire.errors import MpError, Retry
from mpwire.labels import BUNDLE_JOB_SECRET
from mpwire.secret import Secret

PREFIX: Final = "MPJS1:"
TEXT_MAX_BYTES: Final = 1_024
"""109 characters at most, and as many dashes, spaces and line ends as anybody puts in."""
_CHECK_BYTES: Final = 4
_GROUP: Final = 4
_GAPS: Final = re.compile("[- ]")
_OTHER: Final = re.compile("[^A-Z2-7]")


class Mistyped(MpError):
    """What was typed, scanned or read is no job secret. The text says where, and never what stood there."""

    exit_code, retry = 77, Retry.OPERATOR


def write_job_secret(secret: Secret) -> str:
    """The text of 16 to 64 bytes, in groups of four characters. Raises ValueError for another length."""
    if not JOB_SECRET_MIN_BYTES <= len(secret) <= JOB_SECRET_MAX_BYTES:
        raise ValueError(f"a job secret has {JOB_SECRET_MIN_BYTES} to {JOB_SECRET_MAX_BYTES} bytes, not {len(secret)}")
    digits = base64.b32encode(secret.reveal() + _check(secret)).decode("ascii").rstrip("=")
    return PREFIX + "-".join(digits[at : at + _GROUP] for at in range(0, len(digits), _GROUP))


def read_job_secret(text: str) -> Secret:
    """One line, with or without its line end. Raises Mistyped."""
    line = text.rstrip("\r\n")
    if not line.strip():
        raise Mistyped("job secret: there is nothing")
    if len(line) > TEXT_MAX_BYTES or "\n" in line or "\r" in line:
        raise Mistyped("job secret: it is one line, and this is more")
    if not line.startswith(PREFIX):
        raise Mistyped(f"job secret: it begins with {PREFIX}; if a scanner typed it, set the scanner's keyboard layout")
    return _read_digits(_GAPS.sub("", line[len(PREFIX) :]))


def _read_digits(digits: str) -> Secret:
    strange = _OTHER.search(digits)
    if strange is not None:
        place = strange.start() + 1
        raise Mistyped(
            f"job secret: character {place} behind the colon is none of A-Z and 2-7 (there is no 0, 1, 8, 9)"
        )
    try:
        raw = base64.b32decode(digits + "=" * (-len(digits) % 8))
    except ValueError:
        raise Mistyped("job secret: characters are missing") from None
    secret, check = Secret(raw[:-_CHECK_BYTES]), raw[-_CHECK_BYTES:]
    if not JOB_SECRET_MIN_BYTES <= len(secret) <= JOB_SECRET_MAX_BYTES:
        raise Mistyped("job secret: characters are missing, or there are too many")
    is_shortest = base64.b32encode(raw).decode("ascii").rstrip("=") == digits
    if not is_shortest or not hmac.compare_digest(check, _check(secret)):
        raise Mistyped("job secret: mistyped, its check does not match; compare it character by character")
    return secret


def _check(secret: Secret) -> bytes:
    return hashlib.sha256(BUNDLE_JOB_SECRET.encode() + secret.reveal()).digest()[:_CHECK_BYTES]
