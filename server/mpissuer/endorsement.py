"""Whether an EK is one the OEM knows: by its Name on a list, or by a certificate under a pinned root (step 3.16)."""

from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mpissuer.errors import Refused
from mpissuer.policy import Product
from mpissuer.ports import Catalogue
from mpwire import p256, tpm2
from mpwire.messages.plain import Material

CHAIN_MAX = 4
"""Certificates above an EK certificate; makers use one or two."""


@dataclass(frozen=True, slots=True)
class Endorsed:
    """An attester the OEM knows."""

    kind: str
    key_id: bytes
    origin: str
    """silicon, simulated, or certified by the maker of the TPM."""
    mp_use: str = "sign"


def check_ek(material: Material, product: Product, catalogue: Catalogue, now: int) -> Endorsed:
    """The EK is listed for the product, or certified. Raises Refused("ek") saying which was tried."""
    assert material.ek_public is not None  # check_hello looked
    name = tpm2.make_name(material.ek_public)
    if name in product.eks:
        known = catalogue.registered_key(name)
        return Endorsed("tpm", name, known.origin if known is not None else "silicon")
    if material.ek_certificate is not None and product.ek_roots:
        _check_certificate(material.ek_certificate, material.ek_public, product.ek_roots, now)
        return Endorsed("tpm", name, "certified")
    raise Refused("ek", f"EK {name.hex()[4:20]} is not on the list of {product.name} and shows no certificate to check")


def _check_certificate(der: bytes, ek_public: bytes, roots: tuple[str, ...], now: int) -> None:
    try:
        certificate = x509.load_der_x509_certificate(der)
        pinned = [x509.load_pem_x509_certificate(pem.encode()) for pem in roots]
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except Exception as error:  # the library raises many kinds for hostile or odd DER
        raise Refused("ek", f"the EK certificate cannot be read: {type(error).__name__}") from error
    if spki != _write_spki(tpm2.read_public(ek_public)):
        raise Refused("ek", "the EK certificate is for another key")
    _check_path(certificate, pinned, now)


def _write_spki(ek: tpm2.Public) -> bytes:
    if ek.is_ecc:
        return p256.write_spki(ek.unique)
    numbers = rsa.RSAPublicNumbers(ek.exponent or 65_537, int.from_bytes(ek.unique, "big"))
    return numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _check_path(certificate: x509.Certificate, pinned: list[x509.Certificate], now: int) -> None:
    """Walk issuer by issuer inside the pinned set, to a certificate that signed itself."""
    when = datetime.fromtimestamp(now, UTC)
    for _ in range(CHAIN_MAX):
        if not certificate.not_valid_before_utc <= when <= certificate.not_valid_after_utc:
            raise Refused("ek", f"the certificate of {certificate.subject.rfc4514_string()!r} is not valid now")
        above = next((one for one in pinned if _issued(one, certificate)), None)
        if above is None:
            raise Refused("ek", "the EK certificate is not under a pinned root")
        if above == certificate or above.issuer == above.subject:
            return
        certificate = above
    raise Refused("ek", "the EK certificate's path is too long")


def _issued(above: x509.Certificate, below: x509.Certificate) -> bool:
    if above.subject != below.issuer:
        return False
    try:
        below.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
