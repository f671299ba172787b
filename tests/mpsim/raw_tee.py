"""A program that talks to /dev/tee0 by bare ioctls, and the test's end of it.

The child half uses struct, fcntl and mmap alone and shares no code with the product's client: the two meet only at the
numbers of linux/tee.h.
"""

import ctypes
import fcntl
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

VERSION, SHM_ALLOC, OPEN_SESSION, INVOKE = 0x800CA400, 0xC010A401, 0x8010A402, 0x8010A403
CANCEL, CLOSE_SESSION, SHM_REGISTER = 0x8008A404, 0x8004A405, 0xC018A409
NONE, VALUE_IN, VALUE_OUT, VALUE_INOUT, IN, OUT, INOUT = 0, 1, 2, 3, 5, 6, 7
NULL = 0xFFFF_FFFF_FFFF_FFFF

SUCCESS = 0
GENERIC, ACCESS_DENIED, EXCESS_DATA, BAD_PARAMETERS = 0xFFFF0000, 0xFFFF0001, 0xFFFF0004, 0xFFFF0006
ITEM_NOT_FOUND, NOT_SUPPORTED, BUSY, SHORT_BUFFER = 0xFFFF0008, 0xFFFF000A, 0xFFFF000D, 0xFFFF0010
TARGET_DEAD = 0xFFFF3024
FROM_TEE, FROM_APPLICATION = 3, 4

MP = UUID("83268b7c-85e3-11e8-adc0-fa7ae01bbebc")
OCOTP = UUID("9abdf255-d8fa-40de-8f60-4d0b27927b7d")
DIGPROG = UUID("bfdbe409-3302-4abf-99bc-5f623226a739")
ATTESTATION = UUID("39800861-182a-4720-9b67-2bcd622bc0b5")
MP_SIGN = UUID("8aaaf200-2450-11e4-abe2-0002a5d5c51c")

Param = tuple[int, int, int, int]


@dataclass(frozen=True)
class Said:
    """What an ioctl with a record gave."""

    errno: int
    """0 when the ioctl succeeded, whatever the secure world answered."""
    session: int = 0
    result: int = 0
    origin: int = 0
    params: tuple[Param, ...] = ()


