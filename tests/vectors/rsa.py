"""RSA keys of the fixed world, and RSASSA-PSS (RFC 8017 section 8.1.1) by hand: a library salts at random.

Like every key here they come from labels: each prime is the first one at `offset` above a labelled number.
"""

from hashlib import sha256
from typing import Final

from mpwire import optee
from tests.vectors.world import fill

PRIME_BYTES: Final = 192
TWO_TOP_BITS: Final = 3 << 1534
"""So that the product of two primes has 3072 bits."""


def _prime(label: str, offset: int) -> int:
    return (int.from_bytes(fill(f"key/{label}", PRIME_BYTES), "big") | TWO_TOP_BITS | 1) + offset


class FixedRsa:
    """A key whose signatures never change: the salt is labelled too."""

    def __init__(self, label: str, p_offset: int, q_offset: int) -> None:
        self._label = label
        self.p, self.q = _prime(f"{label}/p", p_offset), _prime(f"{label}/q", q_offset)
        self._d = pow(optee.EXPONENT, -1, (self.p - 1) * (self.q - 1))
        self.modulus = self.p * self.q
        self.public = optee.write_public(self.modulus.to_bytes(384, "big"), b"\x01\x00\x01")

    def sign_digest(self, digest: bytes, salt_bytes: int = 32) -> bytes:
        """EMSA-PSS (section 9.1.1) over a SHA-256 digest made elsewhere, then RSASP1."""
        salt = fill(f"salt/{self._label}", salt_bytes)
        hashed = sha256(bytes(8) + digest + salt).digest()
        block = (b"\x01" + salt).rjust(384 - 32 - 1, b"\x00")
        masked = bytearray(a ^ b for a, b in zip(block, _mgf1(hashed, len(block)), strict=True))
        masked[0] &= 0x7F  # emBits is one less than the modulus has
        encoded = int.from_bytes(bytes(masked) + hashed + b"\xbc", "big")
        return pow(encoded, self._d, self.modulus).to_bytes(384, "big")


def _mgf1(seed: bytes, size: int) -> bytes:
    blocks = (sha256(seed + count.to_bytes(4, "big")).digest() for count in range(size // 32 + 1))
    return b"".join(blocks)[:size]


OPTEE: Final = FixedRsa("optee", 384, 230)
OTHER_OPTEE: Final = FixedRsa("other-optee", 138, 686)
MEASUREMENT: Final = fill("optee-measurement", 32)
"""What OP-TEE's hash of itself is in the vectors."""
