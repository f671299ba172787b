"""What an OEM registers of this board, so that its evidence counts: a record of his import list (docs/operate.md).

Public things alone, and nothing of an MP key but its id: under mp_use `secret` its public half is a secret.
"""

from typing import Final

from mpagent.hal.ports import Attester, AttesterMaterial
from mpwire.ueid import TPM_NAME_BYTES, name_card_key

PROBE: Final = b"mpagent asks OP-TEE for the hash of its memory; no issuer takes this text for a statement"
SILICON, SIMULATED = "silicon", "simulated"


def find_origin(attester: str, tpm_tcti: str | None) -> str:
    """As far as this image knows: `attester` is its backend's name. The OEM's signature vouches for it, not we."""
    is_soft = attester == "sim" or (attester == "tpm" and not (tpm_tcti or "").startswith("device:"))
    return SIMULATED if is_soft else SILICON


def make_record(material: AttesterMaterial, origin: str) -> dict[str, str] | None:
    """As `mpserver key sign-list` takes it. None for kinds that need none: MP keys are per class, cards have a root."""
    if material.kind == "tpm":
        return {"kind": "tpm", "ek_name": material.attester_id[:TPM_NAME_BYTES].hex(), "origin": origin}
    if material.kind == "optee" and material.rsa_public is not None:
        return {"kind": "optee", "public_key": material.rsa_public.hex(), "origin": origin}
    return None


def tell_key(material: AttesterMaterial) -> dict[str, str]:
    """What lists and ledger call the key, beside the attester-id: `ek_name` of a TPM, `card_key` of a card."""
    if material.kind == "tpm":
        return {"ek_name": material.attester_id[:TPM_NAME_BYTES].hex()}
    if material.kind == "card" and material.public_key is not None:
        return {"card_key": name_card_key(material.public_key).hex()}
    return {}


def read_measurement(attester: Attester, material: AttesterMaterial) -> str | None:
    """OP-TEE's hash of its own memory, for the product's `optee_measurements`; None for other attesters.

    Its attestation key signs a text to get it, which leaves nothing behind.
    """
    if material.kind != "optee":
        return None
    return (attester.attest(PROBE).measurement or b"").hex()