class RawTee:
    """One process with the shim in it, and one area of shared memory where it asks for one."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.area = 0

    def ask(self, verb: str, *arguments: Any) -> Any:
        """One verb of `Child`."""
        self.send(verb, *arguments)
        return self.hear()

    def send(self, verb: str, *arguments: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps([verb, *arguments]) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def open_node(self, path: str = "/dev/tee0") -> int:
        """0, or errno."""
        return int(self.ask("open_node", path))

    def allocate(self, size: int, flags: int = 0) -> int:
        """errno; the area is `self.area` then."""
        errno, self.area = self.ask("allocate", size, flags)
        return int(errno)

    def open(self, uuid: UUID, params: tuple[Param, ...] = (), login: int = 0) -> Said:
        head = uuid.bytes + bytes(16) + struct.pack("<IIIIII", login, 0, 0xAAAA, 0xBBBB, 0xCCCC, len(params))
        return self._record(OPEN_SESSION, head, params)

    def invoke(self, session: int, command: int, *params: Param) -> Said:
        return self._record(INVOKE, struct.pack("<IIIIII", command, session, 0, 0xBBBB, 0xCCCC, len(params)), params)

    def call(self, uuid: UUID, command: int, *params: Param) -> Said:
        """Open, invoke, close; the open must succeed."""
        opened = self.open(uuid)
        assert (opened.errno, opened.result) == (0, SUCCESS)
        said = self.invoke(opened.session, command, *params)
        assert self.ask("flat", CLOSE_SESSION, struct.pack("<I", opened.session).hex())[0] == 0
        return said

    def peek(self, offset: int, size: int) -> bytes:
        return bytes.fromhex(self.ask("peek", offset, size))

    def poke(self, offset: int, content: bytes) -> None:
        self.ask("poke", offset, content.hex())

    def at(self, kind: int, offset: int, size: int) -> Param:
        """A memref into the area."""
        return (kind, offset, size, self.area)

    def _record(self, number: int, head: bytes, params: tuple[Param, ...]) -> Said:
        errno, raw = self.ask("record", number, (head + b"".join(struct.pack("<QQQQ", *one) for one in params)).hex())
        return read_record(number, errno, bytes.fromhex(raw))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            stream.close()


def read_record(number: int, errno: int, raw: bytes) -> Said:
    """A record as it came back."""
    size = 56 if number == OPEN_SESSION else 24
    session, result, origin = struct.unpack_from("<III", raw, 40 if number == OPEN_SESSION else 4)
    if number == INVOKE:
        session, _, result, origin = struct.unpack_from("<IIII", raw, 4)
    return Said(errno, session, result, origin, tuple(struct.iter_unpack("<QQQQ", raw[size:])))


class Child:
    """The verbs that the child process knows."""

    def __init__(self) -> None:
        self.node = -1
        self.memory: mmap.mmap | None = None
        self.shared = -1

    def open_node(self, path: str) -> int:
        try:
            self.node = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            return error.errno or -1
        return 0

    def close_node(self) -> int:
        os.close(self.node)
        return 0

    def flat(self, number: int, argument: str) -> tuple[int, str, int]:
        raw = bytearray.fromhex(argument)
        try:
            result = fcntl.ioctl(self.node, number, raw, True)
        except OSError as error:
            return error.errno or -1, raw.hex(), -1
        return 0, raw.hex(), result

    def record(self, number: int, argument: str, length: int | None = None, address: int | None = None) -> Any:
        raw = ctypes.create_string_buffer(bytes.fromhex(argument), len(argument) // 2)
        where = ctypes.addressof(raw) if address is None else address
        size = len(argument) // 2 if length is None else length
        errno, _, _ = self.flat(number, struct.pack("<QQ", where, size).hex())
        return errno, raw.raw.hex()

    def allocate(self, size: int, flags: int) -> tuple[int, int]:
        errno, raw, descriptor = self.flat(SHM_ALLOC, struct.pack("<QIi", size, flags, 0).hex())
        if errno:
            return errno, 0
        whole, _, number = struct.unpack("<QIi", bytes.fromhex(raw))
        self.memory, self.shared = mmap.mmap(descriptor, whole), descriptor
        return 0, number

    def close_shared(self) -> int:
        os.close(self.shared)
        return 0

    def unmap(self) -> int:
        assert self.memory
        self.memory.close()
        return 0

    def register(self, size: int) -> tuple[int, int]:
        """Ordinary memory of this process, lent out."""
        self.memory = mmap.mmap(-1, size)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        errno, raw, self.shared = self.flat(SHM_REGISTER, struct.pack("<QQIi", address, size, 0, 0).hex())
        return errno, struct.unpack("<QQIi", bytes.fromhex(raw))[3]

    def peek(self, offset: int, size: int) -> str:
        assert self.memory
        return self.memory[offset : offset + size].hex()

    def poke(self, offset: int, content: str) -> int:
        assert self.memory
        raw = bytes.fromhex(content)
        self.memory[offset : offset + len(raw)] = raw
        return 0

    def hold_interrupts(self) -> int:
        """SIGINT has a handler from now on, as in every Python program."""
        signal.signal(signal.SIGINT, lambda *_: None)
        return 0

    def in_fork(self, number: int, argument: str) -> Any:
        """The same ioctl on the inherited file, from a child of this process."""
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.write(writing, json.dumps(self.record(number, argument)).encode())
            os._exit(0)
        os.wait()
        return json.loads(os.read(reading, 1 << 16))


def main() -> None:
    child = Child()
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        print(json.dumps(getattr(child, verb)(*arguments)), flush=True)


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))
    main()
