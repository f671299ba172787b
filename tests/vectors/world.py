"""The fixed world the vectors are made in: keys, clocks and random bytes that come from labelled hashes alone.

None of these keys guards anything. Signatures are deterministic (RFC 6979), which needs cryptography 43 or later, so
that a rerun changes nothing; reading the vectors needs none of this.
"""

import hmac
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from mpwire import labels, p256, registry, tpm2
from mpwire.codec import encode
from mpwire.cose import thumbprint, write_sign1
from mpwire.messages.issuer import ISSUER_CERTIFICATE, TRUST_UPDATE, IssuerCertificate, TrustUpdate
from mpwire.trust import rotated_root_statement

NOW: Final = 1_800_000_000
"""The issuer's clock in every vector: 2027-01-15T08:00:00Z."""
BUILD_TIME: Final = NOW - 86_400
"""The device's time floor."""
REALM: Final = "lab"
PRODUCT: Final = "gateway-2"
JOB: Final = "order-17"
FAMILY: Final = "imx8mm"
EPOCH: Final = 3
"""Issuer epoch that devices believe in before any trust update."""
DAY: Final = 86_400
SYMMETRIC_ROOT: Final = sha256(b"mpagent/vectors/symmetric-root").digest()

POLICY: Final = {
    "name": PRODUCT,
    "realm": REALM,
    "attesters": ["mp", "tpm", "card", "optee"],
    "grades": ["S", "K"],
    "life_cycle": "closed",
    "profile": "raw",
    "mp_use": "sign",
    "minimum_software": [1, 4],
    "slots": [
        {"name": "disk-key", "kind": "local", "destination": "sealed", "version": 1},
        {"name": "api-key", "kind": "random", "destination": "sealed", "version": 1},
        {"name": "update-ca", "kind": "static", "destination": "plain", "version": 2},
        {"name": "idevid", "kind": "certificate", "destination": "credential", "version": 1},
    ],
}
"""The product's rules; what hangs on keys (mp_keys, mpmrs, srk_hashes, eks) is added in generate.py."""


def fill(label: str, size: int) -> bytes:
    """`size` bytes that look random and never change."""
    blocks = (sha256(f"mpagent/vectors/{label}/{count}".encode()).digest() for count in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def scalar(label: str) -> int:
    """A private key out of a label."""
    return int.from_bytes(fill(f"key/{label}", 32), "big") % (p256.ORDER - 1) + 1


class FixedKey(p256.SoftKey):
    """A key made from a label, whose signatures never change."""

    def __init__(self, label: str) -> None:
        super().__init__(ec.derive_private_key(scalar(label), ec.SECP256R1()))

    def sign(self, message: bytes) -> bytes:
        return self._join(self._key.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True)))

    def sign_digest(self, digest: bytes) -> bytes:
        return self._join(self._key.sign(digest, ec.ECDSA(Prehashed(SHA256()), deterministic_signing=True)))


ROOT: Final = FixedKey("root")
STANDBY_ROOT: Final = FixedKey("standby-root")
NEW_ROOT: Final = FixedKey("new-root")
GRANT_ROLE: Final = FixedKey("grant-role")
"""Certified by the root for 90 days; it certifies GRANT for a shift."""
GRANT: Final = FixedKey("grant")
HEAD: Final = FixedKey("head")
DEVICE_SIGN: Final = FixedKey("device-sign")
DEVICE_KEM: Final = FixedKey("device-kem")
DEVICE_CERTIFICATE: Final = FixedKey("device-certificate-idevid")
OTHER: Final = FixedKey("somebody-else")
MP: Final = FixedKey("mp")
AK: Final = FixedKey("ak")
EK: Final = FixedKey("ek")
ESCROW: Final = FixedKey("escrow")
UPDATE: Final = FixedKey("update-key")
EPHEMERAL: Final = FixedKey("hpke-ephemeral")
ESCROW_EPHEMERAL: Final = FixedKey("hpke-escrow-ephemeral")

ROOTS: Final = (ROOT.public_key(), STANDBY_ROOT.public_key())

