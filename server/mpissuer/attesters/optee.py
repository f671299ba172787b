"""OP-TEE's attestation PTA: a key of one device's secure storage, and OP-TEE's hash of itself (docs/wire.md 4.3)."""

from typing import Final

from mpissuer.checks import require, step
from mpissuer.endorsement import Endorsed
from mpissuer.heard import Heard
from mpissuer.ports import Catalogue
from mpwire import optee
from mpwire.errors import Malformed
from mpwire.evidence import read_optee
from mpwire.messages.plain import Material
from mpwire.registry import ALG_OPTEE_PS256

ALG: Final = ALG_OPTEE_PS256
NEEDED: Final = frozenset({"rsa_public"})
ALLOWED: Final = NEEDED


def check_material(one: Material) -> None:
    """2.6: an RSA key of the one size, and the id is its. Raises Malformed."""
    assert one.rsa_public is not None  # NEEDED
    if one.attester_id != optee.key_id(one.rsa_public):
        raise Malformed("the attester-id is not the SHA-256 of the public key")


def check_optee(heard: Heard, message: bytes, catalogue: Catalogue) -> Endorsed:
    """3.16 to 3.18. Raises Refused."""
    material, product = heard.material, heard.product
    assert material.rsa_public is not None  # NEEDED
    origin = _find_origin(heard, catalogue)
    require(
        origin is not None,
        "attester-key",
        f"attestation key {material.attester_id.hex()[:16]} is not registered for {product.name}",
    )
    assert origin is not None  # required
    with step("attester-signature"):
        measurement, signature = read_optee(heard.outer)
        optee.verify_optee(material.rsa_public, message, measurement, signature)
    listed = product.optee_measurements is None or measurement in product.optee_measurements
    require(listed, "measurement", f"OP-TEE measured itself as {measurement.hex()}, which is not on the list")
    return Endorsed("optee", material.attester_id, origin, hardware_id=material.attester_id)


def _find_origin(heard: Heard, catalogue: Catalogue) -> str | None:
    """Of a registered key that the product takes; "first-use" where a lab product takes strangers; None for others."""
    key_id, product = heard.material.attester_id, heard.product
    key = catalogue.registered_key(key_id)
    if key is not None and key.kind == "optee" and (product.optee_rule != "listed" or key_id in product.optee_keys):
        return key.origin
    return "first-use" if product.optee_rule == "first-use" else None
