"""Squashfs 4.0 (Linux Documentation/filesystems/squashfs). Files come out block by block, the names and inodes too."""

import lzma
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from struct import unpack_from
from typing import Final, NamedTuple

import lz4.block
import zstandard

from mpserver.scan.budget import Budget
from mpserver.scan.containers.member import Broken, Covered, Member, read_exactly, show_name
from mpserver.scan.regions import Region

MAGIC: Final = b"hsqs"
_META_BYTES: Final = 8_192
_META_KEPT: Final = 64
_BLOCK_MAX_BYTES: Final = 1 << 20
_RAW: Final = 1 << 24
"""In the size of a data block: it is not compressed."""
_NO_FRAGMENT: Final = 0xFFFFFFFF
_FRAGMENTS_A_BLOCK: Final = 512
_FOLDERS: Final = (1, 8)
_FILES: Final = (2, 9)
_XZ_MEMORY_BYTES: Final = 32 * 1024 * 1024


class _Inode(NamedTuple):
    kind: int
    size: int
    start: int
    """Of a folder its block in the table of folders, of a file its first byte in the image."""
    offset: int
    """Of a folder within that block, of a file within its fragment."""
    fragment: int
    blocks: tuple[int, ...]
    number: int


def open_squashfs(region: Region, budget: Budget) -> Iterator[Member | Covered]:
    """Names and inodes first, then every file once."""
    volume = _Volume(region, budget)
    yield Covered(volume.used)
    yield Member("[inodes]", chunks=volume.unpack_table(volume.inode_table, volume.folder_table))
    yield Member("[names]", chunks=volume.unpack_table(volume.folder_table, volume.folders_end))
    seen: set[int] = set()
    folders = [("", volume.read_inode(volume.root))]
    while folders:
        path, folder = folders.pop()
        for name, reference in volume.read_folder(folder):
            inode = volume.read_inode(reference)
            if inode.number in seen:
                continue
            seen.add(inode.number)
            where = f"{path}/{name}"
            if inode.kind in _FOLDERS:
                folders.append((where, inode))
            elif inode.kind in _FILES and inode.size:
                yield Member(where, chunks=volume.unpack_file(inode))


