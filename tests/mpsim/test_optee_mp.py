"""The emulated manufacturing-protection applications, met by bare ioctls: docs/hardware.md and OP-TEE's driver."""

import hashlib
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from mpsim import fuses, silicon
from mpsim.optee.bench import EmulatedTee
from mpwire import mp
from tests.mpsim import raw_tee
from tests.mpsim.raw_tee import IN, INOUT, MP, MP_SIGN, NONE, OUT, VALUE_IN, RawTee, Said
from tests.mpsim.tee_bench import program_on, tee_of_board

MESSAGE = b"a message\0with a zero in it"
SIGNATURE_AT, MPMR_AT = 5000, 5200
DIRT = b"\xee"


@pytest.fixture
def tee(tmp_path: Path) -> Iterator[EmulatedTee]:
    with tee_of_board(tmp_path / "board") as made:
        yield made


@pytest.fixture
def raw(tee: EmulatedTee) -> Iterator[RawTee]:
    with program_on(tee) as program:
        program.poke(0, DIRT * 8192)
        yield program


def sign(
    raw: RawTee, message: bytes = MESSAGE, signature: int = 132, mpmr: int = 32, uuid: raw_tee.UUID = MP
) -> tuple[Said, bytes, bytes]:
    """SIGNATURE_MPMR: what came back, and the two buffers as wide as they were offered."""
    raw.poke(0, message)
    memory = (raw.at(IN, 0, len(message)), raw.at(OUT, SIGNATURE_AT, signature), raw.at(OUT, MPMR_AT, mpmr))
    said = raw.call(uuid, 0, *memory)
    return said, raw.peek(SIGNATURE_AT, signature), raw.peek(MPMR_AT, mpmr)


def export_key(raw: RawTee, room: int = 132) -> tuple[Said, bytes]:
    said = raw.call(MP, 1, raw.at(OUT, SIGNATURE_AT, room))
    return said, raw.peek(SIGNATURE_AT, room)


def sizes(said: Said) -> list[int]:
    return [b for _, _, b, _ in said.params]


def class_point() -> bytes:
    return b"\x04" + silicon.class_public_key("imx8mm", fuses.srk_hash_of("lab"))


def test_the_key_is_the_class_key_of_the_simulated_chip(raw: RawTee) -> None:
    said, key = export_key(raw)
    assert (said.result, said.origin, sizes(said)) == (0, raw_tee.FROM_APPLICATION, [64])
    assert key[:64] == class_point()[1:]


@pytest.mark.parametrize("plan", ["optee", "zero"])
def test_the_signature_holds_over_mpmr_and_message(tmp_path: Path, plan: str) -> None:
    with tee_of_board(tmp_path / "board", mpmr=plan) as tee, program_on(tee) as raw:
        said, signature, mpmr = sign(raw)
    assert (said.result, sizes(said)) == (0, [len(MESSAGE), 64, 32])
    assert mpmr == {"optee": mp.MPMR_OPTEE, "zero": mp.MPMR_ZERO}[plan]
    mp.verify_mp(class_point(), MESSAGE, mpmr, signature[:64])


def test_the_same_message_is_signed_otherwise_the_second_time(raw: RawTee) -> None:
    assert sign(raw)[1] != sign(raw)[1]


def test_the_longest_message_is_4096_bytes(raw: RawTee) -> None:
    assert sign(raw, b"\xa5" * 4096)[0].result == 0
    assert sign(raw, b"\xa5" * 4097)[0].result == raw_tee.EXCESS_DATA
    assert sign(raw, b"")[0].result == raw_tee.BAD_PARAMETERS


def test_a_short_signature_buffer_is_told_the_size_before_anything_is_signed(raw: RawTee) -> None:
    said, signature, mpmr = sign(raw, signature=63)
    assert (said.result, sizes(said)) == (raw_tee.SHORT_BUFFER, [len(MESSAGE), 64, 32])
    assert not any(signature + mpmr)


def test_a_short_mpmr_buffer_is_found_only_after_signing(raw: RawTee) -> None:
    said, signature, mpmr = sign(raw, mpmr=31)
    assert (said.result, sizes(said)) == (raw_tee.SHORT_BUFFER, [len(MESSAGE), 64, 32])
    assert not any(mpmr)
    mp.verify_mp(class_point(), MESSAGE, mp.MPMR_OPTEE, signature[:64])


def test_a_short_key_buffer_is_told_the_size_and_left_as_it_was(raw: RawTee) -> None:
    said, key = export_key(raw, 63)
    assert (said.result, sizes(said), key) == (raw_tee.SHORT_BUFFER, [64], DIRT * 63)


def test_a_failed_signing_leaves_zeros(raw: RawTee) -> None:
    said, signature, mpmr = sign(raw, b"\xa5" * 4097)
    assert sizes(said) == [4097, 132, 32]
    assert not any(signature + mpmr)


