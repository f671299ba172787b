"""The virtual PIV card against SP 800-73-4, by the bytes; and the ways to make one and put it into a reader."""

import json
import os
import socket
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpsim.cli import main
from mpsim.piv import accidents, memory, vpcd
from mpsim.piv.accidents import Accident
from mpsim.piv.applet import ATR, Removed, SoftCard
from mpsim.piv.memory import CardAuthority
from mpsim.storage import BoardBroke
from mpwire import p256

SELECT = "00a40400 0b a000000308000010000100 00"
RIGHT = "00200080 08 313233343536ffff"
WRONG = "00200080 08 363534333231ffff"
COUNT = "00200080"
SIGN = "0087119{} 26 7c24 8200 8120 " + "5a" * 32 + " 00"
AUTHORITY = CardAuthority()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    memory.make_card(tmp_path / "card", AUTHORITY)
    return tmp_path / "card"


@pytest.fixture
def card(folder: Path) -> SoftCard:
    fresh = SoftCard(folder)
    assert say(fresh, SELECT)[:1] == b"\x61"
    return fresh


def say(card: SoftCard, apdu: str) -> bytes:
    """What the card answers, which must be success."""
    said = card.answer(bytes.fromhex(apdu))
    assert said[-2:] == b"\x90\x00" or said[-2] == 0x61, said.hex()
    return said[:-2]


def status(card: SoftCard, apdu: str) -> str:
    """The card's status word."""
    return card.answer(bytes.fromhex(apdu))[-2:].hex()


def test_nothing_works_before_piv_is_selected(folder: Path) -> None:
    fresh = SoftCard(folder)
    assert [status(fresh, apdu) for apdu in (COUNT, RIGHT, SIGN.format("a"))] == ["6d00"] * 3
    assert status(fresh, "00a40400 05 a000000001") == "6a82"
    assert status(fresh, "00a40400 09 a00000030800001000 00") == "9000"


@pytest.mark.parametrize(
    ("apdu", "expected"),
    [
        ("80200080", "6e00"),
        ("00fe0000", "6d00"),
        ("0020", "6700"),
        ("00200080 08 31", "6700"),
        ("00200080 07 31323334353637", "6a80"),
        ("00200081", "6a88"),
        ("00cb3fff 05 5c035fc10f 00", "6a82"),
        ("00cb3fff 02 5c09 00", "6a80"),
        ("00871199 00", "6a80"),
        ("0087079a 04 7c028200 00", "6a80"),
        ("00db3fff 05 5c035fc102", "6982"),
        ("0047009a 05 ac03800111 00", "6982"),
    ],
)
def test_wrong_command_has_the_status_word_of_the_standard(card: SoftCard, apdu: str, expected: str) -> None:
    assert status(card, apdu) == expected


def test_wrong_pins_are_counted_across_power_cuts_until_the_card_is_blocked(folder: Path, card: SoftCard) -> None:
    seen = [status(card, COUNT)]
    for _ in range(3):
        seen.append(status(card, WRONG))
        card = SoftCard(folder)
        say(card, SELECT)
    assert [*seen, status(card, COUNT), status(card, RIGHT)] == ["63c3", "63c2", "63c1", "63c0", "6983", "6983"]


def test_right_pin_counts_until_reset_or_until_it_is_taken_back(card: SoftCard) -> None:
    for forget in (card.reset, lambda: say(card, "0020ff80")):
        say(card, RIGHT)
        assert status(card, COUNT) == "9000"
        forget()
        card.answer(bytes.fromhex(SELECT))
        assert status(card, COUNT) == "63c3"


def test_signature_key_wants_the_pin_right_before_each_use(card: SoftCard, folder: Path) -> None:
    """9A and 9D: once. 9C: always (SP 800-73-4 Part 1 Table 4b)."""
    assert [status(card, SIGN.format(slot)) for slot in "acd"] == ["6982"] * 3
    say(card, RIGHT)
    assert [status(card, SIGN.format(slot)) for slot in "caacd"] == ["9000", "9000", "9000", "6982", "9000"]
    say(card, RIGHT)
    status(card, COUNT)
    assert status(card, SIGN.format("c")) == "6982"


def test_key_agreement_takes_points_of_the_curve_alone(card: SoftCard, folder: Path) -> None:
    say(card, RIGHT)
    peer = p256.SoftKey.generate()
    agree = "0087119d 47 7c45 8200 8541 {} 00"
    shared = say(card, agree.format(peer.public_key().hex()))
    assert shared == b"\x7c\x22\x82\x20" + peer.ecdh(memory.load(folder).keys[0x9D].public_key()).reveal()
    assert status(card, agree.format("04" + "11" * 64)) == "6a80"


def test_long_answer_comes_in_parts(card: SoftCard, folder: Path) -> None:
    whole = memory.load(folder).objects[0x5FC105]
    assert len(whole) > 256
    first = card.answer(bytes.fromhex("00cb3fff 05 5c035fc105 00"))
    assert len(first) == 258 and first[-2] == 0x61
    rest = say(card, "00c00000" + first[-1:].hex())
    assert first[:-2] + rest == memory.tlv(0x53, whole)


