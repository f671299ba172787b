"""What an attacker can say: with root on a board, with a cloner's keys, or with stolen or rogue issuer keys.

Everything here goes over the same writers as honest messages, so that a forgery fails by the check it is aimed at.
"""

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mpagent.hal.ports import Board, DeviceKey
from mpissuer.ports import Authority
from mpserver.keystore import ROOT, Keystore
from mpwire import hpke, labels, limits, p256, registry
from mpwire.codec import encode
from mpwire.cose import join_sign1, sig_structure, thumbprint, write_sign1
from mpwire.evidence import outer_headers, read_inner, read_outer, write_optee_signature, write_tpm_signature
from mpwire.messages.eat import CLAIMS, Claims
from mpwire.messages.grant import CONTENTS, GRANT, Contents, Grant, SlotGrant, make_check_value, make_grant_info
from mpwire.messages.issuer import (
    HEAD,
    ISSUER_CERTIFICATE,
    TRUST_UPDATE,
    Head,
    IssuerCertificate,
    TrustUpdate,
)
from mpwire.messages.plain import CHALLENGE, HELLO, PROOF, Challenge, Hello, Proof
from mpwire.p256 import SoftKey
from mpwire.secret import Secret
from mpwire.trust import rotated_root_statement, write_signed
from tests.line import NOW, Device, Oem, ask_all

Edit = Callable[[Claims], Claims]
Attest = Callable[[Board, bytes, bytes], bytes]
EIGHT_HOURS_S = 28_800


def same(claims: Claims) -> Claims:
    """No edit."""
    return claims


def claiming(**changes: Any) -> Edit:
    """An edit that states something else."""
    return lambda claims: claims._replace(**changes)


def prove(device: Device) -> bytes:
    """The honest Proof of this board, not yet said."""
    proof = ask_all(device, "proven").outbox
    assert proof is not None
    return proof


def attest_honestly(board: Board, protected: bytes, inner: bytes) -> bytes:
    """The chip signs whatever its root user hands it."""
    made = board.attester.attest(sig_structure(protected, labels.AAD_EVIDENCE, inner))
    if made.measurement is not None:
        return join_sign1(protected, {}, inner, write_optee_signature(made.measurement, made.signature))
    if made.attest is None:
        beside = {} if made.mpmr is None else {registry.HEADER_MPMR: made.mpmr}
        return join_sign1(protected, beside, inner, made.signature)
    pcrs = [[index, value] for index, value in made.pcrs]
    signature = write_tpm_signature(made.attest, made.signature)
    return join_sign1(protected, {registry.HEADER_ATTEST_PCRS: pcrs}, inner, signature)


def resign(
    device: Device,
    raw: bytes,
    edit: Edit = same,
    *,
    sign: DeviceKey | None = None,
    attest: Attest = attest_honestly,
    protected: bytes | None = None,
    **parts: Any,
) -> bytes:
    """Root on a board: its own Proof with other claims or parts, signed again by its keys and its chip."""
    proof: Proof = PROOF.decode(raw, limits.PROOF_MAX_BYTES)._replace(**parts)
    outer = read_outer(proof.evidence)
    _, claims = read_inner(outer.payload)
    with device.power() as board:
        key = board.keyring.find_or_make(labels.DEVICE_SIGN) if sign is None else sign
        inner = sign_claims(edit(claims), key)
        evidence = attest(board, outer.protected if protected is None else protected, inner)
        activation = proof.activation if "activation" in parts else activate(board, proof, evidence)
    return PROOF.encode(proof._replace(evidence=evidence, activation=activation))


def sign_claims(claims: Claims, key: DeviceKey) -> bytes:
    """The inner envelope by a device key."""
    headers = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_EAT}
    return write_sign1(headers, CLAIMS.encode(claims), labels.AAD_EAT, key.sign)


