"""Every numbered check of both enrollments, by bytes alone: each is refused by its own check and leaves nothing."""

import json
from typing import Any, cast

import pytest

from mpagent.acceptance import Pending, accept_closed, accept_grant, check_slots
from mpagent.enrollment import Tools, prove
from mpagent.image import Image, WantedSlot
from mpagent.record import Record, Stage
from mpissuer.booking import book_grant, book_receipt
from mpissuer.enrollment import answer, write_refusal
from mpissuer.orders import GrantOrder, ReceiptOrder
from mpwire.errors import MpError, PeerBroke
from mpwire.messages.plain import CHALLENGE, PROOF, REFUSAL
from mpwire.trust import Trust
from tests.vectors.format import HERE, Vector, load, read_bytes
from tests.vectors.ports import FixedIssuer, load_key
from tests.walls.checks import SPEAKING, names_of_checks

WORLD: dict[str, Any] = json.loads((HERE / "world.json").read_text())
GOLDEN = {vector["name"]: read_bytes(vector["bytes"]) for vector in load("golden.json")}
ISSUER, DEVICE = load("issuer.json"), load("device.json")
SLOTS = tuple(WantedSlot(one["name"], one["kind"], one["destination"]) for one in WORLD["policy"]["slots"])
ROOTS = tuple(bytes.fromhex(WORLD["keys"][name]["point"]) for name in ("root", "standby_root"))


def by_name(vectors: list[Vector], kind: str) -> Any:
    chosen = [vector for vector in vectors if vector["kind"] == kind]
    return pytest.mark.parametrize("vector", chosen, ids=[vector["name"] for vector in chosen])


def play_issuer(vector: Vector) -> tuple[FixedIssuer, bytes | None]:
    fixed = FixedIssuer(WORLD, vector, GOLDEN["grant"])
    return fixed, speak_to(fixed, read_bytes(vector["bytes"]))


def speak_to(fixed: FixedIssuer, raw: bytes) -> bytes | None:
    issuer = fixed.as_issuer()
    said = answer(raw, issuer)
    if isinstance(said, GrantOrder):
        return book_grant(said, fixed.as_books(), issuer)
    if isinstance(said, ReceiptOrder):
        return book_receipt(said, fixed.as_books(), issuer)
    return said


@by_name(ISSUER, "check")
def test_the_issuer_refuses_by_the_check_of_the_step(vector: Vector) -> None:
    fixed = FixedIssuer(WORLD, vector, GOLDEN["grant"])
    with pytest.raises(MpError) as caught:
        speak_to(fixed, read_bytes(vector["bytes"]))
    refusal = REFUSAL.decode(write_refusal(caught.value), 1_024)
    assert refusal.check == vector["check"], caught.value.detail
    assert fixed.written == []  # P5: what is refused costs no row


@by_name(ISSUER, "ok")
def test_the_issuer_answers_where_nothing_is_wrong(vector: Vector) -> None:
    fixed, said = play_issuer(vector)
    if vector["answer"] == "closed":
        assert said == GOLDEN["closed"] and fixed.written == []
    elif vector["answer"] == "challenge-said":
        assert said is not None and CHALLENGE.decode(said, 8_192) and fixed.written == []
    else:
        assert fixed.written[-1] == "entry"


def pending() -> Pending:
    proof = PROOF.decode(GOLDEN["proof-mp"], 65_536)
    nonce = CHALLENGE.decode(proof.challenge, 8_192).nonce
    return Pending(proof.hello, nonce, GOLDEN["proof-mp"], proof.evidence, bytes.fromhex(WORLD["ueid"]["mp"]))


IMAGE = Image(
    realm=WORLD["realm"],
    product=WORLD["product"],
    roots=ROOTS,
    tls_roots=(),
    slots=SLOTS,
    build_time=WORLD["device_floor"],
    epoch=WORLD["issuer_epoch"],
)
TRUST = Trust(IMAGE.realm, ROOTS, IMAGE.epoch, IMAGE.build_time)


def play_device(vector: Vector) -> None:
    raw = read_bytes(vector["bytes"])
    match vector["message"]:
        case "challenge":
            # The step stops at the first wrong byte, before it would touch any part of the board.
            prove(Record(stage=Stage.GREETED, hello=GOLDEN["hello-mp"]), raw, cast(Tools, None))
        case "grant":
            accepted = accept_grant(raw, pending(), IMAGE, TRUST, load_key(WORLD, "device_kem"))
            points = {"idevid": load_key(WORLD, "device_certificate").public_key()}
            check_slots(accepted.contents, SLOTS, vector.get("stored", {}), points)
        case "closed":
            accept_closed(raw, bytes.fromhex(WORLD["ueid"]["mp"]), GOLDEN["receipt"], TRUST)


@by_name(DEVICE, "check")
def test_the_device_refuses_by_the_check_of_the_step(vector: Vector) -> None:
    with pytest.raises(PeerBroke) as caught:
        play_device(vector)
    assert str(caught.value).split(":")[0] == vector["check"]


@by_name([one for one in DEVICE if one["message"] != "challenge"], "ok")
def test_the_device_accepts_where_nothing_is_wrong(vector: Vector) -> None:
    play_device(vector)


def test_the_device_goes_on_from_a_good_challenge() -> None:
    """It gets as far as the board, which is not there."""
    (good,) = [one for one in DEVICE if one["message"] == "challenge" and one["kind"] == "ok"]
    with pytest.raises(AttributeError, match="progress"):
        play_device(good)


NEEDS_MORE_THAN_BYTES = {"job-ended", "merkle-consistency", "trust-update", "tpm-ak", "tpm-ek"}
"""Names of the keystore and of auditors, and the words of a detail inside another check."""


def test_every_check_of_both_enrollments_has_a_vector() -> None:
    shown = {vector.get("check") for vector in ISSUER + DEVICE} | {vector["rule"] for vector in load("trust.json")}
    raised = set().union(*(names_of_checks(path) for path in SPEAKING)) - NEEDS_MORE_THAN_BYTES
    assert raised - shown == set()