_STORAGE: Final = tpm2.BORN_HERE | tpm2.Attributes.RESTRICTED | tpm2.Attributes.DECRYPT
_SIGNING: Final = tpm2.BORN_HERE | tpm2.Attributes.SIGN | tpm2.Attributes.USER_WITH_AUTH | tpm2.Attributes.NO_DA
EK_PUBLIC: Final = tpm2.write_public(
    tpm2.Public(
        _STORAGE | tpm2.Attributes.ADMIN_WITH_POLICY,
        EK.public_key(),
        auth_policy=fill("ek-policy", 32),
        symmetric_bits=128,
    )
)
AK_PUBLIC: Final = tpm2.write_public(
    tpm2.Public(_SIGNING | tpm2.Attributes.RESTRICTED, AK.public_key(), scheme=tpm2.ALG_ECDSA)
)
SIGN_PUBLIC: Final = tpm2.write_public(tpm2.Public(_SIGNING, DEVICE_SIGN.public_key()))
KEM_PUBLIC: Final = tpm2.write_public(
    tpm2.Public(
        tpm2.BORN_HERE | tpm2.Attributes.DECRYPT | tpm2.Attributes.USER_WITH_AUTH | tpm2.Attributes.NO_DA,
        DEVICE_KEM.public_key(),
    )
)
CLOCK: Final = tpm2.Clock(clock_ms=123_456, reset_count=7, restart_count=1, safe=True)
PCRS: Final = tuple((index, fill(f"pcr/{index}", 32)) for index in (0, 1, 2, 3, 4, 7))


def derive(label: bytes, context: bytes) -> bytes:
    """The issuer's symmetric root, as the port Authority.derive wants it; the framing is the authority's own."""
    return hmac.digest(SYMMETRIC_ROOT, encode([label, context]), "sha256")


def certify(
    key: FixedKey,
    signer: FixedKey,
    role: str = "grant",
    *,
    realm: str = REALM,
    product: str | None = None,
    epoch: int = EPOCH,
    not_before: int = NOW - DAY,
    not_after: int = NOW + 89 * DAY,
    signed_by: FixedKey | None = None,
    typ: str = labels.TYP_ISSUER_CERTIFICATE,
) -> bytes:
    """An issuer certificate; `signed_by` other than `signer` makes a forged one."""
    body = IssuerCertificate(
        role, realm, epoch, not_before, not_after, key.public_key(), thumbprint(signer.public_key()), product
    )
    headers = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: typ}
    sign = (signed_by or signer).sign
    return write_sign1(headers, ISSUER_CERTIFICATE.encode(body), labels.AAD_ISSUER_CERTIFICATE, sign)


def grant_chain(above: dict[str, Any] | None = None, **changes: Any) -> list[bytes]:
    """The short-lived grant key under the role key under the root; `changes` go to the first, `above` to the second."""
    given: dict[str, Any] = {"not_before": NOW - 60, "not_after": NOW - 60 + 28_800, "product": PRODUCT}
    return [certify(GRANT, GRANT_ROLE, **{**given, **changes}), certify(GRANT_ROLE, ROOT, **(above or {}))]


def head_chain() -> list[bytes]:
    """The head key, directly under the root."""
    return [certify(HEAD, ROOT, "head")]


def trust_update(
    *,
    epoch: int = EPOCH + 1,
    realm: str = REALM,
    signer: FixedKey = ROOT,
    signed_by: FixedKey | None = None,
    new_root_by: FixedKey = NEW_ROOT,
) -> bytes:
    """A trust update that brings NEW_ROOT; `new_root_by` other than NEW_ROOT names a key its author does not hold."""
    point = NEW_ROOT.public_key()
    brought = ((point, new_root_by.sign(rotated_root_statement(realm, epoch, point))),)
    headers = {
        registry.HEADER_ALG: registry.ALG_ES256,
        registry.HEADER_KID: thumbprint(signer.public_key()),
        registry.HEADER_TYP: labels.TYP_TRUST_UPDATE,
    }
    body = TRUST_UPDATE.encode(TrustUpdate(realm, epoch, brought))
    return write_sign1(headers, body, labels.AAD_TRUST_UPDATE, (signed_by or signer).sign)
