"""The records of the TEE ioctls, byte for byte as the uapi header lays them out (little-endian machines)."""

from uuid import UUID

import pytest

from mpagent.hal.optee import faults, records
from mpagent.hal.optee.records import MemoryIn, MemoryInOut, MemoryOut, NoParam, ValueIn, ValueInOut, ValueOut
from mpwire.errors import Malformed

MP = UUID("83268b7c-85e3-11e8-adc0-fa7ae01bbebc")
NONE = bytes(32)


def number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def param(attr: int, a: int = 0, b: int = 0, c: int = 0) -> bytes:
    return b"".join(number(value, 8) for value in (attr, a, b, c))


def test_request_numbers_are_those_of_the_header() -> None:
    """_IOR and _IOWR of magic 0xa4: direction, size of the argument, magic, number."""

    def encode(direction: int, size: int, index: int) -> int:
        return direction << 30 | size << 16 | 0xA4 << 8 | index

    assert records.VERSION == encode(2, 12, 0) == encode(2, len(records.blank_version()), 0)
    assert records.SHM_ALLOC == encode(3, 16, 1) == encode(3, len(records.write_shared(1)), 1)
    assert records.OPEN_SESSION == encode(2, 16, 2) == encode(2, len(records.write_pointer(1, 2)), 2)
    assert encode(2, 16, 3) == records.INVOKE
    assert records.CLOSE_SESSION == encode(2, 4, 5) == encode(2, len(records.write_close(1)), 5)


def test_open_record_is_56_bytes_and_four_empty_parameters() -> None:
    """The UUID travels as RFC 4122 octets, big-endian on every machine."""
    record = records.write_open(MP)
    assert record == bytes.fromhex("83268b7c85e311e8adc0fa7ae01bbebc") + bytes(36) + number(4, 4) + NONE * 4
    assert len(record) == 56 + 4 * 32


def test_open_record_is_read_at_its_offsets() -> None:
    came = bytearray(records.write_open(MP))
    came[40:52] = number(7, 4) + number(0xFFFF0001, 4) + number(4, 4)
    result = records.read_open(bytes(came))
    assert (result.session, result.ret, result.origin) == (7, faults.ACCESS_DENIED, faults.TRUSTED_APP)
    assert len(result.numbers) == 4


def test_invoke_record_of_a_signature() -> None:
    """Message, signature and MPMR in one shared area, each on a cache line of its own; paramTypes 0x0665."""
    slots = records.lay_out((MemoryIn(b"m" * 100), MemoryOut(132), MemoryOut(32)), shared_id=5)
    record = records.write_invoke(session=9, func=0, slots=slots)
    head = number(0, 4) + number(9, 4) + bytes(12) + number(4, 4)
    assert record == head + param(5, 0, 100, 5) + param(6, 128, 132, 5) + param(6, 320, 32, 5) + NONE
    assert [(slot.offset, slot.content) for slot in slots[:3]] == [(0, b"m" * 100), (128, bytes(132)), (320, bytes(32))]


def test_every_type_of_parameter_has_its_number() -> None:
    params = (NoParam(), ValueIn(1, 2), ValueOut(), ValueInOut(3, 4), MemoryIn(b"a"), MemoryOut(2), MemoryInOut(b"bcd"))
    assert b"".join(slot.record for slot in records.lay_out(params, 8)) == (
        NONE + param(1, 1, 2) + param(2) + param(3, 3, 4) + param(5, 0, 1, 8) + param(6, 64, 2, 8) + param(7, 128, 3, 8)
    )


def test_invoke_record_is_read_at_its_offsets() -> None:
    came = number(1, 4) + number(9, 4) + number(0, 4) + number(0xFFFF0010, 4) + number(4, 4) + number(2, 4)
    result = records.read_invoke(came + param(6, 0, 132, 5) + param(2, 0xAABBCCDD, 1))
    assert (result.ret, result.origin, result.session) == (faults.SHORT_BUFFER, 4, 9)
    assert result.numbers == ((0, 132), (0xAABBCCDD, 1))


def test_longest_record_is_1024_bytes_and_one_more_parameter_is_refused() -> None:
    """24 + 31 times 32 is 1016; the kernel's EINVAL for 1048 would say nothing of the reason."""
    assert len(records.write_invoke(1, 0, records.lay_out([NoParam()] * 31, 0))) == 1016 <= records.RECORD_MAX_BYTES
    with pytest.raises(Malformed, match="1048 bytes"):
        records.write_invoke(1, 0, records.lay_out([NoParam()] * 32, 0))


def test_longest_message_with_both_outputs_fits_the_area_and_twice_does_not() -> None:
    records.lay_out((MemoryIn(bytes(4096)), MemoryOut(132), MemoryOut(32)), 1)
    with pytest.raises(Malformed, match="8640 bytes"):
        records.lay_out((MemoryIn(bytes(4096)), MemoryOut(132), MemoryOut(4300)), 1)


def test_version_and_shared_memory_are_read_at_their_offsets() -> None:
    assert records.read_version(number(1, 4) + number(2, 4) + number(13, 4)) == (1, 2, 13)
    assert records.write_shared(8192) == number(8192, 8) + bytes(8)
    assert records.read_shared(number(12288, 8) + bytes(4) + number(6, 4)) == (12288, 6)
    assert records.write_pointer(0x1234, 184) == number(0x1234, 8) + number(184, 8)


def test_unknown_numbers_are_printed_in_hexadecimal() -> None:
    assert str(faults.TeeFailed("opening x", 0xFFFF1234, 9)) == (
        "OP-TEE answered 0xffff1234 (from 0x00000009) while opening x"
    )
    assert "ACCESS_DENIED (from TRUSTED_APP)" in str(faults.TeeFailed("opening x", faults.ACCESS_DENIED, 4))
