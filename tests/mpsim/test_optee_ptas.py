"""The other pseudo-TAs of the emulated OP-TEE, met by bare ioctls: fuses, part number, attestation; and the bench."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from mpsim import fuses
from mpsim.optee import bench
from mpsim.optee.bench import EmulatedTee, ShimBroke, build_shim
from mpsim.optee.scenario import Scenario, parse_scenario, read_scenario
from mpsim.silicon import Chip
from mpsim.storage import BoardBroke
from tests.mpsim import raw_tee
from tests.mpsim.raw_tee import ATTESTATION, DIGPROG, IN, MP_SIGN, OCOTP, OUT, VALUE_IN, VALUE_OUT, RawTee, Said
from tests.mpsim.tee_bench import program_on, tee_of_board

OUTPUT_AT, NONCE = 1024, b"the nonce"


@pytest.fixture
def tee(tmp_path: Path) -> Iterator[EmulatedTee]:
    with tee_of_board(tmp_path / "board") as made:
        yield made


@pytest.fixture
def raw(tee: EmulatedTee) -> Iterator[RawTee]:
    with program_on(tee) as program:
        yield program


def read_fuse(raw: RawTee, bank: int, word: int) -> Said:
    return raw.call(OCOTP, 1, (VALUE_IN, bank, word, 0), (VALUE_OUT, 0, 0, 0))


def measure(raw: RawTee, nonce: bytes = NONCE, room: int = 416) -> tuple[Said, bytes]:
    """HASH_TEE_MEMORY."""
    raw.poke(0, nonce)
    said = raw.call(ATTESTATION, 3, raw.at(IN, 0, len(nonce)), raw.at(OUT, OUTPUT_AT, room))
    return said, raw.peek(OUTPUT_AT, room)


def read_key(raw: RawTee) -> rsa.RSAPublicKey:
    """GET_PUBKEY."""
    said = raw.call(ATTESTATION, 0, raw.at(OUT, 0, 8), raw.at(OUT, 64, 512), (VALUE_OUT, 0, 0, 0))
    assert (said.result, [said.params[0][2], said.params[1][2]]) == (0, [3, 384])
    assert said.params[2][1] == 0x70414930
    numbers = (int.from_bytes(raw.peek(0, 3), "big"), int.from_bytes(raw.peek(64, 384), "big"))
    return rsa.RSAPublicNumbers(*numbers).public_key()


def verify(key: rsa.RSAPublicKey, nonce: bytes, output: bytes) -> None:
    digest = sha256(nonce + output[:32]).digest()
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    key.verify(output[32:], digest, scheme, utils.Prehashed(hashes.SHA256()))


@pytest.mark.parametrize("part", ["imx8mm", "imx8mp"])
def test_the_chip_uid_is_words_one_and_two_whatever_the_part(tmp_path: Path, part: str) -> None:
    with tee_of_board(tmp_path / "board", part=part) as tee, program_on(tee) as raw:
        assert raw.call(OCOTP, 0, raw.at(OUT, 0, 8)).result == 0
        content = Chip(tee.chip).read_fuses()
        assert raw.peek(0, 8) == content[4:12]
        told = raw.peek(0, 8)[::-1] == fuses.read_uid(part, content)
        assert told == (part != "imx8mp")  # where Linux reads words 2 and 3


@pytest.mark.parametrize("size", [7, 9, 16])
def test_the_chip_uid_wants_eight_bytes_exactly(raw: RawTee, size: int) -> None:
    assert raw.call(OCOTP, 0, raw.at(OUT, 0, size)).result == raw_tee.BAD_PARAMETERS


def test_fuses_are_read_by_bank_and_word(tee: EmulatedTee, raw: RawTee) -> None:
    words = [read_fuse(raw, 6 + word // 4, word % 4).params[1][1] for word in range(8)]
    srk = b"".join(word.to_bytes(4, "little") for word in words)
    assert srk == fuses.read_srk_hash(Chip(tee.chip).read_fuses())
    assert read_fuse(raw, 1, 3).params[1][1] & fuses.CLOSED_BIT


@pytest.mark.parametrize(("bank", "word"), [(0, 4), (64, 0), (2**32, 0)])
def test_a_fuse_that_is_not_there_is_refused(raw: RawTee, bank: int, word: int) -> None:
    assert read_fuse(raw, bank, word).result == raw_tee.BAD_PARAMETERS


def test_other_commands_and_types_of_ocotp_are_refused(raw: RawTee) -> None:
    for command, param in ((0, (VALUE_OUT, 0, 0, 0)), (1, (VALUE_IN, 0, 0, 0)), (2, raw.at(OUT, 0, 8))):
        assert raw.call(OCOTP, command, param).result == raw_tee.BAD_PARAMETERS


@pytest.mark.parametrize(("plan", "number"), [({}, 0x824110), ({"part": "imx8mq", "revision": "2.1"}, 0x824021)])
def test_digprog_names_part_and_revision_for_any_command(tmp_path: Path, plan: dict[str, str], number: int) -> None:
    with tee_of_board(tmp_path / "board", **plan) as tee, program_on(tee) as raw:
        for command in (0, 7):
            assert raw.call(DIGPROG, command, (VALUE_OUT, 0, 0, 0)).params[0][1:] == (number, 0, 0)
        assert raw.call(DIGPROG, 0).result == raw_tee.BAD_PARAMETERS


def test_the_memory_hash_is_signed_together_with_the_nonce(raw: RawTee) -> None:
    said, output = measure(raw)
    assert (said.result, said.params[1][2]) == (0, 416)
    verify(read_key(raw), NONCE, output)
    with pytest.raises(InvalidSignature):
        verify(read_key(raw), b"another nonce", output)
    assert measure(raw)[1] != output  # PSS is salted


def test_the_memory_hash_changes_with_the_release(tee: EmulatedTee, raw: RawTee) -> None:
    before = measure(raw)[1][:32]
    assert measure(raw)[1][:32] == before
    tee.change(build="4.11.0")
    assert measure(raw)[1][:32] != before


def test_short_attestation_buffers_are_told_their_sizes(raw: RawTee) -> None:
    said, output = measure(raw, room=415)
    assert (said.result, said.params[1][2], any(output)) == (raw_tee.SHORT_BUFFER, 416, False)
    said = raw.call(ATTESTATION, 0, raw.at(OUT, 0, 2), raw.at(OUT, 64, 383), (VALUE_OUT, 0, 0, 0))
    assert (said.result, [said.params[0][2], said.params[1][2]]) == (raw_tee.SHORT_BUFFER, [3, 384])


def test_an_empty_nonce_is_refused(raw: RawTee) -> None:
    assert measure(raw, b"")[0].result == raw_tee.BAD_PARAMETERS


def test_the_key_is_the_same_in_the_next_boot_and_another_after_a_reflash(tee: EmulatedTee) -> None:
    with program_on(tee) as raw:
        first = read_key(raw).public_numbers()
    tee.power_cycle()
    with program_on(tee) as raw:
        assert read_key(raw).public_numbers() == first
    tee.reflash()
    with program_on(tee) as raw:
        assert read_key(raw).public_numbers() != first


def test_a_key_that_cannot_be_stored_fails_once_and_then_lives_until_the_next_boot(tee: EmulatedTee) -> None:
    """init_key() of the pseudo-TA keeps what write_key() could not store."""
    tee.change(storage="full")
    with program_on(tee) as raw:
        assert measure(raw)[0].result == 0xFFFF3041
        unstored = read_key(raw).public_numbers()
    tee.change(storage="good")
    tee.power_cycle()
    with program_on(tee) as raw:
        assert read_key(raw).public_numbers() != unstored


def test_a_damaged_key_is_removed_and_the_next_command_makes_another(tee: EmulatedTee) -> None:
    with program_on(tee) as raw:
        first = read_key(raw).public_numbers()
    tee.power_cycle()
    tee.change(storage="damaged")
    with program_on(tee) as raw:
        assert measure(raw)[0].result == 0xF0100001
        assert read_key(raw).public_numbers() != first


def test_the_first_use_in_a_boot_needs_the_supplicant_for_the_storage(tee: EmulatedTee, raw: RawTee) -> None:
    tee.change(supplicant=False)
    session = raw.open(ATTESTATION).session
    raw.send("record", raw_tee.INVOKE, invoke_of_measure(raw, session))
    assert tee.server.answered("invoke") == []
    tee.change(supplicant=True)
    assert raw.hear()[0] == 0
    tee.change(supplicant=False)
    assert measure(raw)[0].result == 0  # from memory now


def invoke_of_measure(raw: RawTee, session: int) -> str:
    raw.poke(0, NONCE)
    head = b"".join(one.to_bytes(4, "little") for one in (3, session, 0, 0, 0, 2))
    params = (raw.at(IN, 0, len(NONCE)), raw.at(OUT, OUTPUT_AT, 416))
    return (head + b"".join(one.to_bytes(8, "little") for param in params for one in param)).hex()


def test_a_ta_is_measured_where_it_is_installed(tee: EmulatedTee, raw: RawTee) -> None:
    tee.change(applications={str(MP_SIGN): "mp_sign"})
    raw.poke(0, NONCE)
    results = []
    for uuid in (MP_SIGN.bytes_le, MP_SIGN.bytes, MP_SIGN.bytes_le[:15]):
        raw.poke(64, uuid)
        memory = (raw.at(IN, 64, len(uuid)), raw.at(IN, 0, len(NONCE)), raw.at(OUT, OUTPUT_AT, 416))
        results.append(raw.call(ATTESTATION, 1, *memory).result)
        if not results[-1]:
            verify(read_key(raw), NONCE, raw.peek(OUTPUT_AT, 416))
            raw.poke(0, NONCE)
    assert results == [0, raw_tee.ITEM_NOT_FOUND, raw_tee.BAD_PARAMETERS]


def test_linux_has_no_memory_to_be_hashed_as_a_ta(raw: RawTee) -> None:
    said = raw.call(ATTESTATION, 2, raw.at(IN, 0, 4), raw.at(OUT, OUTPUT_AT, 416))
    assert said.result == raw_tee.ACCESS_DENIED
    assert raw.call(ATTESTATION, 4, raw.at(IN, 0, 4)).result == raw_tee.BAD_PARAMETERS


def test_a_misspelt_scenario_is_an_error_and_not_a_silent_success(tmp_path: Path) -> None:
    path = tmp_path / "scenario.json"
    assert read_scenario(path) == Scenario()
    for text in ('{"acces_control": true}', "[]", '{"faults": [{"call": "open", "result": "BUSSY"}]}', "{"):
        path.write_text(text)
        with pytest.raises(BoardBroke):
            read_scenario(path)
    assert parse_scenario(json.loads('{"faults": [{"call": "open", "result": "HANG"}]}')).faults[0].result == "HANG"


def test_a_fault_of_the_emulation_is_told_to_the_test(tmp_path: Path) -> None:
    with pytest.raises(ShimBroke), tee_of_board(tmp_path / "board") as tee, program_on(tee) as raw:
        (tee.chip / "nvmem").unlink()
        assert raw.call(OCOTP, 0, raw.at(OUT, 0, 8)).errno == 5


def test_a_shim_that_does_not_compile_is_told_with_the_complaint(tmp_path: Path) -> None:
    source = tmp_path / "shim.c"
    source.write_text("int broken(void) { }\n")
    with pytest.raises(ShimBroke) as told:
        build_shim(tmp_path / "built", source)
    assert "-Werror" in told.value.detail
    assert list((tmp_path / "built").iterdir()) == []
    assert build_shim(tmp_path / "built") == build_shim(tmp_path / "built")
    assert bench.SOURCE.name == "shim.c"