def test_issuer_makes_keys_and_writes_objects_behind_the_management_key(card: SoftCard, folder: Path) -> None:
    before = memory.load(folder).keys[0x9A].public_key()
    assert status(card, "0087089b 14 7c12 8210 " + "00" * 16) == "6982"
    challenge = say(card, "0087089b 04 7c028100 00")[4:]
    assert status(card, "0087089b 14 7c12 8210 " + "00" * 16) == "6982"
    challenge = say(card, "0087089b 04 7c028100 00")[4:]
    answer = Cipher(algorithms.AES(memory.MANAGEMENT_KEY), modes.ECB()).encryptor().update(challenge)
    say(card, f"0087089b 14 7c12 8210 {answer.hex()}")

    made = say(card, "0047009a 05 ac03800111 00")
    assert made[:5] == bytes.fromhex("7f49438641")
    assert memory.load(folder).keys[0x9A].public_key() == made[5:] != before
    assert status(card, "0047009e 05 ac03800111 00") == "6a80"
    assert status(card, "10db3fff 07 5c035fc1025301") == "9000"
    assert status(card, "00db3fff 01 aa") == "9000"
    assert memory.load(folder).objects[0x5FC102] == b"\xaa"
    assert status(card, "00db3fff 05 5c035fc102") == "6a80"


def test_accidents_happen_once_each_and_in_order(card: SoftCard, folder: Path) -> None:
    steps = [Accident.REFUSE, Accident.NONE, Accident.GARBAGE, Accident.FLIP, Accident.WRONG_LE, Accident.REMOVE]
    accidents.script(folder, "get-data", steps)
    ask = "00cb3fff 03 5c017e 00"
    right = bytes.fromhex("7e124f0ba0000003080000100001005f2f024000")
    assert status(card, ask) == "6f00"
    assert say(card, ask) == memory.tlv(0x7E, right[2:])
    assert say(card, ask) != memory.tlv(0x7E, right[2:])
    assert sum(a != b for a, b in zip(say(card, ask), right, strict=True)) == 1
    assert status(card, ask) == "6c00"
    with pytest.raises(Removed):
        card.answer(bytes.fromhex(ask))
    assert say(card, ask) == right
    with pytest.raises(KeyError):
        accidents.script(folder, "nonsense", [Accident.REFUSE])


def test_card_is_made_whole_or_not_at_all(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(memory.CardRefused, match="not empty"):
        memory.make_card(folder, AUTHORITY)
    with pytest.raises(memory.CardRefused, match="cannot make"):
        memory.make_card(folder / "card.json" / "below", AUTHORITY)
    with pytest.raises(BoardBroke):
        memory.load(tmp_path / "nowhere")
    assert stat.S_IMODE(os.stat(folder / "card.json").st_mode) == 0o600


def test_each_certificate_is_of_its_key_and_for_its_use(folder: Path) -> None:
    held = memory.load(folder)
    for slot, tag in memory.CERTIFICATE_OF.items():
        leaf = x509.load_der_x509_certificate(held.objects[tag][4:-5])
        leaf.verify_directly_issued_by(AUTHORITY.root)
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        assert usage.digital_signature is (slot != 0x9D) and usage.key_agreement is (slot == 0x9D)


# The line to the reader.


def test_card_speaks_vpcds_protocol_until_the_reader_leaves(folder: Path) -> None:
    """Length and body may come apart, and a reset in the middle takes the PIN back."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Thread(target=vpcd.run_card, args=(folder, listener.getsockname()[1]))
        ended.start()
        reader, _ = listener.accept()

        def tell(message: str) -> None:
            body = bytes.fromhex(message)
            reader.sendall(len(body).to_bytes(2, "big"))
            reader.sendall(body)

        def hear() -> bytes:
            size = int.from_bytes(reader.recv(2, socket.MSG_WAITALL), "big")
            return reader.recv(size, socket.MSG_WAITALL)

        tell("01")
        tell("04")
        assert hear() == ATR
        seen = []
        for message in (SELECT, RIGHT, COUNT, "02", SELECT, COUNT):
            tell(message)
            seen += [] if message == "02" else [hear()[-2:].hex()]
        assert seen == ["9000", "9000", "9000", "9000", "63c3"]
        reader.close()
        ended.join(5)
        assert not ended.is_alive()


def test_atr_checks_itself() -> None:
    """The last byte makes the exclusive or of all but the first zero (ISO/IEC 7816-3 section 8.2.5)."""
    check = 0
    for byte in ATR[1:]:
        check ^= byte
    assert check == 0


# The command line.


def test_new_card_is_printed_with_its_pin_and_its_issuer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", "new", str(tmp_path / "card"), "--pin", "87654321", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    held = memory.load(tmp_path / "card")
    assert (told["pin"], held.pin) == ("87654321", b"87654321")
    issuer = x509.load_pem_x509_certificate(told["issuer"].encode())
    x509.load_der_x509_certificate(held.objects[0x5FC105][4:-5]).verify_directly_issued_by(issuer)


@pytest.mark.parametrize("pin", ["12345", "123456789", "abcdef", ""])
def test_pin_that_no_card_takes_is_a_usage_error(tmp_path: Path, pin: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["card", "new", str(tmp_path / "card"), "--pin", pin])
    assert ended.value.code == 64
    assert not (tmp_path / "card").exists()


def test_running_a_card_without_a_reader_or_without_a_card_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert main(["card", "run", str(folder), "--port", str(port)]) == 74
    assert main(["card", "run", str(tmp_path / "nowhere")]) == 74
    told = capsys.readouterr().err
    assert f"no vpcd at 127.0.0.1:{port}" in told and "nowhere" in told
