"""P-256 from a bare scalar: what CAAM's public-key engine does, without its side channels."""

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

ORDER: Final = 0xFFFFFFFF_00000000_FFFFFFFF_FFFFFFFF_BCE6FAAD_A7179E84_F3B9CAC2_FC632551
"""n of P-256 (SP 800-186 section 3.2.1.3)."""


def public_half(scalar: int) -> bytes:
    """X || Y, 64 bytes big-endian."""
    numbers = ec.derive_private_key(scalar, ec.SECP256R1()).public_key().public_numbers()
    return numbers.x.to_bytes(32) + numbers.y.to_bytes(32)


def sign(scalar: int, digest: bytes) -> bytes:
    """ECDSA over a 32-byte digest: r || s, 64 bytes. Fresh randomness; s as it falls."""
    key = ec.derive_private_key(scalar, ec.SECP256R1())
    r, s = decode_dss_signature(key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))
    return r.to_bytes(32) + s.to_bytes(32)
