"""The issuer's readers, behind ports that know nothing: what a stranger says costs no row and no signature (P5)."""

import hmac
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mpissuer.challenge import derive_credential_secret
from mpissuer.endorsement import check_path, read_certificate
from mpissuer.enrollment import answer
from mpissuer.errors import ProductWrong
from mpissuer.orders import GrantOrder, ReceiptOrder
from mpissuer.policy import CHAIN_BYTES, SlotPolicy, read_product
from mpissuer.ports import GrantRow, SlotCheck
from mpserver.console import read_console
from mpserver.mpfinding import weigh
from mpwire import labels, p256, registry
from mpwire.cose import write_sign1
from mpwire.errors import MpError
from mpwire.limits import CHALLENGE_MAX_BYTES, GRANT_MAX_BYTES, PROOF_MAX_BYTES, RECEIPT_MAX_BYTES
from mpwire.messages.eat import CLAIMS
from mpwire.messages.grant import CHECK_BYTES, CONTENTS, Contents, SlotGrant
from mpwire.messages.grant import RECEIPT as RECEIPT_SHAPE
from mpwire.messages.plain import CHALLENGE, PROOF
from mpwire.secret import Secret
from tests.fuzz.decoders import GRANT, RECEIPT, SPOKEN, TPM, Door, take_payload
from tests.fuzz.issuer import PRODUCT_FILE, make_issuer
from tests.fuzz.mutation import mutate_bytes, mutate_toml
from tests.mpserver.consoles import BOARD_A, BOARD_B, stamp
from tests.vectors import cards, exchange, world
from tests.vectors.silicon import A_KEY

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
    assert said.ueid in map(exchange.ueid, SPOKEN)
    assert (said.sign_key, said.kem_key) == (world.DEVICE_SIGN.public_key(), world.DEVICE_KEM.public_key())


def activate(kind: str, challenge: bytes, evidence: bytes) -> bytes | None:
    """What a TPM that holds EK and AK adds to its evidence."""
    if kind != "tpm":
        return None
    nonce = CHALLENGE.decode(challenge, CHALLENGE_MAX_BYTES).nonce
    secret = derive_credential_secret(nonce, exchange.attester_id(kind), make_issuer().authority)
    return hmac.digest(secret.reveal(), sha256(evidence).digest(), "sha256")


def feed_claims(kind: str) -> Callable[[bytes], None]:
    """Claims that the device key and the attester sign, whatever they say."""
    proof = PROOF.decode(SPOKEN[kind].proof, PROOF_MAX_BYTES)
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
    proofs = {**{kind: spoken.proof for kind, spoken in SPOKEN.items()}, "tpm": PROOF.encode(tpm)}
    return {
        **{f"hello-{kind}": Door(feed_stranger, spoken.hello) for kind, spoken in SPOKEN.items()},
        **{f"proof-{kind}": Door(feed_stranger, proof) for kind, proof in proofs.items()},
        **{f"claims-{kind}": Door(feed_claims(kind), take_payload(one.inner)) for kind, one in SPOKEN.items()},
        "receipt": Door(feed_receipt, take_payload(RECEIPT)),
        "card-leaf": Door(feed_leaf, cards.CERTIFICATE, mutate_bytes),
        "card-authority": Door(feed_authority, cards.BETWEEN, mutate_bytes),
    }


def feed_leaf(raw: bytes) -> None:
    """A card's certificate as a stranger could bend it: what leads to the root is for the card's own key."""
    certificate = read_certificate(raw)
    check_path(certificate, (cards.BETWEEN,), (cards.ROOT_PEM,), world.NOW)
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert p256.read_spki(key) == cards.CARD.public_key()


def feed_authority(raw: bytes) -> None:
    """What a card shows above its certificate."""
    check_path(read_certificate(cards.CERTIFICATE), (raw,), (cards.ROOT_PEM,), world.NOW)


def feed_console(raw: bytes) -> None:
    """A pasted log, however it was bent, makes no other key than the one in it and verifies nothing else."""
    found = weigh(read_console(raw))
    assert found.key in (A_KEY, None)
    assert found.verified is not True or found.key == A_KEY


def console_doors() -> dict[str, Door]:
    """Into `mpserver mp import-log`."""
    return {
        "caam": Door(feed_console, BOARD_A.encode(), mutate_bytes),
        "redacted": Door(feed_console, BOARD_B.encode(), mutate_bytes),
        "stamped": Door(feed_console, stamp(BOARD_A).encode(), mutate_bytes),
    }


def product_doors() -> dict[str, Door]:
    """Into `read_product`."""
    return {"product": Door(feed_product, PRODUCT_FILE.encode(), mutate_toml)}


ISSUER: Final[Mapping[str, Callable[[], dict[str, Door]]]] = {
    "answer": appraisal_doors,
    "product": product_doors,
    "console": console_doors,
}