class _Volume:
    """One file system. Its verbs raise Broken, struct.error and what a decompressor raises."""

    def __init__(self, region: Region, budget: Budget) -> None:
        self._region, self._budget = region, budget
        head = read_exactly(region, 0, 96)
        self._block_bytes, self._fragments, self._packer = unpack_from("<IIH", head, 12)
        (major,) = unpack_from("<H", head, 28)
        self.root, self.used = unpack_from("<QQ", head, 32)
        self.inode_table, self.folder_table, self._fragment_table = unpack_from("<QQQ", head, 64)
        if major != 4 or not 4096 <= self._block_bytes <= _BLOCK_MAX_BYTES:
            raise Broken(f"squashfs {major} with blocks of {self._block_bytes} bytes")
        self._inflate = choose_packer(self._packer)
        ends = [one for one in (self._fragment_table, *unpack_from("<QQQ", head, 48), self.used) if one < self.used]
        self.folders_end = min((one for one in ends if one > self.folder_table), default=self.used)
        self._kept: OrderedDict[int, tuple[bytes, int]] = OrderedDict()
        self._fragment: tuple[int, bytes] = (-1, b"")

    def unpack_table(self, start: int, end: int) -> Iterator[bytes]:
        """Metadata blocks one after the other; what lies behind the last whole one is an index of numbers."""
        at = start
        while at < min(end, self._region.size):
            try:
                body, at = self._read_meta(at)
            except (Broken, zlib.error, lzma.LZMAError, zstandard.ZstdError):
                return
            yield body

    def read_inode(self, reference: int) -> _Inode:
        """By its block and offset in the table of inodes."""
        self._budget.enter()
        raw = self._read_table(self.inode_table + (reference >> 16), reference & 0xFFFF, 64, short=True)
        kind, number = unpack_from("<H", raw, 0)[0], unpack_from("<I", raw, 12)[0]
        if kind == 1:
            start, _, size, offset = unpack_from("<IIHH", raw, 16)
            return _Inode(kind, max(0, size - 3), start, offset, 0, (), number)
        if kind == 8:
            _, size, start, _, _, offset = unpack_from("<IIIIHH", raw, 16)
            return _Inode(kind, max(0, size - 3), start, offset, 0, (), number)
        if kind not in _FILES:
            return _Inode(kind, 0, 0, 0, 0, (), number)
        if kind == 2:
            start, fragment, offset, size = unpack_from("<IIII", raw, 16)
            list_at = 32
        else:
            start, size, _ = unpack_from("<QQQ", raw, 16)
            _, fragment, offset, _ = unpack_from("<IIII", raw, 40)
            list_at = 56
        count = size // self._block_bytes if fragment != _NO_FRAGMENT else -(-size // self._block_bytes)
        if count > self._region.size:  # each takes a byte at least, or is a hole whose entry takes four
            raise Broken(f"a file of {size} bytes")
        table, place = self.inode_table + (reference >> 16), (reference & 0xFFFF) + list_at
        blocks = unpack_from(f"<{count}I", self._read_table(table, place, 4 * count), 0)
        return _Inode(kind, size, start, offset, fragment, blocks, number)

    def read_folder(self, inode: _Inode) -> Iterator[tuple[str, int]]:
        """Name and inode reference of each entry."""
        if inode.kind not in _FOLDERS:
            raise Broken("what ought to be a folder is none")
        raw = self._read_table(self.folder_table + inode.start, inode.offset, inode.size)
        at = 0
        while at + 12 <= len(raw):
            count, block = unpack_from("<II", raw, at)
            at += 12
            for _ in range(count + 1):
                if at + 8 > len(raw):
                    return
                offset, _, _, length = unpack_from("<HhHH", raw, at)
                yield show_name(raw[at + 8 : at + 9 + length]), block << 16 | offset
                at += 9 + length

    def unpack_file(self, inode: _Inode) -> Iterator[bytes]:
        """Its blocks, then its part of a fragment."""
        at, left = inode.start, inode.size
        for one in inode.blocks:
            size = one & (_RAW - 1)
            wanted = min(left, self._block_bytes)
            if size == 0:
                body = bytes(wanted)
            else:
                body = self._read_block(at, one)
                if len(body) != wanted:
                    raise Broken("a block of it is shorter than it says")
            yield body
            at, left = at + size, left - wanted
        if left and inode.fragment != _NO_FRAGMENT:
            body = self._read_fragment(inode.fragment)[inode.offset : inode.offset + left]
            if len(body) != left:
                raise Broken("its fragment is shorter than it says")
            yield body

    def _read_fragment(self, number: int) -> bytes:
        if number >= self._fragments:
            raise Broken(f"fragment {number} of {self._fragments}")
        if self._fragment[0] != number:
            place = self._fragment_table + number // _FRAGMENTS_A_BLOCK * 8
            (table,) = unpack_from("<Q", read_exactly(self._region, place, 8), 0)
            entry = self._read_table(table, number % _FRAGMENTS_A_BLOCK * 16, 16)
            start, size = unpack_from("<QI", entry, 0)
            self._fragment = (number, self._read_block(start, size))
        return self._fragment[1]

    def _read_block(self, at: int, size: int) -> bytes:
        raw = read_exactly(self._region, at, min(size & (_RAW - 1), 2 * _BLOCK_MAX_BYTES))
        return raw if size & _RAW else self._inflate(raw, self._block_bytes)

    def _read_table(self, at: int, offset: int, length: int, *, short: bool = False) -> bytes:
        """`length` bytes of metadata from `offset` of the block at `at`; fewer where `short` and there are no more."""
        parts: list[bytes] = []
        skip = offset
        while length > 0:
            if short and parts and at >= self.folder_table:
                break
            body, at = self._read_meta(at)
            self._budget.check_time()
            part = body[skip : skip + length]
            skip = max(0, skip - len(body))
            length -= len(part)
            parts.append(part)
            if not body:
                raise Broken("an empty block of metadata")
        return b"".join(parts)

    def _read_meta(self, at: int) -> tuple[bytes, int]:
        """A block of metadata, and where the next one begins."""
        kept = self._kept.get(at)
        if kept is not None:
            self._kept.move_to_end(at)
            return kept
        (head,) = unpack_from("<H", read_exactly(self._region, at, 2), 0)
        raw = read_exactly(self._region, at + 2, head & 0x7FFF)
        body = raw if head & 0x8000 else self._inflate(raw, _META_BYTES)
        self._kept[at] = (body, at + 2 + len(raw))
        if len(self._kept) > _META_KEPT:
            self._kept.popitem(last=False)
        return self._kept[at]


def choose_packer(number: int) -> Callable[[bytes, int], bytes]:
    """From a block and the most it may unpack to, to its content. Raises Broken for one we do not have."""
    if number == 1:
        return _inflate_zlib
    if number == 4:
        return _inflate_xz
    if number == 5:
        return _inflate_lz4
    if number == 6:
        return _inflate_zstd
    names = {2: "lzma", 3: "lzo"}
    raise Broken(f"squashfs packed with {names.get(number, f'method {number}')}: unpack it and scan the files")


def _inflate_zlib(raw: bytes, most: int) -> bytes:
    return zlib.decompressobj().decompress(raw, most)


def _inflate_xz(raw: bytes, most: int) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES).decompress(raw, most)


def _inflate_zstd(raw: bytes, most: int) -> bytes:
    return zstandard.ZstdDecompressor(max_window_size=2 * _BLOCK_MAX_BYTES).decompress(raw, max_output_size=most)


def _inflate_lz4(raw: bytes, most: int) -> bytes:
    return bytes(lz4.block.decompress(raw, uncompressed_size=most))
