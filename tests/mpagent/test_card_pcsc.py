"""The card through real software of others: pyscard, pcscd and vsmartcard's reader; and OpenSC on the same card.

pcscd runs in namespaces of its own (mpsim.piv.service), one for each process of tests, so these need neither a reader
nor a free port and disturb no other service. They need root, or a kernel that lets users make namespaces.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from smartcard import scard

from mpagent.advice import advise
from mpagent.errors import ConfigWrong, HardwareAbsent, HardwareBusy, HardwareGone
from mpagent.hal.card import CardChoice, CardParts, open_card
from mpagent.hal.card.reader import HOLD_WAIT_MAX_S, PcscReader
from mpsim.piv import accidents, memory
from mpsim.piv.accidents import Accident
from mpsim.piv.memory import CHUID, DEFAULT_PIN, make_card
from mpsim.piv.service import READERS, CardService
from mpsim.shelf import MemoryShelf
from mpwire import p256
from tests.contract.rigs.card import AUTHORITY, find_service, inserted, wait_until, write_pin
from tests.mpagent.card_desk import WRONG_PIN

FIRST, SECOND = READERS


@pytest.fixture
def card(tmp_path: Path) -> Path:
    make_card(tmp_path / "card", AUTHORITY)
    return tmp_path / "card"


@pytest.fixture
def choice(tmp_path: Path) -> CardChoice:
    return CardChoice(write_pin(tmp_path / "pin"))


@pytest.fixture
def parts(card: Path, choice: CardChoice) -> Iterator[CardParts]:
    with inserted(card, FIRST):
        yield open_card(choice, MemoryShelf())


def run_tool(*command: str) -> str:
    """A tool of OpenSC that must succeed; what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@contextmanager
def connected(mode: int) -> Iterator[tuple[Any, int]]:
    """Another program at the same card: (handle, result of connecting)."""
    _, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
    result, handle, _ = scard.SCardConnect(context, FIRST, mode, scard.SCARD_PROTOCOL_T1)
    try:
        yield handle, result
    finally:
        if result == scard.SCARD_S_SUCCESS:
            scard.SCardDisconnect(handle, scard.SCARD_LEAVE_CARD)
        scard.SCardReleaseContext(context)


def ask(handle: Any, apdu: str) -> bytes:
    result, said = scard.SCardTransmit(handle, scard.SCARD_PCI_T1, list(bytes.fromhex(apdu)))
    assert result == scard.SCARD_S_SUCCESS
    return bytes(said)


def test_all_three_keys_work_through_the_service(parts: CardParts) -> None:
    material = parts.attester.describe()
    assert material.public_key is not None
    p256.verify(material.public_key, b"statement", parts.attester.attest(b"statement").signature)
    sign, kem = (parts.keyring.find_or_make(label) for label in ("sign", "kem"))
    p256.verify(sign.public_key(), b"statement", sign.sign(b"statement"))
    peer = p256.SoftKey.generate()
    assert kem.ecdh(peer.public_key()) == peer.ecdh(kem.public_key())


def test_opensc_takes_the_virtual_card_for_a_piv_card(parts: CardParts, card: Path, tmp_path: Path) -> None:
    """Programs that never heard of us list it, check its PIN and sign with it; afterwards we still can."""
    leaf = parts.attester.describe()
    assert leaf.public_key is not None
    assert "Personal Identity Verification Card" in run_tool("opensc-tool", "--reader", FIRST, "--name")
    guid = memory.load(card).objects[CHUID][29:45]
    assert guid.hex(" ").upper() in run_tool("piv-tool", "--reader", FIRST, "--serial")
    listed = run_tool("pkcs15-tool", "--reader", FIRST, "--list-keys", "--list-certificates")
    for title in ("PIV AUTH key", "SIGN key", "KEY MAN key", "Certificate for PIV Authentication"):
        assert title in listed

    digest, signature = tmp_path / "digest", tmp_path / "signature"
    digest.write_bytes(bytes(32))
    command = ["pkcs11-tool", "--slot", "0", "--login", "--pin", DEFAULT_PIN, "--sign", "--mechanism", "ECDSA"]
    run_tool(*command, "--id", "01", "--input-file", str(digest), "--output-file", str(signature))
    p256.verify_digest(leaf.public_key, bytes(32), signature.read_bytes())
    parts.attester.attest(b"statement")


def test_opensc_gives_back_the_tries_as_our_advice_says(parts: CardParts, card: Path) -> None:
    """T-420 Lockout: the way out of "one try left" that the agent prints."""
    for _ in range(2):
        subprocess.run(["pkcs15-tool", "--reader", FIRST, "--verify-pin", "--pin", WRONG_PIN], capture_output=True)
    assert parts.token.count_tries() == 1
    with pytest.raises(HardwareGone, match="one try left"):
        parts.attester.attest(b"statement")
    run_tool("pkcs15-tool", "--reader", FIRST, "--verify-pin", "--pin", DEFAULT_PIN)
    assert parts.token.count_tries() == 3
    parts.attester.attest(b"statement")


def test_program_that_keeps_the_card_is_named_in_bounded_time(parts: CardParts) -> None:
    with connected(scard.SCARD_SHARE_SHARED):
        began = time.monotonic()
        with pytest.raises(HardwareBusy, match="another program holds the card"):
            parts.attester.attest(b"statement")
        assert HOLD_WAIT_MAX_S <= time.monotonic() - began < HOLD_WAIT_MAX_S + 5
    parts.attester.attest(b"statement")


