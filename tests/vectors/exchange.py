"""One whole exchange in the fixed world, by any kind of attester, with a handle on every part that a vector bends."""

import hashlib
import hmac
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mpwire import hpke, labels, p256, registry, tpm2
from mpwire.codec import encode
from mpwire.cose import join_sign1, sig_structure, write_sign1
from mpwire.csr import write_csr
from mpwire.merkle import Frontier, inclusion_path, leaf_hash, tree_root
from mpwire.messages.eat import CLAIMS, Claims, Confirmation
from mpwire.messages.grant import (
    CONTENTS,
    GRANT,
    RECEIPT,
    Contents,
    Grant,
    Receipt,
    SlotGrant,
    SlotReceipt,
    make_check_value,
    make_escrow_info,
    make_grant_info,
)
from mpwire.messages.issuer import ENTRY, HEAD, Entry, Head
from mpwire.messages.plain import (
    CHALLENGE,
    CLOSED,
    HELLO,
    PROOF,
    Challenge,
    Closed,
    Credential,
    Hello,
    Proof,
    WireKeyAttestation,
    hash_key_attestation,
)
from mpwire.secret import Secret
from mpwire.trust import write_signed
from tests.vectors import world
from tests.vectors.attesters import attester_id, hardware_ids, make_outer, material, ueid

SRK_HASH: Final = world.fill("srk-hash", 32)
CERTIFICATE_SLOT: Final = "idevid"
SLOTS: Final = ("disk-key", "api-key", "update-ca", CERTIFICATE_SLOT)
CLAIMS_WANTED: Final = (
    registry.CLAIM_LIFE_CYCLE,
    registry.CLAIM_SRK_HASH,
    registry.CLAIM_SWVERSION,
    registry.CLAIM_HARDWARE_IDS,
)
CHECK_KEY: Final = Secret(world.fill("check-key", 32))
POLICY_DIGEST: Final = world.fill("policy-digest", 32)

Bend = Mapping[str, Any]
"""Attributes of a part to set to other values."""


def make_hello(kind: str) -> Hello:
    """1. As the board says it."""
    return Hello(
        versions=(registry.WIRE_VERSION,),
        product=world.PRODUCT,
        random=world.fill(f"hello-random/{kind}", 16),
        attester=material(kind),
        ueid=ueid(kind),
        run_id=world.fill(f"run-id/{kind}", 8),
    )


