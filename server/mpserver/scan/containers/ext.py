"""ext2, ext3 and ext4 (Linux Documentation/filesystems/ext4). Files come out as pieces of the disk.

Only what a folder leads to; deleted files lie between and are looked at as the raw medium.
"""

from collections.abc import Iterator
from struct import unpack_from
from typing import Final, NamedTuple

from mpserver.scan.budget import Budget
from mpserver.scan.containers.member import Broken, Covered, Member, read_exactly, show_name
from mpserver.scan.regions import Extent, Pieces, Region

SUPERBLOCK: Final = 1024
MAGIC: Final = b"\x53\xef"
_ROOT: Final = 2
_INODES_MAX: Final = 1 << 27
_EXTENTS_MAX: Final = 500_000
"""Of one file; a 30 GiB file in runs of 64 KiB has as many."""
_TREE_DEPTH_MAX: Final = 5
_META_BG: Final = 0x10
_JOURNAL_DEVICE: Final = 0x8
_64BIT: Final = 0x80
_FLAG_ENCRYPTED: Final = 0x800
_FLAG_EXTENTS: Final = 0x80000
_FLAG_INLINE: Final = 0x10000000
_FOLDER: Final = 0x4000
_FILE: Final = 0x8000
_UNWRITTEN: Final = 32_768
_NAME_BYTES: Final = 128
"""Of an inode in revision 0; what newer ones add stands behind."""


class _Inode(NamedTuple):
    offset: int
    kind: int
    size: int
    flags: int
    block: bytes
    extra: int


def is_ext(region: Region) -> bool:
    """Whether the superblock is there."""
    return region.read(SUPERBLOCK + 56, 2) == MAGIC


