"""COSE_Sign1 (RFC 9052 section 4.2) and COSE_Key for P-256, read more strictly than the RFC asks.

The envelope only: which key must have signed, and what the payload means, is decided above. MP-ES256 and
TPM-QUOTE-ES256 compose over `sig_structure` and `join_sign1`.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Final, NamedTuple

from mpwire import p256
from mpwire.codec import Item, Tag, decode, encode, encode_octets
from mpwire.errors import Malformed, Unauthentic
from mpwire.registry import ALG_ES256, HEADER_ALG, HEADER_CRIT, HEADER_TYP

RULES: Final = (
    "cose-structure",
    "cose-protected",
    "cose-alg",
    "cose-crit",
    "cose-typ",
    "cose-header",
    "cose-unprotected",
    "cose-detached",
    "cose-signature",
    "cose-key",
)
"""Every public text, beside codec.RULES and "p256-point", that the readers of this module refuse with."""

_KTY, _CRV, _X, _Y = 1, -1, -2, -3
_KTY_EC2, _CRV_P256 = 2, 1


class Sign1(NamedTuple):
    """A well-formed envelope; nothing in it is authentic yet."""

    protected: bytes
    """As it stood on the wire: what the signature covers."""
    headers: Mapping[int | str, Item]
    """`protected`, decoded."""
    unprotected: dict[int | str, Item]
    payload: bytes
    signature: bytes

    @property
    def alg(self) -> int:
        """One of the algorithms the reader was given."""
        alg = self.headers[HEADER_ALG]
        assert isinstance(alg, int)  # read_sign1 looked
        return alg


def read_sign1(
    raw: bytes,
    *,
    typ: str,
    algs: frozenset[int],
    unprotected_allowed: frozenset[int] = frozenset(),
    protected_allowed: frozenset[int] = frozenset(),
) -> Sign1:
    """Read a tagged COSE_Sign1 with its payload inside. Raises Malformed with a name out of RULES or codec.RULES.

    `protected_allowed` are labels beside alg and typ (RFC 9596); a label in neither set is refused, critical or not.
    """
    tagged = decode(raw)
    if not isinstance(tagged, Tag) or not isinstance(tagged.value, list) or len(tagged.value) != 4:
        raise Malformed("cose-structure")
    protected, unprotected, payload, signature = tagged.value
    if not isinstance(protected, bytes) or not isinstance(unprotected, dict):
        raise Malformed("cose-structure")
    read = _read_short_protected if len(protected) <= PROTECTED_KEPT_BYTES else _read_protected
    headers = read(protected, typ, algs, protected_allowed)
    if not unprotected.keys() <= unprotected_allowed - _PROTECTED_ONLY:
        raise Malformed("cose-unprotected")
    if not isinstance(payload, bytes):
        raise Malformed("cose-detached")
    if not isinstance(signature, bytes) or not signature:
        raise Malformed("cose-signature")
    return Sign1(protected, headers, unprotected, payload, signature)


PROTECTED_KEPT: Final = 64
PROTECTED_KEPT_BYTES: Final = 64
"""Protected headers kept as read: every device says the same few, an algorithm, a type and a profile."""
_PROTECTED_ONLY: Final = frozenset({HEADER_ALG, HEADER_CRIT, HEADER_TYP})


def _read_protected(
    protected: bytes, typ: str, algs: frozenset[int], allowed: frozenset[int]
) -> Mapping[int | str, Item]:
    headers = decode(protected) if protected else {}
    if not isinstance(headers, dict):
        raise Malformed("cose-protected")
    alg = headers.get(HEADER_ALG)
    if type(alg) is not int or alg not in algs:
        raise Malformed("cose-alg")
    if HEADER_CRIT in headers:  # whatever it lists, we understand no critical header
        raise Malformed("cose-crit")
    if headers.get(HEADER_TYP) != typ:
        raise Malformed("cose-typ")
    if not headers.keys() <= allowed | _PROTECTED_ONLY:
        raise Malformed("cose-header")
    return MappingProxyType(headers)


_read_short_protected: Final = lru_cache(maxsize=PROTECTED_KEPT)(_read_protected)


_SIGNATURE1: Final = b"\x84" + encode("Signature1")


def sig_structure(protected: bytes, external_aad: bytes, payload: bytes) -> bytes:
    """What a COSE_Sign1's signature covers (RFC 9052 section 4.4)."""
    return b"".join((_SIGNATURE1, *map(encode_octets, (protected, external_aad, payload))))


