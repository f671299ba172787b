"""One enrollment, as the issuer answers it, top to bottom (docs/wire.md section 4, same step numbers).

`answer` verifies and decides what to ask of the books; it writes nothing, so what is refused here costs no row and no
transaction (promise P5). The face hands an Order to the ledger, which books it (booking.py) durably before it answers.
"""

import hashlib
import hmac

from mpissuer.challenge import write_challenge
from mpissuer.checks import require, step
from mpissuer.errors import Refused
from mpissuer.evidence import appraise, check_hello, read_hello
from mpissuer.issuer import Issuer
from mpissuer.orders import GrantOrder, Order, ReceiptOrder
from mpissuer.ports import GrantRow
from mpwire import labels, registry
from mpwire.cose import read_sign1, verify_es256
from mpwire.errors import Malformed, MpError
from mpwire.limits import PROOF_MAX_BYTES, RECEIPT_MAX_BYTES
from mpwire.messages.grant import RECEIPT, Receipt
from mpwire.messages.plain import OPERATOR, REFUSAL, Refusal, read_number
from mpwire.trust import ES256_ONLY

SIGN1_TAG = 0xD2
"""First byte of a tagged COSE_Sign1: of what devices say, only a Receipt begins so."""


def answer(raw: bytes, issuer: Issuer) -> bytes | Order:
    """The reply to a Hello, or the Order a Proof or Receipt makes. Raises Malformed, Refused, NotNow."""
    if raw[:1] == bytes([SIGN1_TAG]):
        return weigh_receipt(raw, issuer)
    if len(raw) > PROOF_MAX_BYTES:
        raise Malformed("message: longer than any message")
    message = read_number(raw)
    if message == registry.HELLO:
        return challenge(raw, issuer)
    if message != registry.PROOF:
        raise Malformed("message: devices say 1, 3 and 5")
    digest = hashlib.sha256(raw).digest()
    stored = issuer.ledger.recall(digest)  # 3.11: the same Proof gets the same stored bytes, whatever has changed since
    return weigh_proof(raw, digest, issuer) if stored is None else stored


def challenge(raw: bytes, issuer: Issuer) -> bytes:
    """2. A nonce this issuer can recognise without having stored it."""
    hello = read_hello(raw)  # 2.1
    check_hello(hello, issuer.catalogue)  # 2.2 to 2.6
    return write_challenge(raw, hello, issuer.authority, issuer.clock.now(), issuer.random)  # 2.7


def weigh_proof(raw: bytes, digest: bytes, issuer: Issuer) -> GrantOrder:
    """3.10 to 3.37. What the books are asked for a board whose evidence holds."""
    shown = appraise(raw, issuer.authority, issuer.catalogue, issuer.clock.now())
    heard, claims = shown.heard, shown.claims
    return GrantOrder(
        product=heard.product,
        ueid=claims.ueid,
        attester=heard.hello.attester.kind,
        grade=shown.grade,
        hardware_ids=claims.hardware_ids,
        sign_key=claims.cnf.key,
        kem_key=claims.kem_key,
        certificate_keys=shown.certificate_keys,
        hello_hash=claims.hello_hash,
        nonce=claims.nonce,
        proof_digest=digest,
        evidence_hash=hashlib.sha256(heard.proof.evidence).digest(),
    )


def weigh_receipt(raw: bytes, issuer: Issuer) -> ReceiptOrder:
    """5.1 to 5.7. A Receipt by the device its Grant went to, saying what that Grant asks."""
    if len(raw) > RECEIPT_MAX_BYTES:
        raise Malformed("receipt: longer than a receipt")
    envelope = read_sign1(raw, typ=labels.TYP_RECEIPT, algs=ES256_ONLY)  # 5.1
    receipt = RECEIPT.decode(envelope.payload, RECEIPT_MAX_BYTES)
    row = issuer.ledger.find_grant(receipt.grant_digest)
    if row is None:  # 5.2
        raise Refused("grant-unknown", "no such grant was stored")
    with step("receipt-signature"):  # 5.3
        verify_es256(envelope, row.sign_key, labels.AAD_RECEIPT)
    require(receipt.ueid == row.ueid, "receipt-ueid", "the receipt names another board")  # 5.4
    check_receipt(receipt, row, issuer)  # 5.5 to 5.7
    return ReceiptOrder(raw, hashlib.sha256(raw).digest(), row, receipt.phase == "final")


def check_receipt(receipt: Receipt, row: GrantRow, issuer: Issuer) -> None:
    """Every granted slot once, at its version, with the right check value and escrow, on a part proven closed."""
    told = {slot.name: slot for slot in receipt.slots}
    same = len(told) == len(receipt.slots) and told.keys() == row.checks.keys()
    require(same, "receipt-slots", f"the receipt names {sorted(told)}")
    escrowed = {name for name, granted in row.checks.items() if granted.escrowed}
    require((receipt.escrow or {}).keys() == escrowed, "receipt-escrow", f"escrowed are not {sorted(escrowed)}")
    for name, granted in row.checks.items():
        require(told[name].version == granted.version, "receipt-slots", f"slot {name} at version {told[name].version}")
        right = granted.check is None or hmac.compare_digest(granted.check, told[name].check)
        require(right, "check-value", f"slot {name} was not sealed as it was sent")
    product = issuer.catalogue.product(row.product)
    proven = receipt.closed_proof != "none" and receipt.life_cycle == 3
    if product is not None and product.life_cycle == "closed":
        require(proven, "receipt-closed-proof", "the product wants a part proven closed when it sealed")


def write_refusal(error: MpError) -> bytes:
    """What the peer hears: the check's name and the class, no more (promise P11)."""
    if isinstance(error, Refused):
        refusal = Refusal(error.check, int(error.again), error.retry_after_s or None)
    else:
        refusal = Refusal("malformed", OPERATOR)
    return REFUSAL.encode(refusal)
