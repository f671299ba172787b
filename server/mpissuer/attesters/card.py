"""A smart card or secure element: ES256 by the key of a certificate under a pinned root (docs/wire.md 4.3)."""

import hashlib
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mpissuer.checks import step
from mpissuer.endorsement import Endorsed, check_path, check_understood, find_key_usage, is_authority, read_certificate
from mpissuer.heard import Heard
from mpwire import labels, p256
from mpwire.cose import verify_es256
from mpwire.errors import Malformed, Unauthentic
from mpwire.evidence import check_bare
from mpwire.messages.plain import Material
from mpwire.registry import ALG_ES256
from mpwire.ueid import name_card_key

ALG: Final = ALG_ES256
NEEDED: Final = frozenset({"x5chain"})
ALLOWED: Final = NEEDED


def check_material(one: Material) -> None:
    """2.6: the id is that of the leaf as shown. Raises Malformed."""
    assert one.x5chain is not None  # NEEDED
    if one.attester_id != hashlib.sha256(one.x5chain[0]).digest():
        raise Malformed("the attester-id is not the SHA-256 of the first certificate")


def check_card(heard: Heard, now: int) -> Endorsed:
    """3.16 and 3.17. Raises Refused."""
    assert heard.material.x5chain is not None  # NEEDED
    leaf, *above = heard.material.x5chain
    with step("card-certificate"):
        certificate = read_certificate(leaf)
        point = _read_signing_key(certificate)
        check_path(certificate, above, heard.product.card_roots, now)
    with step("attester-signature"):
        check_bare(heard.outer)
        verify_es256(heard.outer, point, labels.AAD_EVIDENCE)
    return Endorsed("card", heard.material.attester_id, "certified", hardware_id=name_card_key(point))


def _read_signing_key(leaf: x509.Certificate) -> bytes:
    """The 65-byte point of a P-256 key that may sign and is no authority's. Raises Malformed, Unauthentic."""
    try:
        spki = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        point = p256.read_spki(spki)
    except Malformed:
        raise Malformed("the leaf certificate is not for a key of P-256") from None
    check_understood(leaf)
    usage = find_key_usage(leaf)
    if is_authority(leaf) or (usage is not None and not usage.digital_signature):
        raise Unauthentic("the leaf certificate is an authority's, or for a key that may not sign")
    return point