def make_challenge(kind: str, hello: bytes, now: int = world.NOW, bend: Bend | None = None) -> bytes:
    """2. With a MAC that holds, whatever was bent. The credential is filler of the right size: no TPM opens it."""
    stem = world.fill(f"nonce/{kind}", 16) + struct.pack(">IQ", now // 86_400, now + 600)
    blank = Challenge(
        hello_hash=hashlib.sha256(hello).digest(),
        nonce=stem + bytes(32),
        claims=CLAIMS_WANTED,
        credential=Credential(world.fill("id-object", 68), world.fill("encrypted-secret", 68))
        if kind == "tpm"
        else None,
    )
    blank = blank._replace(**(bend or {}))
    key = world.derive(labels.NONCE_MAC, blank.nonce[16:20])
    mac = hmac.digest(key, CHALLENGE.encode(blank), "sha256")
    return CHALLENGE.encode(blank._replace(nonce=blank.nonce[:28] + mac))


@dataclass(frozen=True)
class Bent:
    """What to do differently from the golden exchange; the empty one is golden."""

    hello: Bend = field(default_factory=dict)
    hello_sent: bytes | None = None
    """The Hello that the Proof repeats, when it is not the one that was challenged."""
    challenge_time: int = world.NOW
    challenge: Bend = field(default_factory=dict)
    challenge_sent: Callable[[bytes], bytes] = lambda raw: raw
    claims: Bend = field(default_factory=dict)
    sign_key: world.FixedKey = world.DEVICE_SIGN
    """Makes the inner signature; the claims go on naming DEVICE_SIGN."""
    attest_key: Any = None
    """Makes the outer signature."""
    outer: Bend = field(default_factory=dict)
    """alg, profile, and what attesters.py takes for the kind: mpmr, pcrs, members of tpm2.Attest, measurement, ..."""
    attestation: Bend = field(default_factory=dict)
    """label: replacement WireKeyAttestation, or None to leave it out. The claims hash what is sent."""
    csrs: Bend = field(default_factory=dict)
    proof: Bend = field(default_factory=dict)


def csr_by(key: world.FixedKey) -> bytes:
    """A good request for any key."""
    return write_csr(key.public_key(), key.sign)


def make_csrs() -> dict[str, bytes]:
    """One request for each certificate slot."""
    return {CERTIFICATE_SLOT: csr_by(world.DEVICE_CERTIFICATE)}


def certify_key(
    public: bytes, nonce: bytes, *, key: world.FixedKey = world.AK, bend: Bend | None = None
) -> WireKeyAttestation:
    """TPM2_Certify as a TPM would answer it."""
    signer = tpm2.make_name(world.AK_PUBLIC)
    attested = tpm2.Certify(tpm2.make_name(public), b"\x00\x0b" + world.fill("qualified-name", 32))
    made = tpm2.Attest(signer, hashlib.sha256(nonce).digest(), world.CLOCK, 1, attested)
    raw = tpm2.write_attest(made._replace(**(bend or {})))
    return WireKeyAttestation(public, raw, key.sign(raw))


def _attestations(kind: str, nonce: bytes, bent: Bend) -> dict[str, WireKeyAttestation]:
    if kind != "tpm":
        return dict(bent)
    made = {
        labels.DEVICE_SIGN: certify_key(world.SIGN_PUBLIC, nonce),
        labels.DEVICE_KEM: certify_key(world.KEM_PUBLIC, nonce),
    }
    return {label: one for label, one in {**made, **bent}.items() if one is not None}


def make_claims(
    kind: str, hello: bytes, challenge: bytes, csrs: Mapping[str, bytes], attested: Mapping[str, WireKeyAttestation]
) -> Claims:
    """The EAT of the board, all claims present that it can know."""
    return Claims(
        nonce=CHALLENGE.decode(challenge, len(challenge)).nonce,
        ueid=ueid(kind),
        oemid=bytes.fromhex("00049f"),
        hwmodel=world.FAMILY.encode(),
        intuse=registry.INTUSE_PROVISIONING,
        cnf=Confirmation(world.DEVICE_SIGN.public_key()),
        kem_key=world.DEVICE_KEM.public_key(),
        attester_id=attester_id(kind),
        hello_hash=hashlib.sha256(hello).digest(),
        challenge_hash=hashlib.sha256(challenge).digest(),
        realm=world.REALM,
        product=world.PRODUCT,
        slots_wanted=SLOTS,
        agent_version="0.1.0",
        hardware_ids=hardware_ids(kind),
        backends={"seal": "caam", "keys": "sealed"},
        life_cycle=3,
        srk_hash=SRK_HASH,
        swname="provisioning",
        swversion=("1.4.2",),
        measurements=((60, world.fill("measurement", 32)),),
        csr_hashes={slot: hashlib.sha256(csr).digest() for slot, csr in csrs.items()},
        key_attestation_hashes={label: hash_key_attestation(one) for label, one in attested.items()},
        provenance={registry.CLAIM_UEID: 3, registry.CLAIM_LIFE_CYCLE: 3, registry.CLAIM_SRK_HASH: 3},
    )


def make_inner(claims: Claims, key: world.FixedKey = world.DEVICE_SIGN) -> bytes:
    """The device key's envelope over the EAT."""
    headers = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_EAT}
    return write_sign1(headers, CLAIMS.encode(claims), labels.AAD_EAT, key.sign)


@dataclass(frozen=True)
class Spoken:
    """What the device says and hears up to its Proof."""

    hello: bytes
    challenge: bytes
    inner: bytes
    evidence: bytes
    proof: bytes


