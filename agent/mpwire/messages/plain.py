"""Messages without an envelope: Hello, Challenge, Proof, Closed, Refusal (docs/wire.md 4.1 to 4.3, 4.6, 4.7)."""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from mpwire import limits, registry
from mpwire.codec import encode
from mpwire.shape import Field, Integer, ListOf, MapOf, Octets, OneOf, Row, TableOf, Text

NAME = Text(limits.NAME_MAX_BYTES)
HASH = Octets(32)
UEID = Octets(33)
"""One type octet and a SHA-256 (ueid.py)."""
CERTIFICATE = Octets(1, 4_096)
CLAIM = Integer(100_000, -100_000)


def read_number(raw: bytes) -> int | None:
    """Which plain message these bytes begin as; None for what begins as none. Nothing behind that is looked at.

    Key 0 of a message comes first in its map, and both it and the number take one byte (RFC 8949 4.2.1).
    """
    return raw[2] if len(raw) >= 3 and raw[0] >> 5 == 5 and raw[1] == 0 else None


class Material(NamedTuple):
    """Hello's attester: its kind and what is public of it."""

    kind: str
    attester_id: bytes
    profile: str | None = None
    ek_public: bytes | None = None
    ek_certificate: bytes | None = None
    ak_public: bytes | None = None
    x5chain: tuple[bytes, ...] | None = None
    rsa_public: bytes | None = None


ATTESTER_ID_NOTE = "mp: SHA-256(X||Y); tpm: EK Name || AK Name; card: SHA-256(certificate); optee: SHA-256(rsa_public)"

MATERIAL = MapOf(
    "attester",
    Material,
    Field(1, "kind", OneOf("mp", "tpm", "card", "optee"), "kind of attester"),
    Field(2, "attester_id", Octets(32, 68), ATTESTER_ID_NOTE),
    Field(3, "profile", OneOf("raw", "relay/1"), "mp: who wrote the claims", required=False),
    Field(4, "ek_public", Octets(1, 1_024), "tpm: TPMT_PUBLIC of the EK", required=False),
    Field(5, "ek_certificate", CERTIFICATE, "tpm: EK certificate, DER", required=False),
    Field(6, "ak_public", Octets(1, 1_024), "tpm: TPMT_PUBLIC of the AK", required=False),
    Field(7, "x5chain", ListOf(CERTIFICATE, 4, 1), "card: certificates, DER, leaf first", required=False),
    Field(8, "rsa_public", Octets(1, limits.RSA_PUBLIC_MAX_BYTES), "optee: SubjectPublicKeyInfo, DER", required=False),
)


class Hello(NamedTuple):
    """1. A device asks for a challenge. Nothing protects it; the Proof carries its hash."""

    versions: tuple[int, ...]
    product: str
    random: bytes
    attester: Material
    ueid: bytes
    run_id: bytes
    line: tuple[bytes, bytes] | None = None


HELLO = MapOf(
    "hello",
    Hello,
    Field(1, "versions", ListOf(Integer(65_535, 1), 8, 1), "wire versions the device speaks"),
    Field(2, "product", NAME, "product name"),
    Field(3, "random", Octets(16), "device random"),
    Field(4, "attester", MATERIAL, "attester and its public material"),
    Field(5, "ueid", UEID, "name of the board"),
    Field(6, "line", Row(Octets(1, 2_048), Octets(64)), "line credential and its signature", required=False),
    Field(7, "run_id", Octets(8), "run id, to find one run in both logs"),
    constants={0: registry.HELLO},
)


class Credential(NamedTuple):
    """TPM2_MakeCredential output, as TPM2_ActivateCredential takes it."""

    id_object: bytes
    encrypted_secret: bytes


CREDENTIAL = MapOf(
    "credential",
    Credential,
    Field(1, "id_object", Octets(1, 256), "TPM2B_ID_OBJECT contents"),
    Field(2, "encrypted_secret", Octets(1, 512), "TPM2B_ENCRYPTED_SECRET contents"),
)


class Challenge(NamedTuple):
    """2. The issuer's nonce. Its MAC covers the whole message, so the issuer keeps nothing."""

    hello_hash: bytes
    nonce: bytes
    claims: tuple[int, ...]
    credential: Credential | None = None


