"""A TPM 2.0: a quote by an AK that lives beside an EK the OEM knows (docs/wire.md 4.3)."""

import hashlib
import hmac
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mpissuer.challenge import derive_credential_secret
from mpissuer.checks import require, step
from mpissuer.endorsement import Endorsed, check_path, read_certificate
from mpissuer.errors import Refused
from mpissuer.heard import Heard
from mpissuer.policy import Product
from mpissuer.ports import Authority, Catalogue
from mpwire import p256, tpm2
from mpwire.errors import Malformed, Unauthentic
from mpwire.evidence import read_quote
from mpwire.messages.plain import Material
from mpwire.registry import ALG_TPM_QUOTE_ES256

ALG: Final = ALG_TPM_QUOTE_ES256
NEEDED: Final = frozenset({"ek_public", "ak_public"})
ALLOWED: Final = NEEDED | {"ek_certificate"}


def check_material(one: Material) -> None:
    """2.6: both keys have their attributes, and the id is theirs. Raises Malformed, Unauthentic."""
    assert one.ek_public is not None and one.ak_public is not None  # NEEDED
    tpm2.check_ak(tpm2.read_public(one.ak_public))
    tpm2.check_ek(tpm2.read_public(one.ek_public))
    if one.attester_id != tpm2.make_name(one.ek_public) + tpm2.make_name(one.ak_public):
        raise Malformed("the attester-id is not EK Name || AK Name")


def check_tpm(heard: Heard, message: bytes, authority: Authority, catalogue: Catalogue, now: int) -> Endorsed:
    """3.16 to 3.18. Raises Refused."""
    material = heard.material
    assert material.ak_public is not None  # NEEDED
    endorsed = check_ek(material, heard.product, catalogue, now)
    with step("attester-signature"):
        attest, signature, pcrs = read_quote(heard.outer)
        ak = tpm2.read_public(material.ak_public)
        tpm2.verify_quote(attest, signature, ak.unique, hashlib.sha256(message).digest(), pcrs)
    secret = derive_credential_secret(heard.challenge.nonce, material.attester_id, authority)
    right = hmac.digest(secret.reveal(), hashlib.sha256(heard.proof.evidence).digest(), "sha256")
    activated = heard.proof.activation is not None and hmac.compare_digest(right, heard.proof.activation)
    require(activated, "activation", "the TPM with this EK did not activate the credential for this AK")
    return endorsed


def check_ek(material: Material, product: Product, catalogue: Catalogue, now: int) -> Endorsed:
    """The EK is listed for the product, or certified. Raises Refused("ek") saying which was tried."""
    assert material.ek_public is not None  # NEEDED
    name = tpm2.make_name(material.ek_public)
    if name in product.eks:
        known = catalogue.registered_key(name)
        origin = known.origin if known is not None else "silicon"
        return Endorsed("tpm", name, origin, hardware_id=name)
    if material.ek_certificate is not None and product.ek_roots:
        with step("ek"):
            _check_certificate(material.ek_certificate, material.ek_public, product.ek_roots, now)
        return Endorsed("tpm", name, "certified", hardware_id=name)
    raise Refused("ek", f"EK {name.hex()[4:20]} is not on the list of {product.name} and shows no certificate to check")


def _check_certificate(der: bytes, ek_public: bytes, roots: tuple[str, ...], now: int) -> None:
    certificate = read_certificate(der)
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if spki != _write_spki(tpm2.read_public(ek_public)):
        raise Unauthentic("the EK certificate is for another key")
    check_path(certificate, (), roots, now)


def _write_spki(ek: tpm2.Public) -> bytes:
    if ek.is_ecc:
        return p256.write_spki(ek.unique)
    numbers = rsa.RSAPublicNumbers(ek.exponent or 65_537, int.from_bytes(ek.unique, "big"))
    return numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
