"""One label for each use of a key: no two uses can be taken for each other (docs/wire.md section 3.2)."""

from typing import Final


def aad(message: str) -> bytes:
    """External additional authenticated data of a COSE_Sign1: "mpagent/1/<message>" in UTF-8."""
    return f"mpagent/1/{message}".encode()


AAD_EAT: Final = aad("eat")
AAD_EVIDENCE: Final = aad("proof")
AAD_GRANT: Final = aad("grant")
AAD_RECEIPT: Final = aad("receipt")
AAD_HEAD: Final = aad("head")
AAD_ISSUER_CERTIFICATE: Final = aad("issuer-certificate")
AAD_TRUST_UPDATE: Final = aad("trust-update")
AAD_IMPORT: Final = aad("import")
AAD_BUNDLE: Final = aad("bundle")
AAD_BUNDLE_RECEIPT: Final = aad("bundle-receipt")

TYP_EAT: Final = "application/eat+cwt"
TYP_EVIDENCE: Final = "application/mpagent.proof+cose"
TYP_GRANT: Final = "application/mpagent.grant+cose"
TYP_RECEIPT: Final = "application/mpagent.receipt+cose"
TYP_HEAD: Final = "application/mpagent.head+cose"
TYP_ISSUER_CERTIFICATE: Final = "application/mpagent.issuer-certificate+cose"
TYP_TRUST_UPDATE: Final = "application/mpagent.trust-update+cose"
TYP_IMPORT: Final = "application/mpagent.import+cose"
TYP_BUNDLE: Final = "application/mpagent.bundle+cose"
TYP_BUNDLE_RECEIPT: Final = "application/mpagent.bundle-receipt+cose"

UEID: Final = "mpagent/ueid/1"
HPKE_GRANT: Final = "mpagent/1/grant"
HPKE_ESCROW: Final = "mpagent/1/escrow"
ROTATED_ROOT: Final = "mpagent/1/rotated-root"
PCR_APPROVAL: Final = "mpagent/1/pcr-approval"
BUNDLE_KEY: Final = "mpagent/1/bundle-key"
BUNDLE_CONTENT: Final = "mpagent/1/bundle-content"
BUNDLE_CHECK: Final = "mpagent/1/bundle-check"
BUNDLE_KEY_CHECK: Final = "mpagent/1/bundle-key-check"
BUNDLE_RECEIPT_KEY: Final = "mpagent/1/bundle-receipt-key"
BUNDLE_JOB_SECRET: Final = "mpagent/1/bundle-job-secret"
MPK_ID: Final = "mpagent/1/mpk-id"
CREDENTIAL_SECRET: Final = b"mpagent/1/credential-secret"
NONCE_MAC: Final = b"mpagent/1/nonce"
CLOSED_PROOF: Final = b"mpagent/1/closed-proof"
"""First bytes of what the class key signs for the device itself. A Sig_structure begins with 0x84, never so."""

FINISH_ORDER: Final = b"mpagent/1/finish"
"""Key of the finisher's orders, out of a vault generation's own key. It never leaves the board."""
FINISH_VOLUME: Final = "mpagent/1/finish-volume"
"""The UUID of a disk that a board encrypts for itself."""

DEVICE_SIGN: Final = "sign"
"""Keyring label of the key whose public half is the cnf claim."""
DEVICE_KEM: Final = "kem"
"""Keyring label of the key a Grant is encrypted to."""


def certificate_key(slot: str) -> str:
    """Keyring label of the key of one certificate slot."""
    return f"certificate-{slot}"
