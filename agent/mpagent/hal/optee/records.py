"""Bytes of the TEE subsystem's ioctls (Linux include/uapi/linux/tee.h): requests, records, parameters.

All fields have a fixed width and the CPU's byte order, so the numbers are the same on 32-bit and 64-bit machines.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple, cast
from uuid import UUID

from mpwire.errors import Malformed

VERSION: Final = 0x800CA400
SHM_ALLOC: Final = 0xC010A401
OPEN_SESSION: Final = 0x8010A402
INVOKE: Final = 0x8010A403
CLOSE_SESSION: Final = 0x8004A405

IMPL_OPTEE: Final = 1
"""TEE_IMPL_ID_OPTEE."""
LOGIN_PUBLIC: Final = 0
RECORD_MAX_BYTES: Final = 1024
"""TEE_MAX_ARG_SIZE: the kernel refuses a longer record with EINVAL."""
PARAMS_LEAST: Final = 4
"""A GlobalPlatform operation has four parameters; libteec sends the unused ones too, as NONE."""
SHARED_BYTES: Final = 8192
"""One area for all memory parameters of a call: a message of 4096 bytes, two small outputs, rounded up to pages."""

_VERSION: Final = struct.Struct("=III")
_SHM_ALLOC: Final = struct.Struct("=QIi")
_POINTER: Final = struct.Struct("=QQ")
_SESSION: Final = struct.Struct("=I")
_OPEN: Final = struct.Struct("=16s16sIIIIII")
_INVOKE: Final = struct.Struct("=IIIIII")
_PARAM: Final = struct.Struct("=QQQQ")
_ALIGN: Final = 64
"""Memory parameters start on a cache line, because a crypto engine may write them by DMA."""

_NONE, _VALUE_IN, _VALUE_OUT, _VALUE_INOUT, _MEMORY_IN, _MEMORY_OUT, _MEMORY_INOUT = 0, 1, 2, 3, 5, 6, 7


class NoParam:
    """TEE_IOCTL_PARAM_ATTR_TYPE_NONE."""

    __slots__ = ()


class ValueIn(NamedTuple):
    """Two 32-bit numbers to the TEE."""

    a: int
    b: int = 0


class ValueOut:
    """Two 32-bit numbers from the TEE."""

    __slots__ = ()


class ValueInOut(NamedTuple):
    """Two 32-bit numbers each way."""

    a: int
    b: int = 0


class MemoryIn(NamedTuple):
    """Bytes to the TEE."""

    content: bytes


class MemoryOut(NamedTuple):
    """Room for this many bytes from the TEE."""

    size: int


class MemoryInOut(NamedTuple):
    """Bytes to the TEE in a buffer that it overwrites; what comes back has at most as many."""

    content: bytes


Param = NoParam | ValueIn | ValueOut | ValueInOut | MemoryIn | MemoryOut | MemoryInOut
Answer = None | tuple[int, int] | bytes
"""What came back in a parameter: nothing, two numbers, or as many bytes as the TEE says it wrote."""


class Result(NamedTuple):
    """`ret` and `ret_origin` of a record, the session it opened, and each parameter's two numbers as they came back.

    Of a memory parameter the second number is the size: what was written, or what a short buffer should have had.
    """

    ret: int
    origin: int
    session: int
    numbers: tuple[tuple[int, int], ...]


class Slot(NamedTuple):
    """One parameter laid out: its 32 bytes of the record and its bytes of the shared area."""

    record: bytes
    offset: int = 0
    content: bytes = b""


def lay_out(params: Sequence[Param], shared_id: int) -> list[Slot]:
    """Where each parameter goes; padded with NONE. Raises Malformed when the shared area cannot hold them."""
    padded = [*params, *[NoParam()] * (PARAMS_LEAST - len(params))]
    slots, offset = [], 0
    for param in padded:
        slots.append(_lay(param, offset, shared_id))
        offset = _next(offset, param)
    if offset > SHARED_BYTES:
        raise Malformed(f"parameters need {offset} bytes of shared memory, and there are {SHARED_BYTES}")
    return slots


def _lay(param: Param, offset: int, shared_id: int) -> Slot:
    match param:
        case NoParam():
            return Slot(_PARAM.pack(_NONE, 0, 0, 0))
        case ValueIn(a, b):
            return Slot(_PARAM.pack(_VALUE_IN, a, b, 0))
        case ValueOut():
            return Slot(_PARAM.pack(_VALUE_OUT, 0, 0, 0))
        case ValueInOut(a, b):
            return Slot(_PARAM.pack(_VALUE_INOUT, a, b, 0))
        case MemoryIn(content):
            return Slot(_PARAM.pack(_MEMORY_IN, offset, len(content), shared_id), offset, content)
        case MemoryOut(size):
            return Slot(_PARAM.pack(_MEMORY_OUT, offset, size, shared_id), offset, bytes(size))
        case MemoryInOut(content):  # not here: the type checker knows that no other is left
            return Slot(_PARAM.pack(_MEMORY_INOUT, offset, len(content), shared_id), offset, content)


def size_of(param: Param) -> int:
    """Bytes of the shared area that this parameter takes."""
    if isinstance(param, MemoryOut):
        return param.size
    return len(param.content) if isinstance(param, MemoryIn | MemoryInOut) else 0


def read_value(answer: Answer) -> int:
    """The first number of a value parameter's answer."""
    a, _ = cast(tuple[int, int], answer)
    return a


