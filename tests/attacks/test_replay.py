"""Somebody recorded the line and says it again: to the issuer, to the same board, around other bytes."""

import hashlib
from collections.abc import Callable

import pytest

from mpagent.errors import RefusedForNow
from mpagent.record import Stage
from mpissuer.challenge import KEY_EPOCH_S
from mpwire import limits, registry
from mpwire.cose import join_sign1
from mpwire.errors import PeerBroke
from mpwire.evidence import read_outer
from mpwire.limits import CHALLENGE_LIFE_S
from mpwire.messages.plain import CHALLENGE, HELLO, PROOF, REFUSAL, RETRY, Refusal
from tests.attacks.conftest import Refuses
from tests.attacks.forge import challenge_of, hello_of, other_s, prove, resign
from tests.line import Device, Factory, Oem, ask_all, refusal_check


def test_recorded_proof_before_closed_gets_the_stored_grant(factory: Factory, oem: Oem) -> None:
    """T-01 Replay: the same Proof again brings the same bytes, and counts nothing."""
    proof = prove(factory.board())
    grant = oem.hear(proof)
    before = oem.state()

    assert [oem.hear(proof) for _ in range(3)] == [grant] * 3

    assert oem.state() == before and oem.granted() == 1


def test_recorded_proof_after_closed_gets_the_closed_only(factory: Factory, oem: Oem) -> None:
    """T-02 Replay: once a unit is closed its recorded Proof yields no Grant any more."""
    device = factory.board()
    device.enroll()
    _, proof, _ = device.line.heard
    grant, closed = device.line.said[1:]
    before = oem.state()

    said = oem.hear(proof)

    assert said == closed != grant
    assert oem.state() == before


def test_recorded_signatures_around_a_new_challenge_are_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-03 Replay: the evidence of an old Proof beside a Challenge that the thief asked for himself."""
    device = factory.board()
    device.enroll()
    recorded = PROOF.decode(device.line.heard[1], limits.PROOF_MAX_BYTES)
    fresh = oem.hear(recorded.hello)

    refuses(PROOF.encode(recorded._replace(challenge=fresh)), "nonce")

    assert oem.granted() == 1


def test_two_proofs_for_one_challenge_bring_one_grant(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-04 Replay: root on a board signs a second Proof over a nonce that was answered already."""
    device = factory.board()
    first = prove(device)
    second = resign(device, first)
    assert second != first
    grant = oem.hear(first)

    refuses(second, "nonce-used")

    assert oem.hear(first) == grant and oem.count("grants") == 1
    assert [(kind, count) for kind, _, count in oem.alarms()] == [("nonce-used", 1)]