CHALLENGE = MapOf(
    "challenge",
    Challenge,
    Field(2, "hello_hash", HASH, "SHA-256 of the Hello answered"),
    Field(3, "nonce", Octets(60), "16 random || 4 key epoch || 8 expiry || 32 MAC"),
    Field(4, "claims", ListOf(CLAIM, 32), "claims wanted, by their EAT key"),
    Field(5, "credential", CREDENTIAL, "tpm: credential to activate", required=False),
    constants={0: registry.CHALLENGE, 1: registry.WIRE_VERSION},
)


class WireKeyAttestation(NamedTuple):
    """TPM2_Certify of one device key under the AK."""

    public: bytes
    attest: bytes
    signature: bytes


KEY_ATTESTATION = MapOf(
    "key-attestation",
    WireKeyAttestation,
    Field(1, "public", Octets(1, 1_024), "TPMT_PUBLIC of the key"),
    Field(2, "attest", Octets(1, 1_024), "TPMS_ATTEST of type certify"),
    Field(3, "signature", Octets(64), "r || s by the AK"),
)


def hash_key_attestation(one: WireKeyAttestation) -> bytes:
    """SHA-256 of CBOR[public, attest, signature], as the EAT holds it (docs/wire.md 4.3)."""
    return hashlib.sha256(encode([one.public, one.attest, one.signature])).digest()


class Proof(NamedTuple):
    """3. Evidence, with all that a stateless issuer needs to check it."""

    evidence: bytes
    hello: bytes
    challenge: bytes
    csrs: Mapping[str, bytes] = MappingProxyType({})
    key_attestations: Mapping[str, WireKeyAttestation] = MappingProxyType({})
    activation: bytes | None = None


PROOF = MapOf(
    "proof",
    Proof,
    Field(2, "evidence", Octets(1, 16_384), "COSE_Sign1 by the attester over COSE_Sign1 by the device key"),
    Field(3, "hello", Octets(1, limits.HELLO_MAX_BYTES), "the Hello, byte for byte"),
    Field(4, "challenge", Octets(1, limits.CHALLENGE_MAX_BYTES), "the Challenge, byte for byte"),
    Field(5, "csrs", TableOf(NAME, Octets(1, 2_048), 16), "slot: PKCS#10 request, DER"),
    Field(6, "key_attestations", TableOf(NAME, KEY_ATTESTATION, 18), "key label: TPM2_Certify under the AK"),
    Field(7, "activation", Octets(32), "tpm: HMAC(activated secret, SHA-256(evidence))", required=False),
    constants={0: registry.PROOF, 1: registry.WIRE_VERSION},
)


class Closed(NamedTuple):
    """6. The receipt stands in the ledger: where, and under which signed head."""

    receipt_digest: bytes
    leaf_index: int
    path: tuple[bytes, ...]
    entry: bytes
    head: bytes


CLOSED = MapOf(
    "closed",
    Closed,
    Field(2, "receipt_digest", HASH, "SHA-256 of the Receipt"),
    Field(3, "leaf_index", Integer(), "ledger index of the entry, from 0"),
    Field(4, "path", ListOf(HASH, 64), "inclusion proof, leaf to root (RFC 6962 section 2.1.1)"),
    Field(5, "entry", Octets(1, 4_096), "the ledger entry whose leaf hash is proven"),
    Field(6, "head", Octets(1, 8_192), "signed head (wire.md 5.3)"),
    constants={0: registry.CLOSED, 1: registry.WIRE_VERSION},
)


class Refusal(NamedTuple):
    """The issuer's no. Nothing protects it: it ends a run and latches nothing."""

    check: str
    retry: int
    retry_after_s: int | None = None


RETRY, OPERATOR, FINAL = 1, 2, 3

REFUSAL = MapOf(
    "refusal",
    Refusal,
    Field(2, "check", NAME, "name of the check that failed"),
    Field(3, "retry", OneOf(RETRY, OPERATOR, FINAL), "1 retry, 2 operator, 3 final"),
    Field(4, "retry_after_s", Integer(86_400), "seconds to wait before the next run", required=False),
    constants={0: registry.REFUSAL, 1: registry.WIRE_VERSION},
)
