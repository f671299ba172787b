"""The issuer's readers, behind ports that know nothing: what a stranger says costs no row and no signature (P5)."""

import hmac
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final

from mpissuer.challenge import derive_credential_secret
from mpissuer.enrollment import answer
from mpissuer.errors import ProductWrong
from mpissuer.orders import GrantOrder, ReceiptOrder
from mpissuer.policy import CHAIN_BYTES, SlotPolicy, read_product
from mpissuer.ports import GrantRow, SlotCheck
from mpwire import labels, registry
from mpwire.cose import write_sign1
from mpwire.errors import MpError
from mpwire.limits import CHALLENGE_MAX_BYTES, GRANT_MAX_BYTES, PROOF_MAX_BYTES, RECEIPT_MAX_BYTES
from mpwire.messages.eat import CLAIMS
from mpwire.messages.grant import CHECK_BYTES, CONTENTS, Contents, SlotGrant
from mpwire.messages.grant import RECEIPT as RECEIPT_SHAPE
from mpwire.messages.plain import CHALLENGE, PROOF
from mpwire.secret import Secret
from tests.fuzz.decoders import GRANT, MP, RECEIPT, TPM, Door, take_payload
from tests.fuzz.issuer import PRODUCT_FILE, make_issuer
from tests.fuzz.mutation import mutate_toml
from tests.vectors import exchange, world

CHECKS: Final = {
    slot.name: SlotCheck(slot.version, slot.check, slot.escrow is not None) for slot in exchange.make_slots()
}
ROW: Final = GrantRow(
    digest=sha256(GRANT).digest(),
    ueid=exchange.ueid("mp"),
    product=world.PRODUCT,
    job=world.JOB,
    sign_key=world.DEVICE_SIGN.public_key(),
    checks=CHECKS,
    answer=GRANT,
)


def feed_stranger(raw: bytes) -> None:
    """Whatever a stranger says: a Challenge, a Refusal's error, or an order that says what a key-holder signed."""
    said = answer(raw, make_issuer())
    if isinstance(said, bytes):
        CHALLENGE.decode(said, CHALLENGE_MAX_BYTES)
        return
    assert isinstance(said, GrantOrder), "nobody knows a grant, so no receipt can be weighed"
    assert said.ueid in (exchange.ueid("mp"), exchange.ueid("tpm"))
    assert (said.sign_key, said.kem_key) == (world.DEVICE_SIGN.public_key(), world.DEVICE_KEM.public_key())


def activate(kind: str, challenge: bytes, evidence: bytes) -> bytes | None:
    """What a TPM that holds EK and AK adds to its evidence."""
    if kind == "mp":
        return None
    nonce = CHALLENGE.decode(challenge, CHALLENGE_MAX_BYTES).nonce
    secret = derive_credential_secret(nonce, exchange.attester_id(kind), make_issuer().authority)
    return hmac.digest(secret.reveal(), sha256(evidence).digest(), "sha256")


def feed_claims(kind: str) -> Callable[[bytes], None]:
    """Claims that the device key and the attester sign, whatever they say."""
    spoken = MP if kind == "mp" else TPM
    proof = PROOF.decode(spoken.proof, PROOF_MAX_BYTES)
    headers = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_EAT}

    def feed(raw: bytes) -> None:
        inner = write_sign1(headers, raw, labels.AAD_EAT, world.DEVICE_SIGN.sign)
        if len(inner) > 3_900:
            return  # more than an attester signs in one call
        evidence = exchange.make_outer(kind, inner)
        said = proof._replace(evidence=evidence, activation=activate(kind, proof.challenge, evidence))
        order = answer(PROOF.encode(said), make_issuer())
        claims = CLAIMS.decode(raw, len(raw))
        assert isinstance(order, GrantOrder)
        assert order.ueid == claims.ueid == exchange.ueid(kind), "a board may not take another name"
        assert claims.life_cycle == 3 and claims.srk_hash == exchange.SRK_HASH

    return feed


def feed_receipt(raw: bytes) -> None:
    """A receipt's payload that the device key signs, for a grant that is known."""
    signed = exchange.sign_receipt(raw)
    order = answer(signed, make_issuer({ROW.digest: ROW}))
    assert isinstance(order, ReceiptOrder) and order.row == ROW and order.raw == signed
    receipt = RECEIPT_SHAPE.decode(raw, RECEIPT_MAX_BYTES)
    assert {slot.name: slot.version for slot in receipt.slots} == {n: c.version for n, c in CHECKS.items()}
    assert receipt.escrow is not None and receipt.escrow.keys() == {n for n, c in CHECKS.items() if c.escrowed}


def feed_product(raw: bytes) -> None:
    """A product file; what is accepted can be granted."""
    try:
        product = read_product(raw.decode(errors="replace"))
    except MpError as error:
        assert isinstance(error, ProductWrong)
        raise
    made = CONTENTS.encode(Contents(tuple(map(_fill, product.slots)), Secret(bytes(32)), product.digest))
    assert len(made) <= GRANT_MAX_BYTES - 16_384, "certificates and framing need the rest"
    CONTENTS.decode(made, GRANT_MAX_BYTES)


def _fill(slot: SlotPolicy) -> SlotGrant:
    """A slot as a Grant would hold it, with a value of the right size."""
    if slot.kind == "local":
        return SlotGrant(slot.name, slot.kind, slot.destination, slot.version, escrow=slot.escrow)
    value = slot.value or Secret(bytes(CHAIN_BYTES if slot.kind == "certificate" else slot.length))
    return SlotGrant(slot.name, slot.kind, slot.destination, slot.version, value, bytes(CHECK_BYTES))


def appraisal_doors() -> dict[str, Door]:
    """Into `answer`."""
    tpm = PROOF.decode(TPM.proof, PROOF_MAX_BYTES)
    tpm = tpm._replace(activation=activate("tpm", tpm.challenge, tpm.evidence))
    claims = {kind: take_payload(spoken.inner) for kind, spoken in (("mp", MP), ("tpm", TPM))}
    return {
        "hello-mp": Door(feed_stranger, MP.hello),
        "hello-tpm": Door(feed_stranger, TPM.hello),
        "proof-mp": Door(feed_stranger, MP.proof),
        "proof-tpm": Door(feed_stranger, PROOF.encode(tpm)),
        "claims-mp": Door(feed_claims("mp"), claims["mp"]),
        "claims-tpm": Door(feed_claims("tpm"), claims["tpm"]),
        "receipt": Door(feed_receipt, take_payload(RECEIPT)),
    }


def product_doors() -> dict[str, Door]:
    """Into `read_product`."""
    return {"product": Door(feed_product, PRODUCT_FILE.encode(), mutate_toml)}


ISSUER: Final[Mapping[str, Callable[[], dict[str, Door]]]] = {"answer": appraisal_doors, "product": product_doors}