def speak(kind: str, bent: Bent | None = None) -> Spoken:
    """Hello to Proof; every part after a bent one is made over it, so that only one check can fail."""
    bent = bent or Bent()
    hello = HELLO.encode(make_hello(kind)._replace(**bent.hello))
    challenge = bent.challenge_sent(make_challenge(kind, hello, bent.challenge_time, bent.challenge))
    hello = bent.hello_sent or hello
    csrs = {**make_csrs(), **bent.csrs}
    csrs = {slot: csr for slot, csr in csrs.items() if csr is not None}
    nonce = CHALLENGE.decode(challenge, len(challenge)).nonce
    attested = _attestations(kind, nonce, bent.attestation)
    claims = make_claims(kind, hello, challenge, csrs, attested)._replace(**bent.claims)
    inner = make_inner(claims, bent.sign_key)
    evidence = make_outer(kind, inner, bent.attest_key, dict(bent.outer))
    proof = Proof(evidence, hello, challenge, csrs, attested, _activation(kind, nonce, evidence))
    return Spoken(hello, challenge, inner, evidence, PROOF.encode(proof._replace(**bent.proof)))


def _activation(kind: str, nonce: bytes, evidence: bytes) -> bytes | None:
    if kind != "tpm":
        return None
    key = world.derive(labels.CREDENTIAL_SECRET, nonce[16:20])
    secret = hmac.digest(key, nonce[:28] + attester_id(kind), "sha256")
    return hmac.digest(secret, hashlib.sha256(evidence).digest(), "sha256")


