"""MP-ES256: what the CAAM of an i.MX8M signs with its manufacturing-protection key, and how to verify it.

The engine hashes its 32 MPMR bytes before the message, so the MPMR travels beside the signature and the hash
authenticates it; a caller still appraises it against an allow-list. The key is a class key: it never says which unit.
Source: docs/hardware.md (MPSign), from two recorded signatures of real parts.
"""

from hashlib import sha256
from typing import Final

from mpwire import p256
from mpwire.errors import Malformed, Unauthentic
from mpwire.limits import MP_MESSAGE_MAX_BYTES

MPMR_BYTES: Final = 32

MPMR_ZERO: Final = bytes(MPMR_BYTES)
"""A boot chain without OP-TEE leaves the register empty."""
MPMR_OPTEE: Final = bytes.fromhex("756c61766f7420656c6966206874206c504d20656320524d65746e6f00006176")
"""OP-TEE's constant as the engine hashes it: each 32-bit word reversed, the last one filled from the text's start."""
MPMR_OPTEE_FIXED: Final = MPMR_OPTEE[:28] + bytes.fromhex("0000746e")
"""The same if OP-TEE ever fills the last word from the text's end; no release seen does."""


def digest(message: bytes, mpmr: bytes) -> bytes:
    """SHA-256(MPMR || message). Raises Malformed outside 1 to MP_MESSAGE_MAX_BYTES or for an MPMR of another size."""
    if not 0 < len(message) <= MP_MESSAGE_MAX_BYTES:
        raise Malformed("mp-message-size")
    if len(mpmr) != MPMR_BYTES:
        raise Malformed("mp-mpmr-size")
    return sha256(mpmr + message).digest()


def verify_mp(point: bytes, message: bytes, mpmr: bytes, signature: bytes) -> None:
    """Raises Unauthentic unless the MP key `point` signed `message` on a chip whose MPMR was `mpmr`."""
    signed = digest(message, mpmr)
    if not any(signature):  # the driver clears its buffers first, so a failed call shows as zeros
        raise Unauthentic("mp-signature-zero")
    try:
        p256.verify_digest(point, signed, signature)
    except Unauthentic:
        raise Unauthentic("mp-signature") from None


def read_key(raw: bytes) -> bytes:
    """The 65-byte point of the 64 bytes X || Y that the chip returns; Malformed if zero or off the curve."""
    point = b"\x04" + raw
    p256.load_point(point)
    return point


def key_id(point: bytes) -> bytes:
    """The attester-id of an MP key: SHA-256(X || Y)."""
    p256.load_point(point)
    return sha256(point[1:]).digest()