@pytest.mark.parametrize(
    ("command", "kinds"),
    [
        *(
            (0, kinds)
            for kinds in ([IN, OUT], [INOUT, OUT], [IN, OUT, OUT, OUT], [IN, INOUT, OUT], [VALUE_IN, OUT, OUT])
        ),
        *((1, kinds) for kinds in ([OUT, OUT], [INOUT], [NONE, OUT], [])),
        (2, [OUT]),
    ],
)
def test_other_types_or_commands_are_bad_parameters(raw: RawTee, command: int, kinds: list[int]) -> None:
    said = raw.call(MP, command, *(raw.at(kind, 0, 132) for kind in kinds))
    assert (said.errno, said.result, said.origin) == (0, raw_tee.BAD_PARAMETERS, raw_tee.FROM_APPLICATION)


@pytest.mark.parametrize(
    "plan", [{"unlock_mfg": False}, {"part": "imx8mq", "revision": "2.0"}], ids=["no Unlock MFG", "8MQ B0"]
)
def test_a_chip_without_its_key_opens_and_then_does_not_support_it(tmp_path: Path, plan: dict[str, str]) -> None:
    with tee_of_board(tmp_path / "board", **plan) as tee, program_on(tee) as raw:
        raw.poke(0, DIRT * 8192)
        said, signature, mpmr = sign(raw, signature=1)  # the engine is looked at before the sizes
        assert (said.result, said.origin) == (raw_tee.NOT_SUPPORTED, raw_tee.FROM_APPLICATION)
        assert not any(signature + mpmr)
        assert export_key(raw)[0].result == raw_tee.NOT_SUPPORTED


def test_an_open_part_without_unlock_signs_with_the_test_key(tmp_path: Path) -> None:
    with tee_of_board(tmp_path / "board", closed=False, unlock_mfg=False) as tee, program_on(tee) as raw:
        assert export_key(raw)[1][:64] == silicon.test_public_key()


def test_behind_access_control_no_program_gets_in(tee: EmulatedTee, raw: RawTee) -> None:
    tee.change(access_control=True)
    assert raw.open(MP).result == raw_tee.ACCESS_DENIED


def test_an_mpmr_locked_before_op_tee_is_a_success_of_size_zero(tee: EmulatedTee, raw: RawTee) -> None:
    tee.change(mpmr_locked="sizes")
    said, signature, mpmr = sign(raw)
    assert (said.result, sizes(said)) == (0, [len(MESSAGE), 0, 32])
    assert not any(signature) and any(mpmr)
    assert (export_key(raw)[0].result, sizes(export_key(raw)[0])) == (0, [0])


def test_or_a_success_of_zero_bytes(tee: EmulatedTee, raw: RawTee) -> None:
    tee.change(mpmr_locked="bytes")
    said, signature, _ = sign(raw)
    assert (said.result, sizes(said)) == (0, [len(MESSAGE), 64, 32])
    assert not any(signature)
    said, key = export_key(raw)
    assert (said.result, sizes(said), any(key[:64])) == (0, [64], False)


def test_a_part_on_p521_gives_132_bytes(tee: EmulatedTee, raw: RawTee) -> None:
    tee.change(curve="P-521")
    assert sizes(export_key(raw, 64)[0]) == [132]
    said, key = export_key(raw)
    assert (said.result, sizes(said)) == (0, [132])
    assert sizes(sign(raw, signature=64)[0])[1] == 132
    said, signature, mpmr = sign(raw)
    assert (said.result, sizes(said)[1]) == (0, 132)
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP521R1(), b"\x04" + key)
    der = utils.encode_dss_signature(int.from_bytes(signature[:66], "big"), int.from_bytes(signature[66:], "big"))
    point.verify(der, hashlib.sha256(mpmr + MESSAGE).digest(), ec.ECDSA(utils.Prehashed(hashes.SHA256())))


@pytest.mark.parametrize("spoilt", ["off-curve", "zero"])
def test_a_key_can_be_spoilt(tee: EmulatedTee, raw: RawTee, spoilt: str) -> None:
    tee.change(key=spoilt)
    said, key = export_key(raw)
    assert (said.result, sizes(said)) == (0, [64])
    with pytest.raises(ValueError):
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key[:64])


def test_sizes_can_lie(tee: EmulatedTee, raw: RawTee) -> None:
    tee.change(sizes={"key": 4096, "signature": 63, "mpmr": 16})
    assert sizes(sign(raw)[0]) == [len(MESSAGE), 63, 16]
    assert sizes(export_key(raw)[0]) == [4096]


def test_the_old_interface_puts_the_signature_over_the_message(tee: EmulatedTee, raw: RawTee) -> None:
    tee.change(abi="old")
    message = b"\xa5" * 100
    raw.poke(0, message)
    said = raw.call(MP, 0, raw.at(INOUT, 0, 100), raw.at(OUT, MPMR_AT, 32))
    assert (said.result, sizes(said)) == (0, [100, 32])
    changed = raw.peek(0, 100)
    assert not any(changed[64:])
    mp.verify_mp(class_point(), message, raw.peek(MPMR_AT, 32), changed[:64])
    assert sizes(export_key(raw)[0]) == [132]  # it tells no size back
    assert export_key(raw)[1][:64] == class_point()[1:]


