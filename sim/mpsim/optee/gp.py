"""GlobalPlatform's words as the secure world uses them: results, origins, parameters.

Written from the uapi header linux/tee.h and OP-TEE's sources, not from the client that is tested against it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Protocol


class Result(IntEnum):
    """TEE_Result."""

    SUCCESS = 0
    GENERIC = 0xFFFF_0000
    ACCESS_DENIED = 0xFFFF_0001
    CANCEL = 0xFFFF_0002
    ACCESS_CONFLICT = 0xFFFF_0003
    EXCESS_DATA = 0xFFFF_0004
    BAD_FORMAT = 0xFFFF_0005
    BAD_PARAMETERS = 0xFFFF_0006
    BAD_STATE = 0xFFFF_0007
    ITEM_NOT_FOUND = 0xFFFF_0008
    NOT_IMPLEMENTED = 0xFFFF_0009
    NOT_SUPPORTED = 0xFFFF_000A
    NO_DATA = 0xFFFF_000B
    OUT_OF_MEMORY = 0xFFFF_000C
    BUSY = 0xFFFF_000D
    COMMUNICATION = 0xFFFF_000E
    SECURITY = 0xFFFF_000F
    SHORT_BUFFER = 0xFFFF_0010
    OVERFLOW = 0xFFFF_300F
    TARGET_DEAD = 0xFFFF_3024
    STORAGE_NO_SPACE = 0xFFFF_3041
    MAC_INVALID = 0xFFFF_3071
    CORRUPT_OBJECT = 0xF010_0001
    STORAGE_NOT_AVAILABLE = 0xF010_0003


class Origin(IntEnum):
    """Which layer a result comes from."""

    COMMS = 2
    TEE = 3
    TRUSTED_APP = 4


class Kind(IntEnum):
    """Type of a parameter (TEE_IOCTL_PARAM_ATTR_TYPE_*)."""

    NONE = 0
    VALUE_INPUT = 1
    VALUE_OUTPUT = 2
    VALUE_INOUT = 3
    MEMREF_INPUT = 5
    MEMREF_OUTPUT = 6
    MEMREF_INOUT = 7


MEMREFS: Final = frozenset({Kind.MEMREF_INPUT, Kind.MEMREF_OUTPUT, Kind.MEMREF_INOUT})
NUM_PARAMS: Final = 4
"""TEE_NUM_PARAMS: an application has four; those not sent are NONE."""


class TeeRefusal(Exception):
    """The secure world answers with this result."""

    def __init__(self, result: int, origin: Origin = Origin.TRUSTED_APP) -> None:
        super().__init__(f"{result:#x}")
        self.result = result
        self.origin = origin


class Memory(Protocol):
    """Memory that both worlds see."""

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of it, copied."""

    def write(self, offset: int, content: bytes) -> None:
        """Put bytes where the normal world sees them."""


@dataclass
class Param:
    """One parameter in the hands of an application; what it changes travels back."""

    kind: Kind = Kind.NONE
    a: int = 0
    b: int = 0
    c: int = 0
    memory: Memory | None = None
    """Of a memref; None is the null reference."""
    offset: int = 0
    size: int = 0
    """Of a memref: the caller's size, then the one to give back."""
    room: int = field(init=False, default=0)
    """The caller's size, which no write exceeds."""

    def __post_init__(self) -> None:
        self.room = self.size

    def read(self) -> bytes:
        """The whole buffer. A null reference is refused as every application of ours refuses it."""
        if self.memory is None:
            raise TeeRefusal(Result.BAD_PARAMETERS)
        return self.memory.read(self.offset, self.room)

    def write(self, content: bytes) -> None:
        """Content at the start; the size to give back is left alone."""
        if self.memory is None:
            raise TeeRefusal(Result.BAD_PARAMETERS)
        assert len(content) <= self.room  # an application that writes past its buffer is a bug of ours
        self.memory.write(self.offset, content)

    def clear(self) -> None:
        """memset(buffer, 0, size): nothing where there is no buffer."""
        if self.memory is not None:
            self.memory.write(self.offset, bytes(self.room))

    def give(self, content: bytes) -> None:
        """Write and say the size, or say the size needed. Raises TeeRefusal SHORT_BUFFER."""
        self.size = len(content)
        if self.room < len(content):
            raise TeeRefusal(Result.SHORT_BUFFER)
        self.write(content)


def require_kinds(params: list[Param], *kinds: Kind) -> None:
    """Raises TeeRefusal BAD_PARAMETERS unless the types are exactly these, the rest NONE."""
    wanted = [*kinds, *[Kind.NONE] * (NUM_PARAMS - len(kinds))]
    if [param.kind for param in params] != wanted:
        raise TeeRefusal(Result.BAD_PARAMETERS)


class Application(Protocol):
    """A pseudo-TA or a TA."""

    def open(self) -> None:
        """A session with the normal world begins. Raises TeeRefusal."""

    def invoke(self, command: int, params: list[Param]) -> None:
        """Raises TeeRefusal. Buffers and sizes changed before it travel back all the same."""

    def spoil(self, command: int, params: list[Param]) -> None:
        """What this command leaves in its buffers when it fails half-way."""


Wait = Callable[[], None]
"""Blocks until tee-supplicant runs; raises Gone when the caller dies first."""
