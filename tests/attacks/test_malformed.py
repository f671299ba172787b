"""Garbage, half messages, doubled and reordered ones, at every stage and on both sides."""

import random
from collections.abc import Callable

import pytest

from mpagent.record import Stage
from mpwire import limits
from mpwire.codec import encode
from mpwire.errors import MpError, PeerBroke
from mpwire.messages.plain import PROOF
from tests.attacks.forge import prove
from tests.line import Device, Factory, Oem, ask_all, refusal_check

HTML = b"<!DOCTYPE html><html><body>Please log in to the guest network</body></html>"
BOMBS = (
    b"\x81" * 5_000 + b"\x00",
    b"\x9f" * 200 + b"\xff" * 200,
    b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x9b\x00\x00\x00\xff\xff\xff\xff\xff",
    b"\xbf\x00\x01\xff",
    b"\xa2\x00\x01\x00\x01",
    b"\xa1\x18\x00\x01",
    b"\xa1\x00\xf9\x7e\x00",
    b"\xd8\x1c\x81\xd8\x1d\x00",
    b"\xc2\x49\x01\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\xa1\xf5\x01",
    b"\x00",
    b"\xf6",
)


@pytest.fixture
def finished(factory: Factory) -> Device:
    """A board whose six messages are on record."""
    made = factory.board()
    made.enroll()
    return made


def spoil(message: bytes) -> list[bytes]:
    """One message as bad lines and bad people deliver it."""
    cuts = [message[:at] for at in (0, 1, 2, 3, 17, len(message) // 2, len(message) - 1)]
    return [*cuts, message * 2, message + b"\x00", b"\x00" + message, message[::-1], HTML, *BOMBS]


def test_spoiled_messages_change_nothing_on_the_issuer(finished: Device, oem: Oem) -> None:
    """T-190 Garbage: truncated, doubled, reversed, padded, HTML and decoder bombs in place of every message."""
    before = oem.state()

    for message in finished.line.heard:
        for raw in spoil(message):
            assert refusal_check(oem.hear(raw)) == "malformed"

    assert oem.state() == before


def test_random_bytes_change_nothing_on_the_issuer(finished: Device, oem: Oem) -> None:
    """T-191 Garbage: bits of true messages flipped at random; refused by some check or another, never stored."""
    dice = random.Random(7)
    before = oem.state("alarms")

    for _ in range(300):
        message = bytearray(dice.choice(finished.line.heard[1:]))
        message[dice.randrange(len(message))] ^= 1 << dice.randrange(8)
        assert refusal_check(oem.hear(bytes(message)))

    assert oem.state("alarms") == before


def test_messages_of_the_issuer_said_to_it_change_nothing(finished: Device, oem: Oem) -> None:
    """T-192 Reflection: its own Challenge, Grant, Closed and Refusal come back."""
    before = oem.state()

    for raw in (*finished.line.said, oem.hear(b"")):
        assert refusal_check(oem.hear(raw)) == "malformed"

    assert oem.state() == before


@pytest.mark.parametrize("stage", ["greeted", "proven", "kept"])
def test_spoiled_answers_change_nothing_on_the_device(factory: Factory, finished: Device, stage: str) -> None:
    """T-193 Garbage: at every stage every bad answer ends one run; record, vault and shelf keep every byte."""
    device = factory.board()
    ask_all(device, stage)
    before = device.kept()
    answers = [raw for message in finished.line.said for raw in spoil(message)]

    for answer in dict.fromkeys(answers):
        device.line.thief = lambda _asked, _answer, answer=answer: answer  # type: ignore[misc]
        with pytest.raises(PeerBroke):
            device.enroll()

    assert device.kept() == before
    device.line.thief = lambda _asked, answer: answer
    assert device.enroll().stage is Stage.DONE


@pytest.mark.parametrize("stage", ["greeted", "proven", "kept"])
def test_answers_out_of_turn_change_nothing_on_the_device(factory: Factory, finished: Device, stage: str) -> None:
    """T-194 Reordering: a true message of another stage, of this board or another, and the board's own words."""
    device = factory.board()
    ask_all(device, stage)
    own = {"greeted": [], "proven": device.line.said[:1], "kept": device.line.said[:2]}[stage]
    before = device.kept()

    for answer in [*finished.line.said, *own, *device.line.heard, device.record().outbox or b""]:
        device.line.thief = lambda _asked, _answer, answer=answer: answer  # type: ignore[misc]
        with pytest.raises(MpError):
            device.enroll()
        assert device.kept() == before

    device.line.thief = lambda _asked, answer: answer
    assert device.enroll().stage is Stage.DONE


def test_oversized_messages_are_refused_unread(factory: Factory, oem: Oem) -> None:
    """T-195 Flood: one byte above each bound, and a Proof filled up inside its bound."""
    proof = PROOF.decode(prove(factory.board()), limits.PROOF_MAX_BYTES)
    before = oem.state()
    filled = {0: 3, 1: 1, 2: bytes(16_385), 3: proof.hello, 4: proof.challenge, 5: {}, 6: {}}

    for raw in (
        encode({0: 1, 1: bytes(limits.HELLO_MAX_BYTES)}),
        encode({0: 3, 1: bytes(limits.PROOF_MAX_BYTES)}),
        b"\xd2" + bytes(limits.RECEIPT_MAX_BYTES),
        encode(filled),
        encode({**filled, 2: proof.evidence, 5: {f"slot{number}": b"\x30" for number in range(17)}}),
    ):
        assert refusal_check(oem.hear(raw)) == "malformed"

    assert oem.state() == before


def test_doubled_messages_are_answered_alike(factory: Factory, oem: Oem) -> None:
    """T-196 Doubling: a line that says every message twice, in order and out of order, makes one unit."""
    device = factory.board()
    hear: Callable[[bytes], bytes] = oem.hear
    said: list[bytes] = []

    def twice(asked: bytes, answer: bytes) -> bytes:
        said.append(asked)
        again = [hear(one) for one in said]
        assert again[-1] == answer or len(said) == 1  # a Hello gets a fresh Challenge
        return answer

    device.line.thief = twice

    assert device.enroll().stage is Stage.DONE
    assert oem.granted() == 1 and oem.count("grants") == 1 and oem.count("entries") == 2