def device_certificate(key: world.FixedKey = world.DEVICE_CERTIFICATE) -> bytes:
    """A device certificate, DER."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vector CA")])
    subject = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, ueid("mp").hex()[:64])])
    spki = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key.public_key())
    builder = x509.CertificateBuilder(name, subject, spki, 17)
    builder = builder.not_valid_before(datetime.fromtimestamp(world.NOW, UTC))
    builder = builder.not_valid_after(datetime.fromtimestamp(world.NOW + 3650 * world.DAY, UTC))
    signer = ec.derive_private_key(world.scalar("device-ca"), ec.SECP256R1())
    return builder.sign(signer, SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)


def make_slots() -> tuple[SlotGrant, ...]:
    """One slot of each kind this version makes."""
    chain = Secret(encode([device_certificate()]))
    return (
        SlotGrant("disk-key", "local", "sealed", 1, escrow=world.ESCROW.public_key()),
        _slot("api-key", "random", "sealed", 1, Secret(world.fill("api-key", 32))),
        _slot("update-ca", "static", "plain", 2, Secret(b"vector update CA")),
        _slot(CERTIFICATE_SLOT, "certificate", "credential", 1, chain),
    )


def _slot(name: str, kind: str, destination: str, version: int, value: Secret) -> SlotGrant:
    return SlotGrant(name, kind, destination, version, value, make_check_value(CHECK_KEY, name, version, value))


def make_contents(slots: Sequence[SlotGrant] | None = None) -> Contents:
    """The plain text of a Grant."""
    return Contents(tuple(make_slots() if slots is None else slots), CHECK_KEY, POLICY_DIGEST)


def make_grant(
    spoken: Spoken,
    kind: str = "mp",
    *,
    contents: bytes | None = None,
    bend: Bend | None = None,
    sealed_for: Bend | None = None,
    chain: list[bytes] | None = None,
    key: world.FixedKey = world.GRANT,
    trust_update: bytes | None = None,
    ciphertext: Callable[[bytes], bytes] = lambda raw: raw,
) -> bytes:
    """4. A Grant for the board that spoke. `sealed_for` bends what HPKE is bound to, `bend` what is signed as well."""
    head = Grant(
        hello_hash=hashlib.sha256(spoken.hello).digest(),
        nonce=CHALLENGE.decode(spoken.challenge, len(spoken.challenge)).nonce,
        ueid=ueid(kind),
        product=world.PRODUCT,
        job=world.JOB,
        realm=world.REALM,
        issued_at=world.NOW,
        encapsulated=b"",
        ciphertext=b"",
    )
    head = head._replace(**(bend or {}))
    issuer_hash = hashlib.sha256(p256.write_spki(world.GRANT.public_key())).digest()
    proof_hash = hashlib.sha256(spoken.evidence).digest()
    info = make_grant_info(head._replace(**(sealed_for or {})), proof_hash, issuer_hash)
    plain = Secret(CONTENTS.encode(make_contents()) if contents is None else contents)
    enc, sealed = hpke.seal_base(world.DEVICE_KEM.public_key(), info, b"", plain, _ephemeral=world.EPHEMERAL)
    payload = GRANT.encode(head._replace(encapsulated=enc, ciphertext=ciphertext(sealed)))
    signed_by = world.grant_chain() if chain is None else chain
    return write_signed(payload, labels.TYP_GRANT, labels.AAD_GRANT, signed_by, key.sign, trust_update)


def make_receipt_slots() -> tuple[SlotReceipt, ...]:
    """Every slot as it was read back and unsealed."""
    local = Secret(world.fill("disk-key", 32))
    stored = [(slot, slot.value or local) for slot in make_slots()]
    return tuple(
        SlotReceipt(slot.name, "sim", slot.version, make_check_value(CHECK_KEY, slot.name, slot.version, value))
        for slot, value in stored
    )


def make_escrow(kind: str = "mp") -> dict[str, tuple[bytes, bytes]]:
    """The local value, encrypted to the escrow key that the Grant names."""
    info, local = make_escrow_info(ueid(kind), "disk-key", 1), Secret(world.fill("disk-key", 32))
    return {"disk-key": hpke.seal_base(world.ESCROW.public_key(), info, b"", local, _ephemeral=world.ESCROW_EPHEMERAL)}


def make_receipt(
    grant: bytes, kind: str = "mp", bend: Bend | None = None, key: world.FixedKey = world.DEVICE_SIGN
) -> bytes:
    """5. As the board says it after sealing all four slots."""
    receipt = Receipt(
        phase="sealed",
        grant_digest=hashlib.sha256(grant).digest(),
        ueid=ueid(kind),
        slots=make_receipt_slots(),
        rollback="none",
        closed_proof="mp-key",
        life_cycle=3,
        escrow=make_escrow(kind),
    )
    return sign_receipt(RECEIPT.encode(receipt._replace(**(bend or {}))), key)


def resign(protected: bytes, payload: bytes, aad: bytes, key: world.FixedKey) -> bytes:
    """An envelope of these parts, signed under any label."""
    return join_sign1(protected, {}, payload, key.sign(sig_structure(protected, aad, payload)))


def sign_receipt(payload: bytes, key: world.FixedKey = world.DEVICE_SIGN) -> bytes:
    """The device key's envelope over a Receipt's payload."""
    headers = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_RECEIPT}
    return write_sign1(headers, payload, labels.AAD_RECEIPT, key.sign)


def make_head(
    entries: Sequence[bytes],
    *,
    bend: Bend | None = None,
    chain: list[bytes] | None = None,
    key: world.FixedKey = world.HEAD,
) -> bytes:
    """The signed head of a tree of these entries."""
    head = Head(len(entries), tree_root([leaf_hash(one) for one in entries]), world.NOW + 1, world.REALM)
    payload = HEAD.encode(head._replace(**(bend or {})))
    signed_by = world.head_chain() if chain is None else chain
    return write_signed(payload, labels.TYP_HEAD, labels.AAD_HEAD, signed_by, key.sign)


def make_entries(receipt: bytes, kind: str = "mp") -> list[bytes]:
    """A ledger of five entries; the receipt's is number 3."""
    before = [Entry("note", world.NOW - 9 + count, "init", world.fill(f"entry/{count}", 32)) for count in range(3)]
    ours = Entry("receipt", world.NOW, world.JOB, hashlib.sha256(receipt).digest(), ueid(kind))
    after = Entry("note", world.NOW + 1, "later", world.fill("entry/4", 32))
    return [ENTRY.encode(one) for one in (*before, ours, after)]


def make_closed(
    receipt: bytes, kind: str = "mp", *, bend: Bend | None = None, head: bytes | None = None, entry: bytes | None = None
) -> bytes:
    """6. The receipt's place in that ledger; `entry` stands in the tree instead of the receipt's."""
    entries = make_entries(receipt, kind)
    if entry is not None:
        entries[3] = entry
    nodes: dict[tuple[int, int], bytes] = {}
    frontier = Frontier()
    for one in entries:
        frontier, made = frontier.append(leaf_hash(one))
        nodes.update({(node.level, node.place): node.hash for node in made})
    path = inclusion_path(3, len(entries), lambda level, index: nodes[level, index])
    closed = Closed(hashlib.sha256(receipt).digest(), 3, tuple(path), entries[3], head or make_head(entries))
    return CLOSED.encode(closed._replace(**(bend or {})))