def activate(board: Board, proof: Proof, evidence: bytes) -> bytes | None:
    """TPM: the HMAC under the credential that the Proof's Challenge brought."""
    credential = CHALLENGE.decode(proof.challenge, limits.CHALLENGE_MAX_BYTES).credential
    if board.activator is None or credential is None:
        return None
    secret = board.activator.activate(credential.id_object, credential.encrypted_secret)
    return hmac.digest(secret.reveal(), hashlib.sha256(evidence).digest(), "sha256")


def headers_of(alg: int, profile: str | None = "raw") -> bytes:
    """Protected header of an outer envelope."""
    return encode(outer_headers(alg, profile))


def claims_of(raw: bytes) -> Claims:
    """What a Proof claims."""
    return read_inner(read_outer(PROOF.decode(raw, limits.PROOF_MAX_BYTES).evidence).payload)[1]


def hello_of(raw: bytes) -> Hello:
    """The Hello inside a Proof."""
    return HELLO.decode(PROOF.decode(raw, limits.PROOF_MAX_BYTES).hello, limits.HELLO_MAX_BYTES)


def challenge_of(raw: bytes) -> Challenge:
    """The Challenge inside a Proof."""
    return CHALLENGE.decode(PROOF.decode(raw, limits.PROOF_MAX_BYTES).challenge, limits.CHALLENGE_MAX_BYTES)


def bind(hello: bytes, challenge: bytes) -> Edit:
    """Claims for this exchange."""
    nonce = CHALLENGE.decode(challenge, limits.CHALLENGE_MAX_BYTES).nonce
    return claiming(
        nonce=nonce,
        hello_hash=hashlib.sha256(hello).digest(),
        challenge_hash=hashlib.sha256(challenge).digest(),
    )


def begin_anew(device: Device, raw: bytes, hello: Hello, edit: Edit = same, **how: Any) -> bytes:
    """A whole exchange over an edited Hello: a fresh Challenge from the issuer, claims bound to it, all signed anew."""
    said = HELLO.encode(hello)
    challenge = device.line.oem.hear(said)
    bound = bind(said, challenge)
    return resign(device, raw, lambda claims: edit(bound(claims)), hello=said, challenge=challenge, **how)


@dataclass(frozen=True)
class Exchange:
    """What a Grant for this board has to name."""

    hello_hash: bytes
    nonce: bytes
    ueid: bytes
    kem_key: bytes
    evidence_hash: bytes
    points: dict[str, bytes]

    @classmethod
    def of(cls, device: Device) -> "Exchange":
        """Of a board whose Proof was made."""
        record = device.record()
        assert record.proof is not None
        claims, proof = claims_of(record.proof), PROOF.decode(record.proof, limits.PROOF_MAX_BYTES)
        with device.power() as board:
            point = board.keyring.find_or_make(labels.certificate_key("identity")).public_key()
        return cls(
            hello_hash=claims.hello_hash,
            nonce=claims.nonce,
            ueid=claims.ueid,
            kem_key=claims.kem_key,
            evidence_hash=hashlib.sha256(proof.evidence).digest(),
            points={"identity": point},
        )


