"""The issuer's certificates: COSE ones for roles (docs/wire.md 5.1), X.509 for TLS, the device CA and devices.

One root key signs both kinds. The device CA may sign client certificates only, and no CA below it: a device
certificate can never stand for this server.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpwire import labels, registry
from mpwire.cose import thumbprint, write_sign1
from mpwire.messages.issuer import ISSUER_CERTIFICATE, IssuerCertificate
from mpwire.p256 import SoftKey, load_point

DAY_S: Final = 86_400
ROLE_LIFE_S: Final = 90 * DAY_S
"""Longest life of an issuer certificate. Source: design section 4."""
RENEW_BELOW_S: Final = ROLE_LIFE_S // 3
FOR_EVER: Final = 253_402_300_799
"""99991231235959Z: no well-defined end (RFC 5280 section 4.1.2.5), as IEEE 802.1AR section 8.7 wants for an IDevID."""
EPOCH_FIRST: Final = 1
SERIAL_BYTES: Final = 20
"""The most that RFC 5280 section 4.1.2.2 allows."""
FORMS_KEPT: Final = 64
"""Device certificates kept to be filled for other boards, about 400 bytes each: the slots of the products at work."""


def make_role_certificate(root: SoftKey, role: str, realm: str, point: bytes, now: int) -> bytes:
    """A role key under the root, for ROLE_LIFE_S."""
    body = IssuerCertificate(
        role=role,
        realm=realm,
        epoch=EPOCH_FIRST,
        not_before=now,
        not_after=now + ROLE_LIFE_S,
        key=point,
        signer=thumbprint(root.public_key()),
    )
    headers = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_ISSUER_CERTIFICATE}
    return write_sign1(headers, ISSUER_CERTIFICATE.encode(body), labels.AAD_ISSUER_CERTIFICATE, root.sign)


def make_root(key: ec.EllipticCurvePrivateKey, title: str, now: int) -> x509.Certificate:
    """The root as a self-signed X.509 CA, for TLS."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    start = _builder(name, name, key.public_key(), now, FOR_EVER)
    return (
        start.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage(certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )


def make_device_ca(
    root: x509.Certificate, root_key: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePublicKey, now: int
) -> x509.Certificate:
    """Signs device certificates, and those for clients only: the EKU holds for the whole chain below."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mpserver device CA")])
    start = _builder(name, root.subject, key, now, FOR_EVER)
    return (
        start.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certificates=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_key_identifier(root), critical=False)
        .sign(root_key, SHA256())
    )


def make_tls(
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePublicKey,
    names: Sequence[str],
    now: int,
) -> x509.Certificate:
    """This server's own certificate, for ROLE_LIFE_S."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mpserver")])
    start = _builder(subject, root.subject, key, now, now + ROLE_LIFE_S)
    return (
        start.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_leaf_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(one) for one in names]), critical=False)
        .add_extension(_key_identifier(root), critical=False)
        .sign(root_key, SHA256())
    )


class _Form(NamedTuple):
    """A device certificate up to its signature, without the three fields of fixed size that name the board."""

    before_serial: bytes
    before_ueid: bytes
    before_point: bytes
    end: bytes
    algorithm: bytes
    """AlgorithmIdentifier of the signature, which stands between it and what it covers."""


class DeviceCa:
    """Makes IEEE 802.1AR device certificates. The library writes one for a slot and a second; it costs as much as
    three signatures, so the other boards of that second get their fields in its place.

    Signs for clients alone; the CA's own certificate says so for the whole chain.
    """

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._issuer, self._key = certificate.subject, key
        self._chain = certificate.public_bytes(Encoding.DER)
        self._form = lru_cache(maxsize=FORMS_KEPT)(self._make_form)
        self._stand_in = SoftKey.generate().public_key()
        self._extensions = (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_leaf_usage(), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
            (_key_identifier(certificate), False),
        )

    def certify(self, point: bytes, subject: str, ueid: bytes, now: int, not_after: int) -> tuple[bytes, ...]:
        """DER, leaf first, without the root. The subject's serialNumber is the ueid without its type octet, in hex:
        64 characters, the most X.520 allows, of the PrintableString that IEEE 802.1AR section 8.6 wants."""
        load_point(point)
        form = self._form(subject, now, not_after)
        named = (
            form.before_serial,
            _make_serial(),
            form.before_ueid,
            ueid[1:].hex().encode(),
            form.before_point,
            point,
        )
        body = b"".join((*named, form.end))
        signature = self._key.sign(body, ec.ECDSA(SHA256()))
        bits = b"\x03" + bytes((len(signature) + 1, 0)) + signature
        content = body + form.algorithm + bits
        return b"\x30\x82" + len(content).to_bytes(2, "big") + content, self._chain

    def _make_form(self, subject: str, now: int, not_after: int) -> _Form:
        serial, unit = _make_serial(), os.urandom(32).hex()
        name = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, subject), x509.NameAttribute(NameOID.SERIAL_NUMBER, unit)]
        )
        number = int.from_bytes(serial, "big")
        draft = _builder(name, self._issuer, load_point(self._stand_in), now, not_after, number)
        for extension, critical in self._extensions:
            draft = draft.add_extension(extension, critical=critical)
        made = draft.sign(self._key, SHA256())
        der, body = made.public_bytes(Encoding.DER), made.tbs_certificate_bytes
        algorithm = der[der.index(body) + len(body) : -(len(made.signature) + 3)]  # a BIT STRING's head has three bytes
        return _Form(*_cut(body, serial, unit.encode(), self._stand_in), algorithm)


def _make_serial() -> bytes:
    """158 random bits as the contents of a DER INTEGER that is positive and always of 20 bytes."""
    random = os.urandom(SERIAL_BYTES)
    return bytes((0x40 | random[0] & 0x3F,)) + random[1:]


def _cut(body: bytes, serial: bytes, unit: bytes, point: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """The parts around three fields, each of which stands once."""
    start, rest = body.split(serial)
    middle, rest = rest.split(unit)
    last, end = rest.split(point)
    return start, middle, last, end


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: int,
    not_after: int,
    serial: int | None = None,
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number() if serial is None else serial,
        not_valid_before=_moment(now),
        not_valid_after=_moment(not_after),
    )


def _moment(seconds: int) -> datetime.datetime:
    # X.509 builders take naive UTC, and 9999 is beyond what fromtimestamp gives in every zone.
    return datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _leaf_usage() -> x509.KeyUsage:
    """A key that signs, and no certificates."""
    return _usage(certificates=False)


def _key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Which key of the issuer signed."""
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
