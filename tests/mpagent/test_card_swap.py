"""Cards that change, leave, and come back; certificates that are not of the key behind them."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from mpagent.advice import advise
from mpagent.errors import ConfigWrong, HardwareAbsent, HardwareGone, NotMine, Tampered
from mpagent.hal.card import CardChoice, open_parts
from mpsim.piv import memory
from mpsim.piv.accidents import Accident
from mpsim.piv.memory import CERTIFICATE_OF
from mpsim.piv.slot import CardSlot
from mpsim.shelf import MemoryShelf
from mpwire import p256
from mpwire.ueid import name_card_key
from tests.mpagent.card_desk import AUTHORITY, Desk


@dataclass
class SoftKeyring:
    """Keys that no card has a slot for."""

    key: p256.SoftKey

    def find_or_make(self, label: str) -> p256.SoftKey:
        assert label.startswith("certificate-")
        return self.key


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def forge(desk: Desk, name: str) -> Path:
    """A card with all certificates of the true one and keys of its own."""
    forged = desk.make_card(name)
    fake = memory.load(forged)
    fake.objects = dict(desk.memory().objects)
    memory.save(forged, fake)
    return forged


def test_card_swapped_between_two_uses_hears_no_pin(desk: Desk) -> None:
    """T-422 Swap: another card in the reader, which would learn the first one's PIN and answer in its place."""
    parts = desk.open()
    kem = parts.keyring.find_or_make("kem")
    given, used = desk.pins_given(), desk.keys_used()
    desk.slot.card = desk.make_card("other")

    with pytest.raises(HardwareGone, match="another card") as caught:
        parts.attester.attest(b"statement")
    with pytest.raises(HardwareGone, match="another card"):
        kem.ecdh(p256.SoftKey.generate().public_key())

    assert "put the first card back" in advise(caught.value)
    assert (desk.pins_given(), desk.keys_used()) == (given, used)
    assert memory.load(desk.slot.card).tries == 3


def test_forged_card_with_the_true_certificates_signs_nothing_that_leaves(desk: Desk) -> None:
    """T-423 Forgery, or a fault in the card: a signature by another key than the certificate's."""
    parts = desk.open()
    sign = parts.keyring.find_or_make("sign")
    desk.slot.card = forge(desk, "forged")
    with pytest.raises(HardwareGone, match="slot 9A is not the one"):
        parts.attester.attest(b"statement")
    with pytest.raises(HardwareGone, match="slot 9C is not the one"):
        sign.sign(b"statement")


def test_forged_card_agrees_on_no_secret(desk: Desk) -> None:
    """T-423 Forgery: nothing in a shared secret shows whose it is, so the key proves itself before it is named."""
    desk.slot.card = forge(desk, "forged")
    with pytest.raises(HardwareGone, match="slot 9D is not the one"):
        desk.open().keyring.find_or_make("kem")
    assert desk.shelf.blobs == {}


def test_card_of_another_run_is_not_mine(desk: Desk) -> None:
    """T-422 Swap: between two starts; the issuer knows this board by the keys of the first card."""
    parts = desk.open()
    points = {label: parts.keyring.find_or_make(label).public_key() for label in ("sign", "kem")}
    kept = dict(desk.shelf.blobs)
    desk.slot.card = desk.make_card("other")
    for label in points:
        with pytest.raises(NotMine, match=f"card-key-{label}"):
            desk.open().keyring.find_or_make(label)
    assert desk.shelf.blobs == kept

    desk.slot.card = desk.card
    assert {label: desk.open().keyring.find_or_make(label).public_key() for label in points} == points


def test_damaged_note_of_the_key_is_tampered_and_stays(desk: Desk) -> None:
    desk.open().keyring.find_or_make("kem")
    whole = desk.shelf.blobs["card-key-kem"]
    for place in range(0, len(whole), 5):
        torn = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        desk.shelf.blobs["card-key-kem"] = torn
        with pytest.raises((Tampered, NotMine)):
            desk.open().keyring.find_or_make("kem")
        assert desk.shelf.blobs == {"card-key-kem": torn}


