"""Receipts that lie or are forged, and Closed messages that prove nothing."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from mpagent.errors import Refused
from mpagent.record import Stage
from mpwire import labels, limits, registry
from mpwire.cose import read_sign1, write_sign1
from mpwire.hpke import open_base
from mpwire.merkle import leaf_hash
from mpwire.messages.grant import RECEIPT, Receipt, make_escrow_info
from mpwire.messages.issuer import ENTRY, HEAD, Entry, Head
from mpwire.messages.plain import CLOSED, Closed
from mpwire.p256 import SoftKey
from mpwire.trust import ES256_ONLY, read_signed
from tests.attacks.conftest import Refuses, Shrugs
from tests.attacks.forge import RogueIssuer, prove
from tests.line import NOW, PRODUCT, Device, Factory, Oem, ask_all, refusal_check

MakeOem = Callable[..., Oem]
MakeFactory = Callable[[Oem], Factory]


@pytest.fixture
def device(factory: Factory) -> Device:
    """A board whose vault is written and whose Receipt is not said yet."""
    made = factory.board()
    ask_all(made, "kept")
    return made


def receipt_of(device: Device) -> Receipt:
    """What the board is about to say."""
    outbox = device.record().outbox
    assert outbox is not None
    envelope = read_sign1(outbox, typ=labels.TYP_RECEIPT, algs=ES256_ONLY)
    return RECEIPT.decode(envelope.payload, limits.RECEIPT_MAX_BYTES)


def sign_receipt(device: Device, receipt: Receipt, key: SoftKey | None = None) -> bytes:
    """Root on the board signs another Receipt; or a stranger does."""
    headers = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_RECEIPT}
    with device.power() as board:
        signer = board.keyring.find_or_make(labels.DEVICE_SIGN) if key is None else key
        return write_sign1(headers, RECEIPT.encode(receipt), labels.AAD_RECEIPT, signer.sign)


def finish(device: Device) -> None:
    """The true Receipt is said and closes the unit."""
    assert device.enroll().stage is Stage.DONE
    assert device.line.oem.rows("SELECT state FROM units WHERE closed IS NOT NULL") == [("provisioned",)]


def test_receipt_by_a_stranger_is_refused(device: Device, refuses: Refuses) -> None:
    """T-150 Forgery: receipts are readable at the CM; whoever copies one cannot sign it."""
    refuses(sign_receipt(device, receipt_of(device), SoftKey.generate()), "receipt-signature")

    finish(device)


def test_receipt_by_another_unit_is_refused(device: Device, factory: Factory, refuses: Refuses) -> None:
    """T-151 Paper boards: a finished unit signs the Receipt of one that never sealed anything."""
    other = factory.board()
    other.enroll()

    refuses(sign_receipt(other, receipt_of(device)), "receipt-signature")


def test_receipt_with_another_check_value_is_refused(device: Device, refuses: Refuses) -> None:
    """T-152 Broken storage: what came back from the chip is not what was sent."""
    receipt = receipt_of(device)
    slots = tuple(one._replace(check=bytes(16)) if one.name == "cloud" else one for one in receipt.slots)

    refuses(sign_receipt(device, receipt._replace(slots=slots)), "check-value")

    finish(device)


def test_receipt_for_an_unknown_grant_is_refused(device: Device, refuses: Refuses) -> None:
    """T-153 Paper boards: a Receipt for a Grant that nobody stored."""
    refuses(sign_receipt(device, receipt_of(device)._replace(grant_digest=bytes(32))), "grant-unknown")


def test_receipt_with_another_ueid_is_refused(device: Device, refuses: Refuses) -> None:
    """T-154 Mix-up: a Receipt under the right key that names another board."""
    refuses(sign_receipt(device, receipt_of(device)._replace(ueid=b"\x01" + bytes(32))), "receipt-ueid")


def test_receipt_with_other_slots_is_refused(device: Device, refuses: Refuses) -> None:
    """T-155 Half sealed: a slot missing, doubled, invented, or of another version."""
    receipt = receipt_of(device)
    first, *rest = receipt.slots
    for slots in (
        tuple(rest),
        (*receipt.slots, first),
        (*receipt.slots, first._replace(name="more")),
        (first._replace(version=2), *rest),
        (),
    ):
        refuses(sign_receipt(device, receipt._replace(slots=slots)), "receipt-slots")

    finish(device)


@pytest.mark.parametrize("changes", [{"closed_proof": "none"}, {"life_cycle": 1}, {"life_cycle": None}])
def test_receipt_without_proof_of_closed_is_refused(device: Device, refuses: Refuses, changes: dict[str, Any]) -> None:
    """T-156 Sealed under the test key: a board that cannot say how closed was proven stays unprovisioned."""
    refuses(sign_receipt(device, receipt_of(device)._replace(**changes)), "receipt-closed-proof")

    finish(device)


def test_second_receipt_of_a_closed_unit_is_refused(device: Device, oem: Oem, refuses: Refuses) -> None:
    """T-157 Rewriting: a unit that is closed cannot be closed again with another story."""
    receipt = receipt_of(device)
    finish(device)
    size = oem.count("entries")

    refuses(sign_receipt(device, receipt._replace(rollback="tpm-nv")), "receipt-other")

    assert oem.count("entries") == size


def test_open_part_is_provisioned_only_where_the_product_says_so(make_oem: MakeOem, make_factory: MakeFactory) -> None:
    """T-158 Lab rules: a product for any life cycle, with an image that says so too, prints "none" as its proof."""
    oem = make_oem(product=PRODUCT.replace('life_cycle = "closed"', 'life_cycle = "any"'))
    device = make_factory(oem).board(closed=False)
    device.image = device.image._replace(allow_open=True)
    ask_all(device, "kept")

    assert receipt_of(device).closed_proof == "none"
    finish(device)


def test_receipt_without_its_escrow_is_refused(make_oem: MakeOem, make_factory: MakeFactory) -> None:
    """T-159 Lost escrow: a disk key that the OEM must be able to recover is left out, or a stranger's is added."""
    keeper = SoftKey.generate()
    key = f'kind = "local"\nescrow = "{keeper.public_key().hex()}"'
    oem = make_oem(product=PRODUCT.replace('kind = "local"', key))
    device = make_factory(oem).board()
    ask_all(device, "kept")
    receipt, before = receipt_of(device), oem.state()
    assert receipt.escrow is not None

    for escrow in (None, {**receipt.escrow, "cloud": receipt.escrow["disk"]}):
        assert refusal_check(oem.hear(sign_receipt(device, receipt._replace(escrow=escrow)))) == "receipt-escrow"
    assert oem.state() == before

    outbox = device.record().outbox
    finish(device)
    assert oem.rows("SELECT receipt FROM units") == [(outbox,)]
    info = make_escrow_info(receipt.ueid, "disk", 1)
    opened = open_base(keeper, receipt.escrow["disk"][0], info, b"", receipt.escrow["disk"][1])
    assert opened.reveal() == device.secrets()["disk"]


