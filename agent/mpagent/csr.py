"""A PKCS#10 request with nothing in it but a P-256 key and its proof of possession (RFC 2986, RFC 5480).

The issuer takes only these two from a request and writes the subject itself, so the subject is empty and the request
is a fixed template. A library would cost a cold enrollment 20 ms and 7 MiB (docs/adr/0006).
"""

from typing import Final

from mpagent.hal.ports import DeviceKey
from mpwire import p256

_VERSION_AND_SUBJECT: Final = bytes.fromhex("020100" + "3000")
_NO_ATTRIBUTES: Final = bytes.fromhex("a000")
_ECDSA_WITH_SHA256: Final = bytes.fromhex("300a06082a8648ce3d040302")


def write_csr(key: DeviceKey) -> bytes:
    """DER of a CertificationRequest signed by `key`; its errors pass through."""
    body = _wrap(0x30, _VERSION_AND_SUBJECT + p256.write_spki(key.public_key()) + _NO_ATTRIBUTES)
    signature = key.sign(body)
    pair = _wrap(0x30, _integer(signature[:32]) + _integer(signature[32:]))
    return _wrap(0x30, body + _ECDSA_WITH_SHA256 + _wrap(0x03, b"\x00" + pair))


def _integer(big_endian: bytes) -> bytes:
    value = int.from_bytes(big_endian, "big")
    return _wrap(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _wrap(tag: int, content: bytes) -> bytes:
    """Tag, definite length, content (X.690 section 8.1); contents here stay below 256 bytes."""
    length = bytes([len(content)]) if len(content) < 128 else bytes([0x81, len(content)])
    return bytes([tag]) + length + content