@pytest.mark.parametrize("instruction", ["select", "get-data", "verify", "authenticate"])
def test_card_pulled_in_the_middle_of_a_use(desk: Desk, instruction: str) -> None:
    """Whatever the card was doing: one clear failure, no try lost, and the same card goes on when it is back."""
    parts = desk.open()
    kem = parts.keyring.find_or_make("kem")
    steps = (Accident.NONE, Accident.REMOVE) if instruction == "verify" else (Accident.REMOVE,)  # count, then PIN
    desk.script(instruction, *steps)
    peer = p256.SoftKey.generate()

    with pytest.raises(HardwareGone, match="taken out"):
        kem.ecdh(peer.public_key())
    with pytest.raises(HardwareGone, match="no card in the reader"):
        parts.attester.attest(b"statement")

    desk.slot.card = desk.card
    assert kem.ecdh(peer.public_key()) == peer.ecdh(kem.public_key())
    assert desk.memory().tries == 3


def test_reader_taken_away_and_no_reader_at_all(desk: Desk) -> None:
    parts = desk.open()
    desk.slot.plugged = False
    for use in (lambda: parts.attester.attest(b"statement"), desk.open):
        with pytest.raises(HardwareAbsent):
            use()


def test_slow_card_is_waited_for(desk: Desk) -> None:
    parts = desk.open()
    desk.script("authenticate", Accident.SLOW)
    parts.attester.attest(b"statement")


def test_renewed_certificate_changes_the_attester_and_not_the_card(desk: Desk) -> None:
    """attester_id names the certificate; the board's name is made of the key, and stays."""
    first = desk.open().attester.describe()
    point = desk.memory().keys[0x9A].public_key()
    desk.put_object(CERTIFICATE_OF[0x9A], memory.pack_certificate(AUTHORITY.certify(point, "renewed")))
    second = desk.open().attester.describe()

    assert first.attester_id != second.attester_id
    assert first.public_key == second.public_key == point
    assert name_card_key(point) == name_card_key(second.public_key)


def test_card_has_no_key_for_a_certificate_slot(desk: Desk) -> None:
    keyring = desk.open().keyring
    with pytest.raises(ConfigWrong, match="no key for 'certificate-tls': it holds kem and sign"):
        keyring.find_or_make("certificate-tls")
    assert desk.shelf.blobs == {}

    beside = SoftKeyring(p256.SoftKey.generate())
    assert desk.open(others=beside).keyring.find_or_make("certificate-tls").public_key() == beside.key.public_key()


def test_each_key_has_one_use(desk: Desk) -> None:
    """PIV gives 9C to signatures and 9D to key management; a card of another maker would do either with both."""
    keyring = desk.open().keyring
    used = desk.keys_used()
    with pytest.raises(HardwareGone, match="9C does not agree"):
        keyring.find_or_make("sign").ecdh(p256.SoftKey.generate().public_key())
    with pytest.raises(HardwareGone, match="9D does not sign"):
        keyring.find_or_make("kem").sign(b"statement")
    assert desk.keys_used() == used + 1  # the proof that 9D is the certificate's


def test_a_key_found_once_is_not_looked_for_again(desk: Desk) -> None:
    keyring = desk.open().keyring
    kem = keyring.find_or_make("kem")
    said = len(desk.slot.said)
    assert keyring.find_or_make("kem") is kem
    assert len(desk.slot.said) == said


def test_two_boards_with_cards_of_one_issuer_are_told_apart(desk: Desk) -> None:
    other = CardSlot(desk.make_card("other"))
    theirs = open_parts(other, CardChoice(desk.pin_file), MemoryShelf()).attester.describe()
    ours = desk.open().attester.describe()
    assert ours.attester_id != theirs.attester_id and ours.public_key != theirs.public_key
