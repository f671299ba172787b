"""A key pair in the token as the library's private key: what signs certificates and messages in software signs here."""

from collections.abc import Callable
from typing import Any, Final, NoReturn

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from mpserver.errors import SetUp
from mpwire.p256 import SCALAR_BYTES, load_point

Sign = Callable[[bytes], bytes]
"""ES256 over the whole message: r || s."""


class TokenKey(ec.EllipticCurvePrivateKey):
    """Signs ECDSA over SHA-256, and nothing else: what would need the private value raises SetUp."""

    def __init__(self, point: bytes, sign: Sign) -> None:
        self._public: Final = load_point(point)
        self._sign: Final = sign

    @property
    def curve(self) -> ec.EllipticCurve:
        """P-256."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """256."""
        return self._public.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half, which the private one has proven to be its own."""
        return self._public

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """DER, as the library's own keys give it."""
        if not isinstance(signature_algorithm, ec.ECDSA) or not isinstance(signature_algorithm.algorithm, SHA256):
            _refuse()
        raw = self._sign(bytes(data))
        r, s = raw[:SCALAR_BYTES], raw[SCALAR_BYTES:]
        return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))

    def exchange(self, algorithm: Any, peer_public_key: Any) -> bytes:
        """Never."""
        _refuse()

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        """Never."""
        _refuse()

    def private_bytes(self, encoding: Any, format: Any, encryption_algorithm: Any) -> bytes:
        """Never."""
        _refuse()

    def __copy__(self) -> "TokenKey":
        return self

    def __deepcopy__(self, memo: dict[Any, Any]) -> "TokenKey":
        return self


def _refuse() -> NoReturn:
    raise SetUp("the key is in a token, which signs ECDSA over SHA-256 and gives no key away")