def closed_of(device: Device, oem: Oem) -> tuple[Closed, bytes]:
    """The Closed that the issuer would say now, and the receipt."""
    outbox = device.record().outbox
    assert outbox is not None
    return CLOSED.decode(oem.hear(outbox), limits.CLOSED_MAX_BYTES), outbox


def lone_tree(oem: Oem, entry: bytes, **changes: Any) -> Closed:
    """A tree of this one entry."""
    head = RogueIssuer(oem).head(Head(1, leaf_hash(entry), NOW, "lab")._replace(**changes))
    return Closed(bytes(32), 0, (), entry, head)


def test_forged_closed_is_refused(device: Device, oem: Oem, shrugs: Shrugs) -> None:
    """T-160 Paper boards: a Closed whose head nobody signed, or signed by a key of the thief's own."""
    closed, _ = closed_of(device, oem)
    rogue, key = RogueIssuer(oem), SoftKey.generate()
    head = HEAD.decode(read_signed(closed.head, labels.TYP_HEAD).payload, 2048)
    for forged, check in (
        (rogue.head(head, key=key), "head-signature"),
        (rogue.head(head, key=key, chain=[rogue.certify(key, SoftKey.generate(), role="head")]), "issuer-root"),
        (closed.head[:-1] + bytes([closed.head[-1] ^ 1]), "head-signature"),
    ):
        shrugs(device, CLOSED.encode(closed._replace(head=forged)), check)

    finish(device)


def test_closed_by_the_grant_key_is_refused(device: Device, oem: Oem, shrugs: Shrugs) -> None:
    """T-161 Role: the grant key, on every server, signs a tree head."""
    closed, _ = closed_of(device, oem)
    rogue, key = RogueIssuer(oem), SoftKey.generate()
    head = HEAD.decode(read_signed(closed.head, labels.TYP_HEAD).payload, 2048)

    shrugs(device, CLOSED.encode(closed._replace(head=rogue.head(head, key=key, chain=[rogue.certify(key)]))),
           "issuer-role")  # fmt: skip

    finish(device)


def test_closed_of_another_device_is_refused(device: Device, factory: Factory, oem: Oem, shrugs: Shrugs) -> None:
    """T-162 Mix-up: another board's Closed, and this one's with the other's entry and path."""
    other = factory.board()
    foreign = other.enroll().closed
    assert foreign is not None
    _, receipt = closed_of(device, oem)
    theirs = CLOSED.decode(foreign, limits.CLOSED_MAX_BYTES)

    shrugs(device, foreign, "closed-receipt")
    digest = hashlib.sha256(receipt).digest()
    shrugs(device, CLOSED.encode(theirs._replace(receipt_digest=digest)), "closed-entry")

    finish_beside(device, other)


def finish_beside(device: Device, other: Device) -> None:
    """Both boards are whole."""
    assert device.enroll().stage is Stage.DONE and other.enroll().stage is Stage.DONE