def test_program_that_is_soon_done_is_waited_for(parts: CardParts) -> None:
    there, done = threading.Event(), threading.Event()

    def use_it() -> None:
        with connected(scard.SCARD_SHARE_EXCLUSIVE):
            there.set()
            done.wait(0.3)

    other = threading.Thread(target=use_it)
    other.start()
    assert there.wait(5)
    parts.attester.attest(b"statement")
    other.join()


def test_nobody_else_can_use_the_pin_we_gave(parts: CardParts) -> None:
    """T-425 Oracle: another program on the board waits for us to unlock the card, and signs with it then."""
    with PcscReader("").hold() as transmit:
        assert transmit(list(bytes.fromhex("00a4040009a0000003080000100000")))[1] == 0x90
        assert transmit(list(bytes.fromhex("0020008008") + DEFAULT_PIN.encode() + b"\xff\xff"))[1] == 0x90
        with connected(scard.SCARD_SHARE_SHARED) as (_, result):
            assert result == scard.SCARD_E_SHARING_VIOLATION
    parts.attester.attest(b"statement")
    with connected(scard.SCARD_SHARE_SHARED) as (handle, result):
        assert result == scard.SCARD_S_SUCCESS
        ask(handle, "00a4040009a0000003080000100000")
        assert ask(handle, "00200080").hex() == "63c3"


@pytest.mark.parametrize("instruction", ["get-data", "authenticate"])
def test_card_pulled_in_the_middle_and_put_back(card: Path, choice: CardChoice, instruction: str) -> None:
    with inserted(card, FIRST) as service:
        parts = open_card(choice, MemoryShelf())
        accidents.script(card, instruction, [Accident.REMOVE])
        with pytest.raises(HardwareGone, match="taken out") as caught:
            parts.attester.attest(b"statement")
        assert not isinstance(caught.value, HardwareAbsent) and "put the card back" in advise(caught.value)
        wait_until(FIRST, there=False)
        with pytest.raises(HardwareGone, match="no card in the reader"):
            parts.attester.attest(b"statement")
        service.insert(card, FIRST)
        wait_until(FIRST, there=True)
        parts.attester.attest(b"statement")


def test_slow_card_is_waited_for(parts: CardParts, card: Path) -> None:
    accidents.script(card, "authenticate", [Accident.SLOW])
    parts.attester.attest(b"statement")


def test_empty_reader_is_there_but_broken(choice: CardChoice) -> None:
    """HardwareGone and not Absent: whoever pulls the card must not choose a weaker attester."""
    find_service()
    with pytest.raises(HardwareGone, match="no card in the reader") as caught:
        open_card(choice, MemoryShelf())
    assert not isinstance(caught.value, HardwareAbsent)
    assert FIRST in str(caught.value)


def test_one_of_several_cards_is_chosen_by_name(tmp_path: Path, choice: CardChoice) -> None:
    make_card(tmp_path / "one", AUTHORITY)
    make_card(tmp_path / "two", AUTHORITY)
    with inserted(tmp_path / "one", FIRST), inserted(tmp_path / "two", SECOND):
        with pytest.raises(ConfigWrong, match="several readers") as caught:
            open_card(choice, MemoryShelf())
        assert FIRST in str(caught.value) and SECOND in str(caught.value)
        seen = [
            open_card(CardChoice(choice.pin_file, reader=name), MemoryShelf()).attester.describe().public_key
            for name in ("PCD 00 00", "PCD 00 01")
        ]
    keys = [memory.load(tmp_path / name).keys[0x9A].public_key() for name in ("one", "two")]
    assert seen == keys


def test_reader_of_another_name_is_absent(parts: CardParts, choice: CardChoice) -> None:
    with pytest.raises(HardwareAbsent, match="named like 'Yubi'") as caught:
        open_card(CardChoice(choice.pin_file, reader="Yubi"), MemoryShelf())
    assert FIRST in str(caught.value) and "plug" in advise(caught.value)


def test_service_that_died_is_absent_and_back_again(choice: CardChoice, card: Path) -> None:
    service = find_service()
    service.kill()
    try:
        with pytest.raises(HardwareAbsent, match="PC/SC service does not run") as caught:
            open_card(choice, MemoryShelf())
        assert "pcscd.socket" in advise(caught.value)
    finally:
        service.start()
    with inserted(card, FIRST):
        open_card(choice, MemoryShelf()).attester.attest(b"statement")


def test_service_that_dies_in_the_middle_of_a_run(card: Path, choice: CardChoice) -> None:
    with inserted(card, FIRST) as service:
        parts = open_card(choice, MemoryShelf())
        with PcscReader("").hold() as transmit:
            service.kill()
            with pytest.raises(HardwareGone):
                transmit(list(bytes.fromhex("00a4040009a0000003080000100000")))
        service.start()
        service.insert(card, FIRST)
        wait_until(FIRST, there=True)
        parts.attester.attest(b"statement")


def test_machine_without_readers_has_no_card(choice: CardChoice) -> None:
    """In a process of its own: libpcsclite asks once where its service is."""
    script = (
        "import sys; from pathlib import Path; from mpagent.errors import HardwareAbsent\n"
        "from mpagent.hal.card import CardChoice, open_card; from mpsim.shelf import MemoryShelf\n"
        "try: open_card(CardChoice(Path(sys.argv[1])), MemoryShelf())\n"
        "except HardwareAbsent as error: print(error)\n"
    )
    with CardService(readers=False) as service:
        environment = {**os.environ, "PCSCLITE_CSOCK_NAME": str(service.socket)}
        command = [sys.executable, "-c", script, str(choice.pin_file)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert "there is no card reader" in done.stdout
