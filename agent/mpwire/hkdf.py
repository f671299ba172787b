"""HKDF with SHA-256 (RFC 5869), in the two halves that hardware may do apart; every output here is 32 bytes."""

import hashlib
import hmac
from typing import Final

from mpwire.secret import Secret

HASH_BYTES: Final = 32
_FIRST: Final = b"\x01"


def extract(salt: bytes, material: Secret) -> Secret:
    """HKDF-Extract (section 2.2): the pseudorandom key, 32 bytes. An empty salt stands for 32 zero bytes."""
    return Secret(hmac.digest(salt, material.reveal(), hashlib.sha256))


def expand(key: Secret, info: bytes) -> Secret:
    """HKDF-Expand (section 2.3) to 32 bytes, its first block: HMAC(key, info || 0x01), as a token's C_Sign makes it."""
    return Secret(hmac.digest(key.reveal(), info + _FIRST, hashlib.sha256))
