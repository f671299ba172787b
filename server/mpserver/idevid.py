"""IEEE 802.1AR device certificates, spelled by hand: all but name, key, serial and end is the same for every board.

The general builder takes as long as everything else of a grant's cryptography together; what it makes is compared with
what is made here in tests/mpserver.
"""

import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpserver.certificates import key_identifier, leaf_usage
from mpwire.p256 import write_spki

MOMENTS_KEPT: Final = 16
"""The end that all share, and the seconds that orders of a batch or two were made in."""
_ECDSA: Final = ec.ECDSA(SHA256())
_ALGORITHM: Final = bytes.fromhex("300a06082a8648ce3d040302")
"""AlgorithmIdentifier of ecdsa-with-SHA256 (RFC 5758 section 3.2): without parameters."""
_VERSION_3: Final = bytes.fromhex("a003020102")
_SEQUENCE, _INTEGER, _BITS, _OCTETS, _TRUE = 0x30, 0x02, 0x03, 0x04, b"\x01\x01\xff"
_UTC_TIME, _GENERALIZED_TIME, _EXTENSIONS = 0x17, 0x18, 0xA3


class DeviceCa:
    """Signs for clients alone; the CA's own certificate says so for the whole chain."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._key, self._issuer = key, certificate.subject.public_bytes()
        self._chain = certificate.public_bytes(Encoding.DER)
        self._extensions = _write_extensions(certificate)

    def certify(self, point: bytes, subject: str, ueid: bytes, now: int, not_after: int) -> tuple[bytes, ...]:
        """DER, leaf first, without the root. The subject's serialNumber is the ueid without its type octet, in hex:
        64 characters, the most X.520 allows, of the PrintableString that IEEE 802.1AR section 8.6 wants."""
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, subject),
                x509.NameAttribute(NameOID.SERIAL_NUMBER, ueid[1:].hex()),
            ]
        )
        statement = _der(
            _SEQUENCE,
            _VERSION_3,
            _integer(x509.random_serial_number()),
            _ALGORITHM,
            self._issuer,
            _der(_SEQUENCE, _moment(now), _moment(not_after)),
            name.public_bytes(),
            write_spki(point),
            self._extensions,
        )
        signature = self._key.sign(statement, _ECDSA)
        return _der(_SEQUENCE, statement, _ALGORITHM, _der(_BITS, b"\0", signature)), self._chain


def _write_extensions(issuer: x509.Certificate) -> bytes:
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (leaf_usage(), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        (key_identifier(issuer), False),
    )
    rows = (
        _der(_SEQUENCE, _oid(one), _TRUE if critical else b"", _der(_OCTETS, one.public_bytes()))
        for one, critical in extensions
    )
    return _der(_EXTENSIONS, _der(_SEQUENCE, *rows))


def _oid(extension: x509.ExtensionType) -> bytes:
    """All of ours lie at 2.5.29.n, n < 128: 55 1d n (X.690 section 8.19)."""
    family, arc = extension.oid.dotted_string.rsplit(".", 1)
    assert family == "2.5.29" and int(arc) < 128
    return bytes((0x06, 3, 0x55, 0x1D, int(arc)))


def _der(tag: int, *parts: bytes) -> bytes:
    """Definite length in the fewest octets (X.690 section 10.1)."""
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    spelled = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(spelled))) + spelled + body


def _integer(value: int) -> bytes:
    """Of a positive number: one leading zero bit, and no more octets than that needs (X.690 section 8.3)."""
    return _der(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


@lru_cache(maxsize=MOMENTS_KEPT)
def _moment(seconds: int) -> bytes:
    """UTCTime through 2049, GeneralizedTime from 2050 (RFC 5280 section 4.1.2.5)."""
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    if moment.year < 2050:
        return _der(_UTC_TIME, moment.strftime("%y%m%d%H%M%SZ").encode())
    return _der(_GENERALIZED_TIME, f"{moment.year:04d}{moment.strftime('%m%d%H%M%SZ')}".encode())