def test_malleated_signature_is_no_second_proof(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-05 Replay: ECDSA takes n - s for s, so signature bytes name nothing: the nonce does."""
    proof = prove(factory.board())
    oem.hear(proof)
    parts = PROOF.decode(proof, limits.PROOF_MAX_BYTES)
    twin = malleate(parts.evidence)

    refuses(PROOF.encode(parts._replace(evidence=twin)), "nonce-used")

    assert oem.count("grants") == 1 and oem.granted() == 1


def malleate(evidence: bytes) -> bytes:
    """The same envelope with the other form of its signature."""
    outer = read_outer(evidence)
    mpmr = outer.unprotected[registry.HEADER_MPMR]
    return join_sign1(outer.protected, {registry.HEADER_MPMR: mpmr}, outer.payload, other_s(outer.signature))


def test_high_s_is_no_reason_to_refuse_a_good_board(factory: Factory, oem: Oem) -> None:
    """T-05 Replay: the chip does not normalise s; said first, either form is granted once."""
    parts = PROOF.decode(prove(factory.board()), limits.PROOF_MAX_BYTES)
    twin = malleate(parts.evidence)

    oem.hear(PROOF.encode(parts._replace(evidence=twin)))

    assert oem.count("grants") == 1 and oem.log == []


def test_challenge_of_another_hello_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-06 Mix-up: a true Challenge, but the answer to somebody else's Hello."""
    device, other = factory.board(), factory.board()
    proof = prove(device)
    foreign = oem.hear(hello_of_board(other))

    refuses(resign(device, proof, challenge=foreign), "challenge-hello")


def hello_of_board(device: Device) -> bytes:
    """The Hello of another board, recorded on the line."""
    hello = ask_all(device, "greeted").outbox
    assert hello is not None
    return hello


def test_expired_challenge_is_refused_and_the_board_asks_anew(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-07 Late answer: a Proof kept back until its Challenge expired; the board starts over, counted once."""
    device = factory.board()
    proof = prove(device)
    oem.clock.pass_by(CHALLENGE_LIFE_S + 1)
    refuses(proof, "challenge-expired")

    record = device.enroll()

    assert record.stage is Stage.DONE and oem.granted() == 1 and oem.count("grants") == 1


def test_challenge_older_than_its_key_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-08 Late answer: two days later the key of the Challenge's MAC is out of use."""
    proof = prove(factory.board())
    oem.clock.pass_by(2 * KEY_EPOCH_S)

    refuses(proof, "challenge-expired")


def test_recorded_receipt_gets_the_stored_closed(factory: Factory, oem: Oem) -> None:
    """T-09 Replay: a Receipt again brings the same Closed and appends nothing."""
    device = factory.board()
    record = device.enroll()
    before = oem.state()

    assert oem.hear(device.line.heard[2]) == record.closed

    assert oem.state() == before


def test_forged_challenge_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-10 Forgery: a Challenge that no issuer said, with a long life and a random MAC."""
    device = factory.board()
    proof = prove(device)
    challenge = challenge_of(proof)
    forged = CHALLENGE.encode(challenge._replace(nonce=challenge.nonce[:20] + (2**40).to_bytes(8, "big") + bytes(32)))

    refuses(resign(device, proof, challenge=forged), "challenge")


def test_no_byte_of_a_challenge_can_be_changed(factory: Factory, oem: Oem) -> None:
    """T-11 Forgery: every single byte of a true Challenge altered in turn; the MAC covers them all."""
    proof = PROOF.decode(prove(factory.board()), limits.PROOF_MAX_BYTES)
    before = oem.state()

    for at in range(len(proof.challenge)):
        changed = bytearray(proof.challenge)
        changed[at] ^= 1
        said = refusal_check(oem.hear(PROOF.encode(proof._replace(challenge=bytes(changed)))))
        assert said in ("challenge", "challenge-expired", "malformed"), at

    assert oem.state() == before


def test_evidence_for_another_server_is_refused(
    make_oem: Callable[..., Oem], make_factory: Callable[[Oem], Factory]
) -> None:
    """T-12 Relay: a Proof made for one installation is played to another that knows the same parts."""
    ours, theirs = make_oem(), make_oem()
    proof = prove(make_factory(theirs).board())
    before = ours.state()

    assert refusal_check(ours.hear(proof)) == "challenge"

    assert ours.state() == before and ours.granted() == 0


def test_hello_altered_in_the_proof_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-13 Forgery: the Hello repeated in the Proof is not the one the Challenge answered."""
    device = factory.board()
    proof = prove(device)
    altered = HELLO.encode(hello_of(proof)._replace(run_id=bytes(8)))

    refuses(resign(device, proof, hello=altered), "challenge-hello")


def test_evidence_about_another_hello_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-14 Mix-up: signed claims that name another Hello."""
    device = factory.board()

    refuses(resign(device, prove(device), lambda claims: claims._replace(hello_hash=bytes(32))), "hello-hash")


def test_evidence_about_another_challenge_is_refused(factory: Factory, oem: Oem, refuses: Refuses) -> None:
    """T-15 Mix-up: signed claims that name the right nonce and another Challenge around it."""
    device = factory.board()

    refuses(resign(device, prove(device), lambda claims: claims._replace(challenge_hash=bytes(32))), "challenge-hash")


def test_board_takes_no_challenge_to_another_hello(factory: Factory, oem: Oem) -> None:
    """T-16 Mix-up on the device's side: it signs no nonce that was not meant for it."""
    device, other = factory.board(), factory.board()
    foreign = oem.hear(hello_of_board(other))
    ask_all(device, "greeted")
    before = device.kept()
    device.line.thief = lambda _asked, _answer: foreign

    with pytest.raises(PeerBroke, match="challenge-hello"):
        device.enroll()

    assert device.kept() == before
    device.line.thief = lambda _asked, answer: answer
    assert device.enroll().stage is Stage.DONE


def test_forged_challenge_on_the_line_costs_one_run_only(factory: Factory, oem: Oem) -> None:
    """T-17 Thief on the line: a Challenge with the right hello-hash and a wrong MAC does not wedge the board."""
    device = factory.board()
    robbed: list[bytes] = []

    def forge(asked: bytes, answer: bytes) -> bytes:
        if robbed:
            return answer
        robbed.append(asked)
        challenge = CHALLENGE.decode(answer, limits.CHALLENGE_MAX_BYTES)
        return CHALLENGE.encode(challenge._replace(nonce=challenge.nonce[:28] + bytes(32)))

    device.line.thief = forge

    record = device.enroll()

    assert record.stage is Stage.DONE and oem.granted() == 1
    assert robbed[0] == device.line.heard[0] and oem.count("grants") == 1


def test_old_challenge_to_the_same_hello_costs_one_run_only(factory: Factory, oem: Oem) -> None:
    """T-18 Thief on the line: after a lost journal page the board says its Hello again and hears the old Challenge."""
    device = factory.board()
    record = ask_all(device, "proven")
    assert record.outbox is not None
    oem.hear(record.outbox)
    old = device.line.said[0]
    newest = max(device.disk.folder.glob("record-?"), key=lambda path: path.read_bytes()[:8])
    newest.unlink()
    device.line.thief = lambda asked, answer: old if asked == record.hello else answer

    done = device.enroll()

    assert done.stage is Stage.DONE and oem.granted() == 1
    assert hashlib.sha256(record.outbox).digest() not in [hashlib.sha256(one).digest() for one in device.line.heard]


def test_endless_refusals_wear_out_neither_flash_nor_server(factory: Factory, oem: Oem) -> None:
    """T-19 Thief on the line: he answers every Proof with "challenge-expired"; a run ends after one fresh Challenge."""
    device = factory.board()
    expired = REFUSAL.encode(Refusal("challenge-expired", RETRY))
    device.line.thief = lambda asked, answer: expired if asked[2] == registry.PROOF else answer

    with pytest.raises(RefusedForNow):
        device.enroll()

    assert len(device.line.heard) == 4
    device.line.thief = lambda _asked, answer: answer
    assert device.enroll().stage is Stage.DONE
    assert oem.granted() == 1
