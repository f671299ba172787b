"""What makes a stranger's key one the OEM knows: a registration, or a certificate path to a pinned root (step 3.16)."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtensionOID

from mpwire.errors import Malformed, Unauthentic

PATH_MAX: Final = 4
"""Certificates of a path below its root; makers use one or two."""
UNDERSTOOD: Final = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE})
"""Extensions that may be critical."""

_READ_LATE: Final = ("subject", "issuer", "not_valid_before_utc", "not_valid_after_utc", "extensions")
"""What the library decodes only when it is asked for, and may refuse then."""


class Endorsed(NamedTuple):
    """An attester the OEM knows."""

    kind: str
    key_id: bytes
    origin: str
    """silicon, simulated, certified (by the maker of the TPM, or the issuer of the card), or first-use."""
    mp_use: str = "sign"
    hardware_id: bytes | None = None
    """The id that the attester itself proved. None for an MP key, which never says which unit."""


def read_certificate(der: bytes) -> x509.Certificate:
    """Raises Malformed: the library raises many kinds of error for hostile or odd DER."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        for name in _READ_LATE:
            getattr(certificate, name)
        certificate.subject.rfc4514_string(), certificate.public_key()
    except Exception as error:
        raise Malformed(f"the certificate cannot be read: {type(error).__name__}") from error
    return certificate


def check_path(leaf: x509.Certificate, shown: Iterable[bytes], roots: tuple[str, ...], now: int) -> None:
    """Walk issuer by issuer to a pinned certificate that signed itself; what is pinned goes before what is shown.

    A certificate that is only shown has to be an authority's. Raises Malformed and Unauthentic.
    """
    when = datetime.fromtimestamp(now, UTC)
    pinned = [x509.load_pem_x509_certificate(pem.encode()) for pem in roots]
    between = [read_certificate(der) for der in shown]
    certificate = leaf
    for below in range(PATH_MAX):
        if not certificate.not_valid_before_utc <= when <= certificate.not_valid_after_utc:
            raise Unauthentic(f"the certificate of {certificate.subject.rfc4514_string()!r} is not valid now")
        above = next((one for one in pinned if _issued(one, certificate)), None)
        if above is None:
            above = next((one for one in between if _issued(one, certificate)), None)
            if above is None:
                raise Unauthentic("no path of certificates leads to a pinned root")
            _check_authority(above)
        elif above.issuer == above.subject:
            _check_room(above, below)
            return
        _check_room(above, below)
        certificate = above
    raise Unauthentic("the path of certificates is too long")


def _issued(above: x509.Certificate, below: x509.Certificate) -> bool:
    if above.subject != below.issuer:
        return False
    try:
        below.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _check_authority(certificate: x509.Certificate) -> None:
    """RFC 5280 section 6.1.4 (k) and (n): basicConstraints say CA; keyUsage, if there, says that it may certify."""
    usage = find_key_usage(certificate)
    if not is_authority(certificate) or (usage is not None and not usage.key_cert_sign):
        raise Unauthentic("a certificate that is no authority's stands in the path")
    check_understood(certificate)


def _check_room(certificate: x509.Certificate, below: int) -> None:
    """RFC 5280 section 6.1.4 (m): the path length leaves room for the `below` authorities under this one."""
    basic = _find_basic_constraints(certificate)
    if basic is not None and basic.path_length is not None and basic.path_length < below:
        raise Unauthentic("an authority stands in the path above more authorities than its path length allows")


def check_understood(certificate: x509.Certificate) -> None:
    """RFC 5280 section 4.2: a critical extension nobody here reads (name constraints, say) refuses the certificate."""
    for one in certificate.extensions:
        if one.critical and one.oid not in UNDERSTOOD:
            raise Unauthentic(f"a certificate has the critical extension {one.oid.dotted_string}")


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether basicConstraints say CA."""
    basic = _find_basic_constraints(certificate)
    return basic is not None and basic.ca


def _find_basic_constraints(certificate: x509.Certificate) -> x509.BasicConstraints | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return None


def find_key_usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    """The keyUsage extension, or None."""
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None
