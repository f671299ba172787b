"""ECDSA and ECDH on P-256 (FIPS 186-5, SP 800-56A), the only curve of wire version 1.

A point is 65 bytes, 0x04 || X || Y (SEC 1 section 2.3.3). A signature is r || s, 64 bytes, big-endian
(RFC 9053 section 2.1); high S is accepted, so signature bytes name nothing.
"""

from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from mpwire.errors import Malformed, Unauthentic
from mpwire.secret import Secret

POINT_BYTES: Final = 65
SIGNATURE_BYTES: Final = 64
SCALAR_BYTES: Final = 32
ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""n of P-256 (SP 800-186 section 3.2.1.3)."""
LOADED_POINTS_MAX: Final = 1024
"""Public keys kept loaded, about 1 KiB each: a line's devices at work at once and the class keys."""

_CURVE: Final = ec.SECP256R1()
_ES256: Final = ec.ECDSA(SHA256())
_ES256_DIGEST: Final = ec.ECDSA(Prehashed(SHA256()))
_ECDH: Final = ec.ECDH()
_SPKI_HEAD: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
"""SubjectPublicKeyInfo of P-256 (RFC 5480) up to the point."""


@lru_cache(maxsize=LOADED_POINTS_MAX)
def load_point(point: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of an uncompressed point; Malformed unless it lies on the curve."""
    if len(point) != POINT_BYTES or point[0] != 4:
        raise Malformed("p256-point")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, point)
    except ValueError:
        raise Malformed("p256-point") from None


def verify(point: bytes, message: bytes, signature: bytes) -> None:
    """ES256 over the whole message. Raises Unauthentic."""
    _verify(point, message, signature, _ES256)


def verify_digest(point: bytes, digest: bytes, signature: bytes) -> None:
    """ECDSA over a SHA-256 digest made elsewhere. Raises Unauthentic."""
    if len(digest) != 32:
        raise Unauthentic("signature")
    _verify(point, digest, signature, _ES256_DIGEST)


def _verify(point: bytes, signed: bytes, signature: bytes, algorithm: ec.ECDSA) -> None:
    if len(signature) != SIGNATURE_BYTES:
        raise Unauthentic("signature")
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        load_point(point).verify(der, signed, algorithm)
    except InvalidSignature:
        raise Unauthentic("signature") from None


def write_spki(point: bytes) -> bytes:
    """SubjectPublicKeyInfo, DER, 91 bytes."""
    load_point(point)
    return _SPKI_HEAD + point


def read_spki(der: bytes) -> bytes:
    """The point of a P-256 SubjectPublicKeyInfo; Malformed for any other key or spelling."""
    if not der.startswith(_SPKI_HEAD):
        raise Malformed("p256-spki")
    point = der[len(_SPKI_HEAD) :]
    load_point(point)
    return point


class SoftKey:
    """A private key in memory. At rest it exists only sealed (design section 4); this class writes nothing."""

    __slots__ = ("_key", "_point")

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        if not isinstance(key.curve, ec.SECP256R1):
            raise Malformed("p256-curve")
        self._key = key
        # By its numbers: the library's own writer brings all of its file formats with it, 10 ms of a cold start.
        at = key.public_key().public_numbers()
        self._point = b"\x04" + at.x.to_bytes(32, "big") + at.y.to_bytes(32, "big")

    @classmethod
    def generate(cls) -> "SoftKey":
        """A fresh key from the system's randomness."""
        return cls(ec.generate_private_key(_CURVE))

    @classmethod
    def from_scalar(cls, scalar: Secret) -> "SoftKey":
        """The key of a 32-byte big-endian scalar; Malformed unless 0 < scalar < n."""
        value = int.from_bytes(scalar.reveal(), "big")
        if len(scalar) != SCALAR_BYTES or not 0 < value < ORDER:
            raise Malformed("p256-scalar")
        return cls(ec.derive_private_key(value, _CURVE))

    def to_scalar(self) -> Secret:
        """32 bytes, big-endian."""
        return Secret(self._key.private_numbers().private_value.to_bytes(SCALAR_BYTES, "big"))

    def public_key(self) -> bytes:
        """The 65-byte point."""
        return self._point

    def sign(self, message: bytes) -> bytes:
        """ES256 over the whole message, with fresh randomness: r || s."""
        return self._join(self._key.sign(message, _ES256))

    def sign_digest(self, digest: bytes) -> bytes:
        """ECDSA over a SHA-256 digest made elsewhere: r || s."""
        return self._join(self._key.sign(digest, _ES256_DIGEST))

    def ecdh(self, peer: bytes) -> Secret:
        """The X coordinate, 32 bytes. Raises Malformed when the peer's point is not on the curve."""
        return Secret(self._key.exchange(_ECDH, load_point(peer)))

    def __repr__(self) -> str:
        return f"SoftKey(public {self._point.hex()})"

    @staticmethod
    def _join(der: bytes) -> bytes:
        r, s = decode_dss_signature(der)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