def test_wrong_inclusion_proof_is_refused(device: Device, factory: Factory, oem: Oem, shrugs: Shrugs) -> None:
    """T-163 Log tampering: an entry that is not where the Closed says, or not in the tree at all."""
    factory.board().enroll()
    closed, _ = closed_of(device, oem)
    assert closed.path

    for wrong in (
        closed._replace(leaf_index=closed.leaf_index - 1),
        closed._replace(leaf_index=closed.leaf_index + 1),
        closed._replace(path=closed.path[:-1]),
        closed._replace(path=(*closed.path, bytes(32))),
        closed._replace(path=(bytes(32), *closed.path[1:])),
    ):
        shrugs(device, CLOSED.encode(wrong), ".")

    assert device.enroll().stage is Stage.DONE


@pytest.mark.parametrize(
    "changes", [{"kind": "grant"}, {"ueid": None}, {"ueid": b"\x01" + bytes(32)}, {"digest": bytes(32)}]
)
def test_closed_over_another_entry_is_refused(
    device: Device, oem: Oem, shrugs: Shrugs, changes: dict[str, Any]
) -> None:
    """T-164 Log tampering: a true tree whose entry is no receipt of this board."""
    _, receipt = closed_of(device, oem)
    ueid, digest = device.record().ueid, hashlib.sha256(receipt).digest()
    entry = ENTRY.encode(Entry("receipt", NOW, "job-1", digest, ueid)._replace(**changes))

    shrugs(device, CLOSED.encode(lone_tree(oem, entry)._replace(receipt_digest=digest)), "closed-entry")

    finish(device)


@pytest.mark.parametrize(
    ("changes", "check"), [({"realm": "production"}, "head-realm"), ({"time": NOW + 10**9}, "head-time")]
)
def test_head_of_another_realm_or_far_future_is_refused(
    device: Device, oem: Oem, shrugs: Shrugs, changes: dict[str, Any], check: str
) -> None:
    """T-165 Clock: a head above its key's end would raise the time floor beyond every certificate."""
    _, receipt = closed_of(device, oem)
    digest = hashlib.sha256(receipt).digest()
    entry = ENTRY.encode(Entry("receipt", NOW, "job-1", digest, device.record().ueid))

    shrugs(device, CLOSED.encode(lone_tree(oem, entry, **changes)._replace(receipt_digest=digest)), check)

    assert device.record().time_floor == NOW
    finish(device)


def test_stranger_cannot_close_a_board_that_waits_for_its_grant(factory: Factory, oem: Oem, shrugs: Shrugs) -> None:
    """T-166 Paper boards: a Closed in place of a Grant counts only for this board, with a vault that unseals."""
    done, waiting = factory.board(), factory.board()
    foreign = done.enroll().closed
    assert foreign is not None
    prove(waiting)

    shrugs(waiting, foreign, "closed-entry")

    entry = ENTRY.encode(Entry("receipt", NOW, "job-1", bytes(32), waiting.record().ueid))
    before = waiting.kept()
    forged = CLOSED.encode(lone_tree(oem, entry))
    waiting.line.thief = lambda _asked, _answer: forged
    with pytest.raises(Refused, match="rework"):
        waiting.enroll()
    assert waiting.kept() == before
    waiting.line.thief = lambda _asked, answer: answer
    assert waiting.enroll().stage is Stage.DONE


def test_finished_board_that_lost_its_vault_gets_no_values_again(factory: Factory, oem: Oem) -> None:
    """T-167 Grey market: root wipes a finished board to be given a second set; only a rework could."""
    device = factory.board()
    device.enroll()
    for path in [*device.disk.folder.glob("record-?"), *device.disk.folder.glob("vault/*")]:
        path.unlink()
    before = oem.state()

    with pytest.raises(Refused, match="rework"):
        device.enroll()

    assert oem.state() == before and oem.count("grants") == 1
    assert device.record().stage is Stage.PROVEN and device.record().generation == 0


def test_lost_journal_adopts_an_intact_vault(factory: Factory, oem: Oem) -> None:
    """T-168 Accident: the record is gone and the vault is whole: the board is whole again after a live unseal."""
    device = factory.board()
    closed = device.enroll().closed
    secrets = device.secrets()
    for path in device.disk.folder.glob("record-?"):
        path.unlink()
    grants = oem.count("grants")

    record = device.enroll()

    assert record.stage is Stage.DONE and record.closed == closed
    assert device.secrets() == secrets and oem.count("grants") == grants and oem.granted() == 1


def test_receipt_in_the_wrong_envelope_is_refused(device: Device, oem: Oem) -> None:
    """T-169 Confusion: the inner evidence of a Proof, or a head, said as a Receipt."""
    before = oem.state()
    closed = oem.hear(device.record().outbox or b"")
    after = oem.state()
    head = CLOSED.decode(closed, limits.CLOSED_MAX_BYTES).head
    with device.power() as board:
        key = board.keyring.find_or_make(labels.DEVICE_SIGN)
        headers = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_RECEIPT}
        other = write_sign1(headers, RECEIPT.encode(receipt_of(device)), labels.AAD_EAT, key.sign)

    assert refusal_check(oem.hear(head)) == "malformed"
    assert refusal_check(oem.hear(other)) == "receipt-signature"

    assert oem.state() == after != before
