"""Bytes that come back from a card or from PC/SC: nothing on a card is authenticated before it proved a key."""

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from mpagent.advice import advise
from mpagent.errors import ConfigWrong, HardwareAbsent, HardwareBusy, HardwareGone
from mpagent.hal.card import apdu, faults, tlv
from mpagent.hal.card.apdu import Answer, Command, exchange
from mpagent.hal.card.attest import CHAIN_MAX_BYTES
from mpagent.hal.card.piv import CERTIFICATE_MAX_BYTES, Applet, Slot
from mpagent.hal.card.reader import fit_protocol
from mpsim.piv import memory
from mpsim.piv.accidents import Accident
from mpsim.piv.applet import SoftCard
from mpsim.piv.memory import CERTIFICATE_OF, CardAuthority
from mpwire import p256
from mpwire.errors import Malformed, MpError
from tests.mpagent.card_desk import AUTHORITY, Desk

NINE_A = CERTIFICATE_OF[0x9A]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# Commands.


class Script:
    """A card that says what it is told to, and keeps what it heard."""

    def __init__(self, *answers: str) -> None:
        self.answers = [bytes.fromhex(answer) for answer in answers]
        self.heard: list[str] = []

    def __call__(self, command: list[int]) -> tuple[list[int], int, int]:
        self.heard.append(bytes(command).hex())
        said = self.answers.pop(0)
        return list(said[:-2]), said[-2], said[-1]


