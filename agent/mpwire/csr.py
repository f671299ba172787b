"""A PKCS#10 request with nothing in it but a P-256 key and its proof of possession (RFC 2986, RFC 5480).

The issuer takes only these two and writes the subject itself, so the request is a fixed template (docs/wire.md 4.3.1):
written byte for byte, and read byte for byte, which leaves a hostile request nothing to be parsed (docs/adr/0006).
"""

from collections.abc import Callable
from typing import Final

from mpwire import p256
from mpwire.errors import Malformed

_VERSION_AND_SUBJECT: Final = bytes.fromhex("020100" + "3000")
_NO_ATTRIBUTES: Final = bytes.fromhex("a000")
_ECDSA_WITH_SHA256: Final = bytes.fromhex("300a06082a8648ce3d040302")
_BODY_HEAD: Final = bytes.fromhex("3062")
_BODY_BYTES: Final = 100
_SPKI_AT: Final = len(_BODY_HEAD + _VERSION_AND_SUBJECT)


def write_csr(point: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """DER of a CertificationRequest for the key `point`; `sign` gives ES256 as r || s, and its errors pass through."""
    body = _BODY_HEAD + _VERSION_AND_SUBJECT + p256.write_spki(point) + _NO_ATTRIBUTES
    return _join(body, sign(body))


def read_csr(der: bytes) -> bytes:
    """The 65-byte point of a request in the template. Raises Malformed, or Unauthentic without proof of possession."""
    body_at = 2 if der[1:2] < b"\x80" else 3
    body = der[body_at : body_at + _BODY_BYTES]
    signature = _read_signature(der[body_at + _BODY_BYTES + len(_ECDSA_WITH_SHA256) :])
    if der != _join(body, signature):
        raise Malformed("csr-template")
    spki = body[_SPKI_AT : -len(_NO_ATTRIBUTES)]
    if body != _BODY_HEAD + _VERSION_AND_SUBJECT + spki + _NO_ATTRIBUTES:
        raise Malformed("csr-template")
    point = p256.read_spki(spki)
    p256.verify(point, body, signature)
    return point


def _join(body: bytes, signature: bytes) -> bytes:
    pair = _wrap(0x30, _integer(signature[:32]) + _integer(signature[32:]))
    return _wrap(0x30, body + _ECDSA_WITH_SHA256 + _wrap(0x03, b"\x00" + pair))


def _read_signature(bits: bytes) -> bytes:
    """r || s out of a BIT STRING that holds an ECDSA-Sig-Value; the caller writes it again and compares."""
    values, at = [], 5
    for _ in range(2):
        if bits[at : at + 1] != b"\x02" or len(bits) < at + 2:
            raise Malformed("csr-template")
        end = at + 2 + bits[at + 1]
        values.append(int.from_bytes(bits[at + 2 : end], "big"))
        at = end
    if max(values) >> 256:
        raise Malformed("csr-template")
    return values[0].to_bytes(32, "big") + values[1].to_bytes(32, "big")


def _integer(big_endian: bytes) -> bytes:
    value = int.from_bytes(big_endian, "big")
    return _wrap(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _wrap(tag: int, content: bytes) -> bytes:
    """Tag, definite length, content (X.690 section 8.1); contents here stay below 256 bytes."""
    length = bytes([len(content)]) if len(content) < 128 else bytes([0x81, len(content)])
    return bytes([tag]) + length + content