def open_ext(region: Region, budget: Budget) -> Iterator[Member | Covered]:
    """Every file once, by the first name that leads to it."""
    volume = _Volume(region, budget)
    seen = bytearray(volume.inodes // 8 + 1)
    folders: list[tuple[str, int]] = [("", _ROOT)]
    while folders:
        path, number = folders.pop()
        for name, inside in volume.read_folder(volume.read_inode(number)):
            if seen[inside // 8] >> inside % 8 & 1:
                continue
            seen[inside // 8] |= 1 << inside % 8
            inode = volume.read_inode(inside)
            where = f"{path}/{name}"
            if inode.flags & _FLAG_ENCRYPTED and inode.kind in (_FILE, _FOLDER):
                yield Member(where, reason="encrypted by the file system")
            elif inode.kind == _FOLDER:
                folders.append((where, inside))
            elif inode.kind == _FILE and inode.size:
                yield volume.give(where, inode)


class _Volume:
    """One file system. Its verbs raise Broken and struct.error."""

    def __init__(self, region: Region, budget: Budget) -> None:
        self._region, self._budget = region, budget
        super_ = read_exactly(region, SUPERBLOCK, 1024)
        self.inodes, blocks = unpack_from("<II", super_, 0)
        self._first_block, log_block = unpack_from("<II", super_, 20)
        (self._group_inodes,) = unpack_from("<I", super_, 40)
        (revision,) = unpack_from("<I", super_, 76)
        self._inode_bytes = unpack_from("<H", super_, 88)[0] if revision else _NAME_BYTES
        (features,) = unpack_from("<I", super_, 96)
        if log_block > 6 or not self._group_inodes or not _NAME_BYTES <= self._inode_bytes <= 4096:
            raise Broken("its superblock makes no sense")
        if self.inodes > _INODES_MAX:
            raise Broken(f"it has {self.inodes} inodes")
        if features & (_META_BG | _JOURNAL_DEVICE):
            raise Broken("an ext4 with meta_bg, or a journal alone: mount it read-only and scan a tar of it")
        self.block_bytes = 1024 << log_block
        size = unpack_from("<H", super_, 254)[0] if features & _64BIT else 32
        self._group_bytes = size if size >= 32 else 32
        self._high = bool(features & _64BIT) and size >= 64
        del blocks

    def read_inode(self, number: int) -> _Inode:
        """By its number, from 1."""
        if not 1 <= number <= self.inodes:
            raise Broken(f"a folder leads to inode {number} of {self.inodes}")
        self._budget.enter()
        group, index = divmod(number - 1, self._group_inodes)
        at = (self._first_block + 1) * self.block_bytes + group * self._group_bytes
        descriptor = read_exactly(self._region, at, self._group_bytes)
        (table,) = unpack_from("<I", descriptor, 8)
        if self._high:
            table |= unpack_from("<I", descriptor, 0x28)[0] << 32
        offset = table * self.block_bytes + index * self._inode_bytes
        raw = read_exactly(self._region, offset, self._inode_bytes)
        (mode,), (low,), (flags,) = unpack_from("<H", raw, 0), unpack_from("<I", raw, 4), unpack_from("<I", raw, 32)
        kind = mode & 0xF000
        high = unpack_from("<I", raw, 108)[0] if kind in (_FILE, _FOLDER) else 0
        extra = unpack_from("<H", raw, 128)[0] if len(raw) >= 130 else 0
        return _Inode(offset, kind, high << 32 | low, flags, raw[40:100], extra)

    def give(self, name: str, inode: _Inode) -> Member:
        """A file, or why it cannot be read."""
        try:
            return Member(name, self._assemble(inode))
        except Broken as error:
            return Member(name, reason=str(error))

    def read_folder(self, inode: _Inode) -> Iterator[tuple[str, int]]:
        """Name and inode of each entry, in the order of the folder's blocks."""
        if inode.kind != _FOLDER:
            raise Broken("what ought to be a folder is none")
        body = self._assemble(inode)
        inline = bool(inode.flags & _FLAG_INLINE)
        step = body.size if inline else self.block_bytes
        for start in range(0, body.size, step or 1):
            yield from self._list_block(body.read(start, step), 4 if inline else 0)

    def _list_block(self, block: bytes, at: int) -> Iterator[tuple[str, int]]:
        while at + 8 <= len(block):
            number, length, name_bytes = unpack_from("<IHB", block, at)
            if length < 8:
                return
            self._budget.enter()
            name = block[at + 8 : at + 8 + name_bytes]
            if number and name not in (b".", b"..", b"") and number <= self.inodes:
                yield show_name(name), number
            at += length

    def _assemble(self, inode: _Inode) -> Pieces:
        if inode.flags & _FLAG_INLINE:
            extents = self._find_inline(inode)
        elif inode.flags & _FLAG_EXTENTS:
            extents = self._arrange(self._walk_extents(inode.block, _TREE_DEPTH_MAX), inode.size)
        else:
            extents = self._arrange(self._walk_blocks(inode), inode.size)
        return Pieces(self._region, extents)

    def _find_inline(self, inode: _Inode) -> list[Extent]:
        """60 bytes in the inode, the rest in its attribute system.data."""
        found = [Extent(inode.offset + 40, min(60, inode.size))]
        raw = self._region.read(inode.offset, self._inode_bytes)
        start = _NAME_BYTES + inode.extra
        if raw[start : start + 4] != b"\x00\x00\x02\xea":
            return found
        at = start + 4
        while at + 16 <= len(raw) and any(raw[at : at + 4]):
            length, index, offset = unpack_from("<BBH", raw, at)
            (size,) = unpack_from("<I", raw, at + 8)
            if index == 7 and raw[at + 16 : at + 16 + length] == b"data":
                found.append(Extent(inode.offset + start + 4 + offset, min(size, max(0, inode.size - 60))))
            at += 16 + (length + 3) // 4 * 4
        return found

    def _arrange(self, runs: Iterator[tuple[int, int, int | None]], size: int) -> list[Extent]:
        """Runs in the file's order with holes between, cut at its size; blocks become bytes."""
        ordered = []
        for one in runs:
            ordered.append(one)
            if len(ordered) > _EXTENTS_MAX:
                raise Broken(f"it lies in more than {_EXTENTS_MAX} pieces")
        ordered.sort(key=lambda one: one[0])
        extents: list[Extent] = []
        at = 0
        for logical, count, start in ordered:
            begin = logical * self.block_bytes
            if begin >= size:
                break
            if begin > at:
                extents.append(Extent(None, begin - at))
            length = min(count * self.block_bytes, size - begin)
            extents.append(Extent(None if start is None else start * self.block_bytes, length))
            at = max(at, begin + length)
        if at < size:
            extents.append(Extent(None, size - at))
        return extents

    def _walk_extents(self, node: bytes, depth_left: int) -> Iterator[tuple[int, int, int | None]]:
        """Logical block, count, first block; None for a run that was never written."""
        magic, count, _, depth = unpack_from("<HHHH", node, 0)
        if magic != 0xF30A or depth > depth_left or 12 + count * 12 > len(node):
            raise Broken("its tree of extents is damaged")
        for at in range(12, 12 + count * 12, 12):
            self._budget.enter()
            if depth == 0:
                logical, length, high, low = unpack_from("<IHHI", node, at)
                if length > _UNWRITTEN:
                    yield logical, length - _UNWRITTEN, None
                else:
                    yield logical, length, high << 32 | low
            else:
                _, low, high = unpack_from("<IIH", node, at)
                below = read_exactly(self._region, (high << 32 | low) * self.block_bytes, self.block_bytes)
                yield from self._walk_extents(below, depth - 1)

    def _walk_blocks(self, inode: _Inode) -> Iterator[tuple[int, int, int | None]]:
        """Block numbers as ext2 keeps them: twelve in the inode, then one, two and three levels of lists."""
        last = -(-inode.size // self.block_bytes)
        numbers = unpack_from("<15I", inode.block, 0)
        for logical, number in enumerate(numbers[:12]):
            if number and logical < last:
                yield logical, 1, number
        at, reach = 12, self.block_bytes // 4
        for level, number in enumerate(numbers[12:], 1):
            if at < last and number:
                yield from self._walk_list(number, level, at, last)
            at += reach**level

    def _walk_list(self, number: int, level: int, at: int, last: int) -> Iterator[tuple[int, int, int | None]]:
        reach = self.block_bytes // 4
        raw = read_exactly(self._region, number * self.block_bytes, self.block_bytes)
        for one in unpack_from(f"<{reach}I", raw, 0):
            if at >= last:
                return
            self._budget.enter()
            if one and level == 1:
                yield at, 1, one
            elif one:
                yield from self._walk_list(one, level - 1, at, last)
            at += reach ** (level - 1)