@pytest.mark.parametrize(("message", "mpmr"), [(63, 32), (64, 31), (64, 33)])
def test_the_old_interface_wants_room_for_the_signature(tee: EmulatedTee, raw: RawTee, message: int, mpmr: int) -> None:
    tee.change(abi="old")
    said = raw.call(MP, 0, raw.at(INOUT, 0, message), raw.at(OUT, MPMR_AT, mpmr))
    assert said.result == raw_tee.BAD_PARAMETERS


def test_old_and_new_interface_refuse_each_others_shape(tee: EmulatedTee, raw: RawTee) -> None:
    assert raw.call(MP, 0, raw.at(INOUT, 0, 64), raw.at(OUT, MPMR_AT, 32)).result == raw_tee.BAD_PARAMETERS
    tee.change(abi="old")
    assert sign(raw)[0].result == raw_tee.BAD_PARAMETERS
    assert raw.call(MP, 2, raw.at(OUT, 0, 64)).result == raw_tee.BAD_PARAMETERS


@pytest.mark.parametrize("uuid", [MP_SIGN, raw_tee.UUID(int=0x1234)], ids=["xtest's", "another"])
def test_a_ta_signs_behind_access_control(tee: EmulatedTee, raw: RawTee, uuid: raw_tee.UUID) -> None:
    tee.change(access_control=True, applications={str(uuid): "mp_sign"})
    said, signature, mpmr = sign(raw, uuid=uuid)
    assert (said.result, sizes(said)) == (0, [len(MESSAGE), 64, 32])
    mp.verify_mp(class_point(), MESSAGE, mpmr, signature[:64])


def test_the_ta_gives_the_key_twice(tee: EmulatedTee, raw: RawTee) -> None:
    tee.change(access_control=True, applications={str(MP_SIGN): "mp_sign"})
    said = raw.call(MP_SIGN, 1, raw.at(OUT, 0, 132), raw.at(OUT, 200, 300))
    assert (said.result, sizes(said)) == (0, [64, 300])
    pem = raw.peek(200, 300).split(b"\0")[0]
    key = serialization.load_pem_public_key(pem)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    form = (serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    assert key.public_bytes(*form) == b"\x04" + raw.peek(0, 64) == class_point()


def test_the_ta_refuses_the_shape_of_the_pta_and_a_short_pem(tee: EmulatedTee, raw: RawTee) -> None:
    tee.change(applications={str(MP_SIGN): "mp_sign"})
    for memory in ([raw.at(OUT, 0, 132)], [raw.at(OUT, 0, 132), raw.at(OUT, 200, 100)]):
        assert raw.call(MP_SIGN, 1, *memory).result == raw_tee.BAD_PARAMETERS
    assert raw.call(MP_SIGN, 2).result == raw_tee.BAD_PARAMETERS
    tee.change(key="off-curve")
    said = raw.call(MP_SIGN, 1, raw.at(OUT, 0, 132), raw.at(OUT, 200, 300))
    assert said.result == raw_tee.BAD_PARAMETERS


def test_the_ta_without_its_pta_has_bad_parameters(tee: EmulatedTee, raw: RawTee) -> None:
    tee.change(built_in=(), applications={str(MP_SIGN): "mp_sign"})
    assert sign(raw, uuid=MP_SIGN)[0].result == raw_tee.BAD_PARAMETERS


@pytest.mark.parametrize("result", ["GENERIC", "BAD_PARAMETERS", "OUT_OF_MEMORY", "0xdeadbeef"])
def test_a_scripted_failure_clears_the_buffers_as_a_real_one(tee: EmulatedTee, raw: RawTee, result: str) -> None:
    tee.break_next(result)
    said, signature, mpmr = sign(raw)
    assert said.result == tee.scenario.faults[0].read_result() != 0
    assert not any(signature + mpmr)
    assert sign(raw)[0].result == 0  # once


def test_a_busy_open_is_over_the_next_time(tee: EmulatedTee, raw: RawTee) -> None:
    tee.break_next("BUSY", call="open", origin=raw_tee.FROM_TEE)
    said = raw.open(MP)
    assert (said.result, said.origin, said.session) == (raw_tee.BUSY, raw_tee.FROM_TEE, 0)
    assert raw.open(MP).result == 0


def test_a_dead_application_stays_dead_for_its_session(tee: EmulatedTee, raw: RawTee) -> None:
    tee.break_next("TARGET_DEAD", uuid=str(MP), origin=raw_tee.FROM_TEE)
    session = raw.open(MP).session
    for _ in range(2):
        said = raw.invoke(session, 1, raw.at(OUT, 0, 64))
        assert (said.result, said.origin) == (raw_tee.TARGET_DEAD, raw_tee.FROM_TEE)
    assert export_key(raw)[0].result == 0


def test_a_hanging_command_ends_with_its_caller(tee: EmulatedTee) -> None:
    tee.break_next("HANG", command=1)
    with program_on(tee) as program:
        session = program.open(MP).session
        program.send("record", raw_tee.INVOKE, struct.pack("<IIIIII", 1, session, 0, 0, 0, 0).hex())
        time.sleep(0.1)
        program.process.kill()
        program.process.wait()
    assert tee.server.answered("invoke") == []