def test_long_command_is_chained_and_its_answer_collected() -> None:
    card = Script("9000", "9000", "aabb6102", "ccdd9000")
    answer = exchange(card, Command(0xDB, 0x3F, 0xFF, bytes(600)))
    assert answer == Answer(bytes.fromhex("aabbccdd"), 0x9000)
    assert [len(heard) // 2 for heard in card.heard] == [260, 260, 5 + 90 + 1, 5]
    assert [heard[:10] for heard in card.heard] == ["10db3fffff", "10db3fffff", "00db3fff5a", "00c0000002"]


def test_chain_ends_where_the_card_refuses_it() -> None:
    card = Script("6884")
    assert exchange(card, Command(0xDB, 0x3F, 0xFF, bytes(600))) == Answer(b"", 0x6884)
    assert len(card.heard) == 1


def test_corrected_le_is_obeyed_once() -> None:
    card = Script("6c02", "aabb9000")
    assert exchange(card, Command(0xCB, 0, 0, b"\x01")) == Answer(b"\xaa\xbb", 0x9000)
    assert card.heard == ["00cb0000010100", "00cb0000010102"]
    stubborn = Script("6c02", "6c03")
    assert exchange(stubborn, Command(0xCB, 0, 0, b"\x01")).status == 0x6C03


def test_answer_that_never_ends_is_cut_off() -> None:
    """T-424 Hostile card: it fills the memory of whoever collects."""
    said = 0

    def endless(_command: list[int]) -> tuple[list[int], int, int]:
        nonlocal said
        said += 256
        return [0] * 256, 0x61, 0x00

    with pytest.raises(HardwareGone, match="more than"):
        exchange(endless, Command(0xCB, 0, 0))
    assert said <= apdu.ANSWER_MAX_BYTES + 256


def test_promise_of_more_with_nothing_behind_it_ends() -> None:
    """T-424 Hostile card: an answer that grows by nothing would be asked for for ever."""
    with pytest.raises(HardwareGone, match="says nothing"):
        exchange(Script("6105", "6105"), Command(0xCB, 0, 0))


def test_one_answer_longer_than_all_we_take_is_refused() -> None:
    with pytest.raises(HardwareGone, match="more than"):
        exchange(lambda _: ([0] * (apdu.ANSWER_MAX_BYTES + 1), 0x90, 0), Command(0xCB, 0, 0))


def test_t0_gets_no_le_behind_data() -> None:
    """ISO/IEC 7816-3 has no room for both in one command of T=0; T=1 wants it."""
    with_both, le_alone, data_alone = [0, 0xCB, 0, 0, 2, 1, 1, 0], [0, 0xC0, 0, 0, 0], [0, 0x20, 0, 0, 2, 1, 1]
    assert fit_protocol(with_both, True) == with_both[:-1]
    assert fit_protocol(with_both, False) == with_both
    for command in (le_alone, data_alone, [0, 0x20, 0, 0x80]):
        assert fit_protocol(command, True) == command


def test_certificate_written_in_a_chain_is_read_back(desk: Desk) -> None:
    """The virtual card takes what our own commands write: PUT DATA behind its management key."""
    card = SoftCard(desk.card)
    Applet(card.transmit).select()
    manage(card)
    certificate = AUTHORITY.certify(desk.memory().keys[0x9A].public_key(), "a name that makes it long " * 2)
    held = memory.tlv(0x5C, NINE_A.to_bytes(3, "big")) + memory.tlv(0x53, memory.pack_certificate(certificate))
    assert len(held) > apdu.DATA_MAX_BYTES
    assert exchange(card.transmit, Command(0xDB, 0x3F, 0xFF, held)) == Answer(b"", 0x9000)
    assert desk.open().attester.describe().x5chain == (certificate,)


def manage(card: SoftCard) -> None:
    """Answer the challenge of the management key, as a card's issuer does."""
    asked = exchange(card.transmit, Command(0x87, 0x08, 0x9B, bytes.fromhex("7c028100")))
    cipher = Cipher(algorithms.AES(memory.MANAGEMENT_KEY), modes.ECB()).encryptor()
    answer = b"\x7c\x12\x82\x10" + cipher.update(asked.body[4:])
    assert exchange(card.transmit, Command(0x87, 0x08, 0x9B, answer)).status == 0x9000


# TLV.


@given(st.dictionaries(st.integers(1, 255).filter(lambda tag: tag & 0x1F != 0x1F), st.binary(max_size=300)))
def test_fields_read_back(fields: dict[int, bytes]) -> None:
    assert tlv.read_fields(b"".join(memory.tlv(tag, value) for tag, value in fields.items())) == fields


@given(st.binary(max_size=400))
def test_any_bytes_are_fields_up_to_the_end_or_malformed(raw: bytes) -> None:
    try:
        fields = tlv.read_fields(raw)
    except Malformed:
        return
    assert sum(len(value) + 2 for value in fields.values()) <= len(raw)


NOT_WHOLE = ("70", "7081", "7082", "708201", "70820001", "7005aabb", "7080", "708301000000")
TWICE_OR_LONG_TAG = ("70017001", "700081007000", "7f490100", "1f00")


@pytest.mark.parametrize("raw", [*NOT_WHOLE, *TWICE_OR_LONG_TAG])
def test_field_that_is_not_whole_or_twice_there_is_malformed(raw: str) -> None:
    with pytest.raises(Malformed):
        tlv.read_fields(bytes.fromhex(raw))


def test_length_spelled_too_long_is_read() -> None:
    """BER allows it, and issuers' software writes 82 00 xx."""
    assert tlv.read_fields(bytes.fromhex("70820001aa 7181 01bb 72 01 cc".replace(" ", ""))) == {
        0x70: b"\xaa",
        0x71: b"\xbb",
        0x72: b"\xcc",
    }


@given(st.binary(max_size=255))
def test_what_we_write_reads_back(value: bytes) -> None:
    assert tlv.read_only(tlv.write(0x7C, value), 0x7C) == value
    with pytest.raises(Malformed):
        tlv.read_only(tlv.write(0x7C, value), 0x53)


# Answers of the application.

SHOWN = (Accident.REFUSE, Accident.GARBAGE, Accident.ENDLESS)


@pytest.mark.parametrize("instruction", ["select", "get-data", "authenticate"])
@pytest.mark.parametrize("accident", SHOWN)
def test_nonsense_ends_the_use_and_the_next_one_works(desk: Desk, instruction: str, accident: Accident) -> None:
    """T-424 Hostile card: an answer that is refused, no TLV, or without end."""
    parts = desk.open()
    desk.script(instruction, accident)
    with pytest.raises(HardwareGone) as caught:
        parts.attester.attest(b"statement")
    assert "\n" not in str(caught.value)
    parts.attester.attest(b"statement")


@pytest.mark.parametrize("use", ["attest", "agree"])
def test_flipped_bit_in_an_answer_never_leaves(desk: Desk, use: str) -> None:
    """T-423 A fault in the card: the signature is wrong, or the proof of 9D is."""
    parts = desk.open()
    desk.script("authenticate", Accident.FLIP)
    with pytest.raises(HardwareGone):
        parts.attester.attest(b"statement") if use == "attest" else parts.keyring.find_or_make("kem")
    assert desk.shelf.blobs == {}


def test_corrected_le_of_the_real_command(desk: Desk) -> None:
    parts = desk.open()
    desk.script("get-data", Accident.WRONG_LE)
    parts.attester.attest(b"statement")


def test_card_without_piv_is_named(desk: Desk) -> None:
    card = Script("6a82")
    with pytest.raises(HardwareGone, match="no PIV application") as caught:
        Applet(card).select()
    assert "PIV card" in advise(caught.value)


def signature_of(der: str) -> Script:
    held = bytes.fromhex(der)
    return Script((memory.tlv(0x7C, memory.tlv(0x82, held)) + b"\x90\x00").hex())


N = p256.ORDER


@pytest.mark.parametrize(
    "der",
    [
        "",
        "3000",
        "30060201010201",
        "3006020101020101ff",
        "30080201010201010500",
        "300602010102 01ff".replace(" ", ""),
        encode_dss_signature(0, 1).hex(),
        encode_dss_signature(1, 0).hex(),
        encode_dss_signature(N, 1).hex(),
        encode_dss_signature(1, N).hex(),
        encode_dss_signature(1 << 300, 1).hex(),
        "00" * 64,
    ],
)
def test_signature_that_is_no_der_of_two_scalars_is_damaged(der: str) -> None:
    with pytest.raises(HardwareGone, match="damaged: the signature"):
        Applet(signature_of(der)).sign(Slot.AUTHENTICATION, bytes(32))


def test_short_scalars_are_padded() -> None:
    """DER drops leading zeros; r || s has 64 bytes all the same."""
    signature = Applet(signature_of(encode_dss_signature(1, 2).hex())).sign(Slot.AUTHENTICATION, bytes(32))
    assert signature == bytes(31) + b"\x01" + bytes(31) + b"\x02"


@pytest.mark.parametrize("size", [0, 31, 33, 65])
def test_shared_secret_of_another_size_is_refused(size: int) -> None:
    card = Script((memory.tlv(0x7C, memory.tlv(0x82, bytes(size))) + b"\x90\x00").hex())
    with pytest.raises(HardwareGone, match=f"{size} bytes, not 32"):
        Applet(card).exponentiate(Slot.KEY_MANAGEMENT, p256.SoftKey.generate().public_key())


# Certificates.


def certify(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    """A certificate of any sort of key, signed by itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")])
    begins, ends = datetime(2020, 1, 1, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begins, ends)
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()).public_bytes(
        Encoding.DER
    )


def test_packed_certificate_is_unpacked(desk: Desk) -> None:
    plain = AUTHORITY.certify(desk.memory().keys[0x9A].public_key(), "packed")
    desk.put_object(NINE_A, memory.pack_certificate(gzip.compress(plain), info=1))
    assert desk.open().attester.describe().x5chain == (plain,)


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (lambda der: b"", "damaged"),
        (lambda der: b"\xff" * 40, "damaged"),
        (lambda der: memory.tlv(0x70, der), "damaged"),
        (lambda der: memory.tlv(0x71, b"\0"), "damaged"),
        (lambda der: memory.pack_certificate(der) + memory.tlv(0x99, b""), "damaged"),
        (lambda der: memory.pack_certificate(der) + memory.tlv(0x70, der), "damaged"),
        (lambda der: memory.pack_certificate(der, info=2), "damaged"),
        (lambda der: memory.pack_certificate(b""), "damaged"),
        (lambda der: memory.pack_certificate(der, info=1), "damaged"),
        (lambda der: memory.pack_certificate(gzip.compress(der)[:-9], info=1), "damaged"),
        (lambda der: memory.pack_certificate(gzip.compress(der) + b"x", info=1), "damaged"),
        (lambda der: memory.pack_certificate(bytes(CERTIFICATE_MAX_BYTES + 1)), "damaged"),
        (lambda der: memory.pack_certificate(bytes(20_000)), "more than"),
        (lambda der: memory.pack_certificate(der[:-1]), "not one of a P-256 key"),
        (lambda der: memory.pack_certificate(der + b"\0"), "not one of a P-256 key"),
        (lambda der: memory.pack_certificate(os.urandom(300)), "not one of a P-256 key"),
    ],
)
def test_certificate_that_is_none_is_refused_at_open(desk: Desk, held: Callable[[bytes], bytes], says: str) -> None:
    """T-424 Hostile card."""
    der = AUTHORITY.certify(desk.memory().keys[0x9A].public_key(), "spoilt")
    desk.put_object(NINE_A, held(der))
    with pytest.raises(HardwareGone, match=says):
        desk.open()


def test_certificate_that_unpacks_without_end_is_cut_off(desk: Desk) -> None:
    """T-424 Hostile card: 4 KiB of gzip hold 4 MiB of zeros."""
    packed = gzip.compress(bytes(4_000_000), 9)
    assert len(packed) < CERTIFICATE_MAX_BYTES
    desk.put_object(NINE_A, memory.pack_certificate(packed, info=1))
    with pytest.raises(HardwareGone, match="damaged"):
        desk.open()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: rsa.generate_private_key(65_537, 2048),
        ed25519.Ed25519PrivateKey.generate,
    ],
)
def test_certificate_of_another_sort_of_key_is_named(
    desk: Desk, make: Callable[[], ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey]
) -> None:
    desk.put_object(NINE_A, memory.pack_certificate(certify(make())))
    with pytest.raises(HardwareGone, match="certificate of 9A is not one of a P-256 key") as caught:
        desk.open()
    assert "P-256" in advise(caught.value)


@pytest.mark.parametrize("slot", [0x9A, 0x9C, 0x9D])
def test_missing_certificate_names_its_slot(desk: Desk, slot: int) -> None:
    now = desk.memory()
    del now.objects[CERTIFICATE_OF[slot]]
    memory.save(desk.card, now)
    with pytest.raises(HardwareGone, match=f"no certificate in slot {slot:02X}"):
        keyring = desk.open().keyring
        keyring.find_or_make("sign")
        keyring.find_or_make("kem")


# The chain file.


def test_chain_travels_behind_the_leaf(desk: Desk) -> None:
    chain = desk.folder / "chain.pem"
    chain.write_text(AUTHORITY.pem)
    leaf, issuer = desk.open(chain_file=chain).attester.describe().x5chain
    assert issuer == AUTHORITY.root.public_bytes(Encoding.DER)
    x509.load_der_x509_certificate(leaf).verify_directly_issued_by(AUTHORITY.root)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not certificates in PEM"),
        ("nonsense", "not certificates in PEM"),
        (CardAuthority().pem, "did not issue"),
        (CardAuthority("somebody else").pem, "did not issue"),
        (AUTHORITY.pem + CardAuthority("somebody else").pem, "did not issue"),
        (AUTHORITY.pem * 4, "at most 3 issuers"),
        (AUTHORITY.pem.replace("M", "A", 3), "not certificates in PEM"),
    ],
)
def test_chain_file_that_does_not_lead_on_is_named(desk: Desk, text: str, says: str) -> None:
    chain = desk.folder / "chain.pem"
    chain.write_text(text)
    with pytest.raises(ConfigWrong, match=says) as caught:
        desk.open(chain_file=chain)
    assert str(chain) in str(caught.value)


@pytest.mark.parametrize(("padding_bytes", "copies"), [(CERTIFICATE_MAX_BYTES, 1), (CHAIN_MAX_BYTES // 3, 3)])
def test_chain_too_long_for_hello_is_named_here(desk: Desk, padding_bytes: int, copies: int) -> None:
    """A Hello above its bound would be refused by the issuer, a long way from the cause."""
    wordy = CardAuthority(padding_bytes=padding_bytes)
    leaf = wordy.certify(desk.memory().keys[0x9A].public_key(), "leaf")
    desk.put_object(NINE_A, memory.pack_certificate(leaf))
    chain = desk.folder / "chain.pem"
    chain.write_text(wordy.pem * copies)
    with pytest.raises(ConfigWrong, match="at most 3 issuers"):
        desk.open(chain_file=chain)


def test_missing_chain_file_is_named(desk: Desk) -> None:
    with pytest.raises(ConfigWrong, match="No such file"):
        desk.open(chain_file=desk.folder / "nowhere.pem")


# Results of PC/SC.


@pytest.mark.parametrize("name", faults.RESULTS)
def test_every_result_has_a_meaning_of_its_own(name: str) -> None:
    told = faults.explain_result(name, 0x80100099, "talking to the card")
    assert name in told.detail and "0x80100099" in told.detail
    assert "(talking to the card)" in str(told) and "0x" not in str(told)
    assert isinstance(told, HardwareBusy) or (isinstance(told, HardwareGone) and told.advice)


def test_only_what_is_not_there_moves_on() -> None:
    """A list of preferences goes on at HardwareAbsent alone: a card pulled out must not choose a weaker attester."""
    absent = {name for name in faults.RESULTS if isinstance(faults.explain_result(name, 0, "x"), HardwareAbsent)}
    assert absent == {"SCARD_E_NO_SERVICE", "SCARD_E_SERVICE_STOPPED", "SCARD_E_NO_READERS_AVAILABLE"}


def test_unknown_result_is_printed_as_pcscd_logs_it() -> None:
    told = faults.explain_result("", -2146435068, "listing readers")  # as some builds of pyscard sign it
    assert "0x80100004" in str(told) and "journalctl" in advise(told)


@pytest.mark.parametrize(("status", "says"), [(0x6A86, "6A86, wrong parameters"), (0x1234, "1234")])
def test_status_word_is_named(status: int, says: str) -> None:
    told: MpError = faults.explain_status(status, "signing")
    assert says in str(told) and "while signing" in str(told) and advise(told)


# What it costs a board without a card.


def test_pyscard_is_imported_with_the_reader_and_its_absence_is_named() -> None:
    script = (
        "import sys; import mpagent.hal.card; from mpagent.hal.card.reader import PcscReader\n"
        "assert 'smartcard' not in sys.modules\n"
        "sys.modules['smartcard'] = None\n"
        "from mpagent.errors import ConfigWrong\n"
        "try: PcscReader('')\n"
        "except ConfigWrong as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "extra `card`" in done.stdout
