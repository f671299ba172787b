"""Streams: gzip, xz, lzma, zstd, lz4 and bzip2, each possibly several in a row. Bounded windows, bounded steps."""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import lz4.block
import lz4.frame
import zstandard

from mpserver.scan.budget import Budget
from mpserver.scan.containers.member import Broken, Covered, Member
from mpserver.scan.regions import Region

STEP_BYTES: Final = 262_144
XZ_MEMORY_BYTES: Final = 80 * 1024 * 1024
"""xz -9 asks for a dictionary of 64 MiB."""
ZSTD_WINDOW_BYTES: Final = 128 * 1024 * 1024
"""zstd --long=27; what --ultra makes beyond is refused and named."""
LZ4_MAGIC: Final = b"\x04\x22\x4d\x18"
OLD_LZ4_MAGIC: Final = b"\x02\x21\x4c\x18"
OLD_LZ4_BLOCK_BYTES: Final = 8 * 1024 * 1024
_OLD_LZ4_PACKED_MAX_BYTES: Final = OLD_LZ4_BLOCK_BYTES + OLD_LZ4_BLOCK_BYTES // 255 + 16
"""The most that 8 MiB pack to."""
ZSTD_INPUT_BYTES: Final = 512
"""128 blocks of four bytes, each of which unpacks to 128 KiB of one byte: 16 MiB at the utmost."""
LZ4_INPUT_BYTES: Final = 8_192
"""One byte unpacks to 255 at the utmost, and what is given is a block of 4 MiB or less at a time."""


class _Inflater(Protocol):
    """What the standard library's decompressors have in common."""

    def inflate(self, raw: bytes) -> bytes:
        """At most STEP_BYTES; b"" takes what is waiting."""

    @property
    def is_done(self) -> bool:
        """The stream's end was met."""

    @property
    def is_hungry(self) -> bool:
        """It wants more input."""

    @property
    def rest(self) -> bytes:
        """Input behind the end."""


class _Gzip:
    def __init__(self) -> None:
        self._one = zlib.decompressobj(31)
        self._waiting = b""

    def inflate(self, raw: bytes) -> bytes:
        out = self._one.decompress(self._waiting + raw, STEP_BYTES)
        self._waiting = self._one.unconsumed_tail
        return out

    @property
    def is_done(self) -> bool:
        return self._one.eof

    @property
    def is_hungry(self) -> bool:
        return not self._waiting

    @property
    def rest(self) -> bytes:
        return self._one.unused_data


class _Lzma:
    """Also bzip2: their decompressors have the same shape."""

    def __init__(self, one: "lzma.LZMADecompressor | bz2.BZ2Decompressor") -> None:
        self._one = one

    def inflate(self, raw: bytes) -> bytes:
        return self._one.decompress(raw, STEP_BYTES)

    @property
    def is_done(self) -> bool:
        return self._one.eof

    @property
    def is_hungry(self) -> bool:
        return self._one.needs_input

    @property
    def rest(self) -> bytes:
        return self._one.unused_data


class _Stepped:
    """For decompressors that give all that their input unpacks to: the input goes in by small steps."""

    def __init__(self, one: Any, step: int) -> None:
        self._one, self._step = one, step
        self._waiting = memoryview(b"")

    def inflate(self, raw: bytes) -> bytes:
        if raw:
            self._waiting = memoryview(bytes(self._waiting) + raw)
        parts: list[bytes] = []
        size = 0
        while self._waiting and size < STEP_BYTES and not self._one.eof:
            parts.append(self._one.decompress(bytes(self._waiting[: self._step])))
            self._waiting = self._waiting[self._step :]
            size += len(parts[-1])
        return b"".join(parts)

    @property
    def is_done(self) -> bool:
        return bool(self._one.eof)

    @property
    def is_hungry(self) -> bool:
        return not self._waiting

    @property
    def rest(self) -> bytes:
        return bytes(self._one.unused_data or b"") + bytes(self._waiting)


def _start_zstd() -> _Inflater:
    one = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj()
    return _Stepped(one, ZSTD_INPUT_BYTES)


_START: Final[dict[str, Callable[[], _Inflater]]] = {
    "gz": _Gzip,
    "xz": lambda: _Lzma(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)),
    "lzma": lambda: _Lzma(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=XZ_MEMORY_BYTES)),
    "bz2": lambda: _Lzma(bz2.BZ2Decompressor()),
    "zst": _start_zstd,
    "lz4": lambda: _Stepped(lz4.frame.LZ4FrameDecompressor(), LZ4_INPUT_BYTES),
}
_AGAIN: Final = {
    "gz": b"\x1f\x8b\x08",
    "xz": b"\xfd7zXZ\x00",
    "bz2": b"BZh",
    "lz4": LZ4_MAGIC,
    "zst": b"\x28\xb5\x2f\xfd",
}
"""Another stream that follows belongs to the same file."""
_SKIPPABLE: Final = b"\x2a\x4d\x18"
"""Of a zstd frame without content, behind one byte from 0x50 to 0x5f."""


def open_packed(form: str) -> Callable[[Region, Budget], Iterator[Member | Covered]]:
    """The reader of one form."""

    def open_one(region: Region, budget: Budget) -> Iterator[Member | Covered]:
        taken = [0]
        unpack = _unpack_old_lz4(region, taken) if form == "lz4-old" else _unpack(region, form, taken)
        yield Member(form.partition("-")[0], chunks=unpack)
        yield Covered(taken[0])

    return open_one


def _unpack(region: Region, form: str, taken: list[int]) -> Iterator[bytes]:
    """`taken` becomes the number of bytes read that belong to the streams."""
    one, at = _START[form](), 0
    while True:
        asked = one.is_hungry
        raw = region.read(at, STEP_BYTES) if asked else b""
        at += len(raw)
        out = one.inflate(raw)
        taken[0] = at
        if out:
            yield out
        if one.is_done:
            at = taken[0] = _find_next(region, form, at - len(one.rest))
            if region.read(at, len(_AGAIN.get(form, b""))) != _AGAIN.get(form):
                return
            one = _START[form]()
        elif asked and not raw and not out:
            raise Broken("its stream is cut off")


def _unpack_old_lz4(region: Region, taken: list[int]) -> Iterator[bytes]:
    """As kernels are packed: blocks of 8 MiB, each behind its size. The file ends, or what follows is no size."""
    at = len(OLD_LZ4_MAGIC)
    while True:
        taken[0] = at
        size = int.from_bytes(region.read(at, 4), "little")
        if not 0 < size <= _OLD_LZ4_PACKED_MAX_BYTES:
            return
        raw = region.read(at + 4, size)
        if len(raw) < size:
            if at == len(OLD_LZ4_MAGIC) or at + 4 < region.size:
                raise Broken("its stream is cut off")
            return  # a kernel has its own size behind it
        yield bytes(lz4.block.decompress(raw, uncompressed_size=OLD_LZ4_BLOCK_BYTES))
        at += 4 + size


def _find_next(region: Region, form: str, at: int) -> int:
    """Behind what a packer may put between two streams."""
    head = region.read(at, 8)
    while form == "zst" and head[1:4] == _SKIPPABLE and 0x50 <= head[0] <= 0x5F:
        at += 8 + int.from_bytes(head[4:8], "little")
        head = region.read(at, 8)
    return at