def _next(offset: int, param: Param) -> int:
    return offset + -(-size_of(param) // _ALIGN) * _ALIGN


def write_open(uuid: UUID) -> bytearray:
    """The record of OPEN_SESSION: login public, cancel id 0, no parameter but the four empty ones."""
    head = _OPEN.pack(uuid.bytes, bytes(16), LOGIN_PUBLIC, 0, 0, 0, 0, PARAMS_LEAST)
    return bytearray(head + _PARAM.pack(_NONE, 0, 0, 0) * PARAMS_LEAST)


def write_invoke(session: int, func: int, slots: Sequence[Slot]) -> bytearray:
    """The record of INVOKE, cancel id 0. Raises Malformed above RECORD_MAX_BYTES."""
    record = bytearray(_INVOKE.pack(func, session, 0, 0, 0, len(slots)))
    for slot in slots:
        record += slot.record
    if len(record) > RECORD_MAX_BYTES:
        raise Malformed(f"a TEE call of {len(slots)} parameters needs {len(record)} bytes, above {RECORD_MAX_BYTES}")
    return record


def read_open(record: bytes) -> Result:
    """What the kernel wrote into the record of OPEN_SESSION."""
    _, _, _, _, session, ret, origin, _ = _OPEN.unpack_from(record)
    return Result(ret, origin, session, _read_numbers(record[_OPEN.size :]))


def read_invoke(record: bytes) -> Result:
    """What the kernel wrote into the record of INVOKE."""
    _, session, _, ret, origin, _ = _INVOKE.unpack_from(record)
    return Result(ret, origin, session, _read_numbers(record[_INVOKE.size :]))


def _read_numbers(params: bytes) -> tuple[tuple[int, int], ...]:
    return tuple((a, b) for _, a, b, _ in _PARAM.iter_unpack(params))


def write_pointer(address: int, size: int) -> bytes:
    """The argument of OPEN_SESSION and INVOKE: where the record lies."""
    return _POINTER.pack(address, size)


def write_close(session: int) -> bytes:
    """The argument of CLOSE_SESSION."""
    return _SESSION.pack(session)


def write_shared(size: int) -> bytearray:
    """The argument of SHM_ALLOC."""
    return bytearray(_SHM_ALLOC.pack(size, 0, 0))


def read_shared(argument: bytes) -> tuple[int, int]:
    """Size, as the kernel rounded it, and id of the area it made."""
    size, _, shared_id = _SHM_ALLOC.unpack(argument)
    return size, shared_id


def blank_version() -> bytearray:
    """The argument of VERSION."""
    return bytearray(_VERSION.size)


def read_version(argument: bytes) -> tuple[int, int, int]:
    """Implementation, its capabilities, general capabilities."""
    implementation, own, general = _VERSION.unpack(argument)
    return implementation, own, general
