"""The card's PIN: whatever lies in the credential file, the card is not blocked by us and the PIN is seen nowhere."""

import logging
from pathlib import Path

import pytest

from mpagent.advice import advise
from mpagent.errors import ConfigWrong, HardwareGone
from mpsim.piv import memory
from mpsim.piv.accidents import Accident
from tests.mpagent.card_desk import WRONG_PIN, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_wrong_pin_at_every_start_never_blocks_the_card(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """T-420 Lockout: a wrong credential, and a service that starts us again and again."""
    caplog.set_level(logging.DEBUG)
    desk.write_pin(WRONG_PIN)
    told = []
    for _ in range(5):
        with pytest.raises((ConfigWrong, HardwareGone)) as caught:
            desk.open().attester.attest(b"statement")
        told.append(caught.value)

    assert [type(one) for one in told] == [ConfigWrong, ConfigWrong, HardwareGone, HardwareGone, HardwareGone]
    assert desk.memory().tries == 1
    assert desk.pins_given() == 2
    assert [one.exit_code for one in told[:2]] == [78, 78]  # which systemd does not start again
    assert "it has 2 of its tries left" in str(told[0]) and str(desk.pin_file) in str(told[0])
    assert "one try left" in str(told[2]) and "pkcs15-tool --verify-pin" in advise(told[2])
    assert WRONG_PIN not in "".join(f"{one}{one.detail}{advise(one)}{one!r}" for one in told) + caplog.text

    desk.set_tries(3)  # its holder gave the right one by hand
    desk.write_pin(memory.DEFAULT_PIN)
    desk.open().attester.attest(b"statement")


def test_wrong_pin_is_said_once_in_a_run(desk: Desk) -> None:
    """T-420 Lockout: an agent that tries again by itself would spend them all."""
    desk.write_pin(WRONG_PIN)
    parts = desk.open()
    for _ in range(3):
        with pytest.raises(ConfigWrong):
            parts.attester.attest(b"statement")
        with pytest.raises(ConfigWrong, match="not given again"):
            parts.keyring.find_or_make("kem")
    assert desk.pins_given() == 1
    assert desk.memory().tries == 2
    assert desk.shelf.blobs == {}


def test_right_pin_gives_the_tries_back(desk: Desk) -> None:
    desk.set_tries(2)
    desk.open().attester.attest(b"statement")
    assert desk.memory().tries == memory.TRIES_MAX


def test_blocked_card_is_named_and_hears_no_pin(desk: Desk) -> None:
    desk.set_tries(0)
    with pytest.raises(HardwareGone, match="PIN is blocked") as caught:
        desk.open().attester.attest(b"statement")
    assert "PUK" in advise(caught.value)
    assert desk.pins_given() == 0


def test_describing_the_card_needs_no_pin(desk: Desk) -> None:
    """`doctor` looks at a card whose credential is not there yet."""
    desk.pin_file.unlink()
    parts = desk.open()
    assert parts.attester.describe().kind == "card"
    assert parts.token.count_tries() == 3
    assert desk.pins_given() == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "6 to 8 characters"),
        ("\n", "6 to 8 characters"),
        ("12345\n", "6 to 8 characters"),
        ("123456789\n", "6 to 8 characters"),
        ("123456\n\n\n\n\n", "6 to 8 characters"),
        ("1" * 100_000, "6 to 8 characters"),
        ("12345ß\n", "ASCII"),
        ("123 456\n", "ASCII"),
        ("1234\x00567", "ASCII"),
    ],
)
def test_file_that_can_hold_no_pin_costs_no_try(desk: Desk, text: str, says: str) -> None:
    desk.write_pin(text)
    with pytest.raises(ConfigWrong, match=says) as caught:
        desk.open().attester.attest(b"statement")
    assert str(desk.pin_file) in str(caught.value)
    assert desk.pins_given() == 0
    assert desk.memory().tries == 3


@pytest.mark.parametrize("pin", ["123456", "12345678", "Ab3!56"])
def test_pin_of_every_length_is_padded_as_the_card_wants_it(desk: Desk, pin: str) -> None:
    now = desk.memory()
    now.pin = pin.encode().ljust(8, b"\xff")
    memory.save(desk.card, now)
    desk.write_pin(f"{pin}\r\n")
    desk.open().attester.attest(b"statement")


def test_missing_file_is_named(desk: Desk) -> None:
    desk.pin_file.unlink()
    with pytest.raises(ConfigWrong, match="No such file"):
        desk.open().attester.attest(b"statement")
    assert desk.pins_given() == 0


def test_file_for_every_user_is_refused(desk: Desk) -> None:
    """T-421 Theft: any program on the board could read the PIN, or put a wrong one there."""
    for mode in (0o404, 0o402, 0o401):
        desk.pin_file.chmod(mode)
        with pytest.raises(ConfigWrong, match="chmod"):
            desk.open().attester.attest(b"statement")
    assert desk.pins_given() == 0


def test_pin_that_another_program_gave_is_not_ours(desk: Desk) -> None:
    """A card left unlocked is reset and hears our own PIN; with a wrong one it stays shut."""
    desk.slot.left_unlocked = 2  # at open and at the first use
    desk.open().attester.attest(b"statement")
    assert desk.pins_given() == 1

    parts = desk.open()
    desk.write_pin(WRONG_PIN)
    desk.slot.left_unlocked = 1
    with pytest.raises(ConfigWrong):
        parts.attester.attest(b"statement")


def test_card_that_is_always_unlocked_is_no_card(desk: Desk) -> None:
    parts = desk.open()
    desk.slot.left_unlocked = 100
    with pytest.raises(HardwareGone, match="even after a reset"):
        parts.attester.attest(b"statement")
    with pytest.raises(HardwareGone, match="even after a reset"):
        parts.token.count_tries()
    assert desk.keys_used() == 0


def test_card_that_does_not_count_is_given_no_pin(desk: Desk) -> None:
    """T-420 Lockout: without a count nobody knows which try is the last."""
    parts = desk.open()
    desk.script("verify", Accident.REFUSE)
    with pytest.raises(HardwareGone, match="does not say how many tries") as caught:
        parts.attester.attest(b"statement")
    assert "6F00, no diagnosis" in str(caught.value)
    assert desk.pins_given() == 0


def test_each_use_of_each_key_gives_the_pin_right_before_it(desk: Desk) -> None:
    """9C takes no other command in between (SP 800-73-4 Part 1, "PIN Always")."""
    parts = desk.open()
    sign = parts.keyring.find_or_make("sign")
    before = len(desk.slot.said)
    sign.sign(b"one")
    sign.sign(b"two")
    said = [apdu[1] for apdu in desk.slot.said[before:]]
    assert [said[at - 1] for at, instruction in enumerate(said) if instruction == 0x87] == [0x20, 0x20]