def join_sign1(protected: bytes, unprotected: Mapping[int, object], payload: bytes, signature: bytes) -> bytes:
    """The tagged envelope, for a signer whose unprotected headers are known only after it signed."""
    beside = encode(dict(unprotected)) if unprotected else b"\xa0"
    return b"".join((b"\xd2\x84", encode_octets(protected), beside, *map(encode_octets, (payload, signature))))


def write_sign1(
    protected_headers: Mapping[int, object],
    payload: bytes,
    external_aad: bytes,
    sign: Callable[[bytes], bytes],
    unprotected: Mapping[int, object] | None = None,
) -> bytes:
    """A tagged COSE_Sign1; `sign` gets the whole Sig_structure. Its errors pass through, nothing is left behind."""
    return sign_protected(encode(dict(protected_headers)), payload, external_aad, sign, unprotected)


def sign_protected(
    protected: bytes,
    payload: bytes,
    external_aad: bytes,
    sign: Callable[[bytes], bytes],
    unprotected: Mapping[int, object] | None = None,
) -> bytes:
    """`write_sign1` for protected headers that are spelled already."""
    signature = sign(sig_structure(protected, external_aad, payload))
    return join_sign1(protected, unprotected or {}, payload, signature)


def verify_es256(sign1: Sign1, point: bytes, external_aad: bytes) -> None:
    """Raises Unauthentic unless the envelope says ES256 and the key `point` signed it under `external_aad`."""
    if sign1.alg != ALG_ES256:
        raise Unauthentic("cose-alg")
    p256.verify(point, sig_structure(sign1.protected, external_aad, sign1.payload), sign1.signature)


def write_key(point: bytes) -> dict[int, int | bytes]:
    """COSE_Key of a P-256 point (RFC 9053 section 7.1.1), uncompressed, without optional members."""
    p256.load_point(point)
    return {_KTY: _KTY_EC2, _CRV: _CRV_P256, _X: point[1:33], _Y: point[33:]}


_BEFORE_X: Final = b"\xa4" + b"".join(map(encode, (_KTY, _KTY_EC2, _CRV, _CRV_P256, _X)))
_BEFORE_Y: Final = encode(_Y)


def spell_key(point: bytes) -> bytes:
    """`encode` of `write_key`."""
    p256.load_point(point)
    return b"".join((_BEFORE_X, encode_octets(point[1:33]), _BEFORE_Y, encode_octets(point[33:])))


def read_key(item: object) -> bytes:
    """The point of a COSE_Key that has the four members `write_key` gives and no other. Raises Malformed."""
    if not isinstance(item, dict) or item.keys() != {_KTY, _CRV, _X, _Y}:
        raise Malformed("cose-key")
    kty, crv, x, y = item[_KTY], item[_CRV], item[_X], item[_Y]
    if type(kty) is not int or type(crv) is not int or (kty, crv) != (_KTY_EC2, _CRV_P256):
        raise Malformed("cose-key")
    if not isinstance(x, bytes) or not isinstance(y, bytes) or len(x) != 32 or len(y) != 32:
        raise Malformed("cose-key")
    point = b"\x04" + x + y
    p256.load_point(point)
    return point


@lru_cache(maxsize=p256.LOADED_POINTS_MAX)
def thumbprint(point: bytes) -> bytes:
    """SHA-256 over the deterministic COSE_Key (RFC 9679 section 3): names a public key."""
    return sha256(spell_key(point)).digest()