@dataclass
class RogueIssuer:
    """Signs Grants, heads and updates of its own making; with the OEM's keys where a test hands them over."""

    oem: Oem

    @property
    def authority(self) -> Authority:
        """The OEM's role keys."""
        return self.oem.authority

    @property
    def root(self) -> SoftKey:
        """The OEM's root."""
        return SoftKey(Keystore(self.oem.folder / "keys").load_key(ROOT))

    def certify(self, key: SoftKey, by: SoftKey | None = None, **changes: Any) -> bytes:
        """A role certificate; by default a right one for the role grant."""
        above = self.root if by is None else by
        body = IssuerCertificate(
            role="grant",
            realm="lab",
            epoch=1,
            not_before=NOW,
            not_after=NOW + 7_776_000,
            key=key.public_key(),
            signer=thumbprint(above.public_key()),
        )
        headers = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_ISSUER_CERTIFICATE}
        raw = ISSUER_CERTIFICATE.encode(body._replace(**changes))
        return write_sign1(headers, raw, labels.AAD_ISSUER_CERTIFICATE, above.sign)

    def slots(self, exchange: Exchange, check_key: Secret) -> list[SlotGrant]:
        """What the product grants, with values of this issuer's making."""
        chain = Secret(
            encode(list(self.authority.certify(exchange.points["identity"], "identity", exchange.ueid, NOW)))
        )
        values = {"cloud": Secret(bytes(32)), "licence": Secret(b"rogue" * 4), "identity": chain}
        kinds = {"cloud": "random", "licence": "static", "identity": "certificate"}
        made = [
            SlotGrant(name, kinds[name], "sealed", 1, value, make_check_value(check_key, name, 1, value))
            for name, value in values.items()
        ]
        return [SlotGrant("disk", "local", "sealed", 1), *made]

    def grant(
        self,
        exchange: Exchange,
        *,
        head: Callable[[Grant], Grant] = lambda grant: grant,
        slots: Callable[[list[SlotGrant], Secret], Sequence[SlotGrant]] = lambda slots, _: slots,
        key: SoftKey | None = None,
        chain: Sequence[bytes] | None = None,
        update: bytes | None = None,
    ) -> bytes:
        """A Grant for this exchange; by default one that the board takes."""
        check_key = Secret(bytes(range(32)))
        contents = Contents(tuple(slots(self.slots(exchange, check_key), check_key)), check_key, bytes(32))
        open_head = head(
            Grant(exchange.hello_hash, exchange.nonce, exchange.ueid, "camera", "job-1", "lab", NOW, b"", b"")
        )
        point = self.authority.public_key("grant") if key is None else key.public_key()
        issuer_hash = hashlib.sha256(p256.write_spki(point)).digest()
        info = make_grant_info(open_head, exchange.evidence_hash, issuer_hash)
        enc, sealed = hpke.seal_base(exchange.kem_key, info, b"", Secret(CONTENTS.encode(contents)))
        payload = GRANT.encode(open_head._replace(encapsulated=enc, ciphertext=sealed))
        return write_signed(
            payload,
            labels.TYP_GRANT,
            labels.AAD_GRANT,
            self.authority.chain("grant") if chain is None else chain,
            key.sign if key is not None else lambda raw: self.authority.sign("grant", raw),
            update,
        )

    def update(
        self, *, signer: SoftKey | None = None, roots: Sequence[tuple[bytes, bytes]] = (), **changes: Any
    ) -> bytes:
        """A TrustUpdate, by default the root's own, to epoch 2."""
        above = self.root if signer is None else signer
        headers = {
            registry.HEADER_ALG: registry.ALG_ES256,
            registry.HEADER_TYP: labels.TYP_TRUST_UPDATE,
            registry.HEADER_KID: thumbprint(above.public_key()),
        }
        body = TrustUpdate("lab", 2, tuple(roots))._replace(**changes)
        return write_sign1(headers, TRUST_UPDATE.encode(body), labels.AAD_TRUST_UPDATE, above.sign)

    def head(self, head: Head, *, key: SoftKey | None = None, chain: Sequence[bytes] | None = None) -> bytes:
        """A tree head."""
        return write_signed(
            HEAD.encode(head),
            labels.TYP_HEAD,
            labels.AAD_HEAD,
            self.authority.chain("head") if chain is None else chain,
            key.sign if key is not None else lambda raw: self.authority.sign("head", raw),
        )


def name_root(root: SoftKey, epoch: int = 2, realm: str = "lab") -> tuple[bytes, bytes]:
    """A new root as a TrustUpdate names it, with its own signature."""
    point = root.public_key()
    return point, root.sign(rotated_root_statement(realm, epoch, point))


def other_s(signature: bytes) -> bytes:
    """The same ECDSA signature with n - s for s: as valid, other bytes."""
    s = p256.ORDER - int.from_bytes(signature[32:], "big")
    return signature[:32] + s.to_bytes(32, "big")
