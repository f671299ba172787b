"""FAT12, FAT16 and FAT32 with long names (Microsoft's FAT specification). Files come out as pieces of the disk."""

from collections.abc import Iterator
from struct import unpack_from
from typing import Final, NamedTuple

from mpserver.scan.budget import Budget
from mpserver.scan.containers.member import Broken, Covered, Member, read_exactly, show_name
from mpserver.scan.regions import Extent, Pieces, Region

_WINDOW_BYTES: Final = 65_536
_VOLUME_LABEL: Final = 0x08
_FOLDER: Final = 0x10
_LONG_NAME: Final = 0x0F
_FAT12_CLUSTERS: Final = 4_085
_FAT16_CLUSTERS: Final = 65_525


class Layout(NamedTuple):
    """Offsets in bytes."""

    cluster: int
    fat: int
    fat_size: int
    root: int
    root_size: int
    data: int
    clusters: int
    root_cluster: int
    bits: int


def is_fat(head: bytes) -> bool:
    """A boot sector with parameters that make sense."""
    if len(head) < 512 or head[510:512] != b"\x55\xaa" or head[0] not in (0xEB, 0xE9):
        return False
    sector, per_cluster, reserved, fats = unpack_from("<HBHB", head, 11)
    return (
        sector in (512, 1024, 2048, 4096)
        and per_cluster in (1, 2, 4, 8, 16, 32, 64, 128)
        and reserved > 0
        and fats in (1, 2)
        and head[3:11] not in (b"EXFAT   ", b"NTFS    ")
    )


def read_layout(head: bytes) -> Layout:
    """Raises Broken for numbers that contradict each other."""
    sector, per_cluster, reserved, fats, entries, total16, _, size16 = unpack_from("<HBHBHHBH", head, 11)
    total32, size32 = unpack_from("<II", head, 32)
    (root_cluster,) = unpack_from("<I", head, 44)
    total, fat_sectors = total16 or total32, size16 or size32
    root = reserved + fats * fat_sectors
    root_sectors = -(-entries * 32 // sector)
    data = root + root_sectors
    if not fat_sectors or data >= total:
        raise Broken("its FAT leaves no room for files")
    clusters = (total - data) // per_cluster
    bits = 12 if clusters < _FAT12_CLUSTERS else 16 if clusters < _FAT16_CLUSTERS else 32
    return Layout(
        per_cluster * sector, reserved * sector, fat_sectors * sector, root * sector, root_sectors * sector,
        data * sector, clusters, root_cluster if bits == 32 else 0, bits,
    )  # fmt: skip


class _Table:
    """The first FAT, read in windows."""

    def __init__(self, region: Region, layout: Layout) -> None:
        self._region, self._layout = region, layout
        self._at, self._window = -1, b""

    def follow(self, cluster: int, most: int, budget: Budget) -> Iterator[int]:
        """Clusters of a chain, `most` at the utmost. Raises Broken where it leaves the disk."""
        for _ in range(most):
            if not 2 <= cluster < self._layout.clusters + 2:
                return
            budget.enter()
            yield cluster
            cluster = self._next(cluster)

    def _next(self, cluster: int) -> int:
        bits = self._layout.bits
        if bits == 12:
            pair = int.from_bytes(self._read(cluster * 3 // 2, 2), "little")
            value = pair >> 4 if cluster & 1 else pair & 0xFFF
            return value if value < 0xFF0 else 0
        if bits == 16:
            value = int.from_bytes(self._read(cluster * 2, 2), "little")
            return value if value < 0xFFF0 else 0
        value = int.from_bytes(self._read(cluster * 4, 4), "little") & 0x0FFFFFFF
        return value if value < 0x0FFFFFF0 else 0

    def _read(self, offset: int, length: int) -> bytes:
        if not (self._at >= 0 and self._at <= offset and offset + length <= self._at + len(self._window)):
            self._at = offset // 512 * 512
            self._window = self._region.read(self._layout.fat + self._at, _WINDOW_BYTES)
        inside = offset - self._at
        return self._window[inside : inside + length]


def open_fat(region: Region, budget: Budget) -> Iterator[Member | Covered]:
    """Every file that is not deleted."""
    layout = read_layout(read_exactly(region, 0, 512))
    table = _Table(region, layout)
    root: Region = Pieces(region, [Extent(layout.root, layout.root_size)])
    if layout.bits == 32:
        root = _assemble(region, layout, table.follow(layout.root_cluster, layout.clusters, budget))
    folders: list[tuple[str, Region]] = [("", root)]
    seen = bytearray(layout.clusters // 8 + 1)
    while folders:
        path, folder = folders.pop()
        for name, is_folder, first, size in _list(folder, budget):
            where = f"{path}/{name}"
            if not is_folder:
                most = -(-size // layout.cluster)
                body = _assemble(region, layout, table.follow(first, most, budget), size)
                if body.size < size:
                    yield Member(where, reason="its chain of clusters ends before the file does")
                yield Member(where, body)
            elif 2 <= first < layout.clusters + 2 and not seen[first // 8] >> first % 8 & 1:
                seen[first // 8] |= 1 << first % 8
                folders.append((where, _assemble(region, layout, table.follow(first, layout.clusters, budget))))


def _assemble(region: Region, layout: Layout, clusters: Iterator[int], size: int | None = None) -> Pieces:
    extents: list[Extent] = []
    left = size
    for one in clusters:
        length = layout.cluster if left is None else min(left, layout.cluster)
        start = layout.data + (one - 2) * layout.cluster
        last = extents[-1] if extents else None
        if last is not None and last.start is not None and last.start + last.size == start:
            extents[-1] = Extent(last.start, last.size + length)
        else:
            extents.append(Extent(start, length))
        left = None if left is None else left - length
    return Pieces(region, extents)


def _list(folder: Region, budget: Budget) -> Iterator[tuple[str, bool, int, int]]:
    """Name, whether a folder, first cluster, size."""
    long_name: list[bytes] = []
    for at in range(0, folder.size, 32):
        entry = folder.read(at, 32)
        if len(entry) < 32 or entry[0] == 0:
            return
        budget.enter()
        flags = entry[11]
        if entry[0] == 0xE5:
            long_name.clear()
        elif flags & 0x3F == _LONG_NAME:
            long_name = [entry[1:11] + entry[14:26] + entry[28:32], *long_name][:20]
        elif flags & _VOLUME_LABEL:
            long_name.clear()
        else:
            name = _join_name(entry, long_name)
            long_name.clear()
            if name not in (".", ".."):
                high, low = unpack_from("<H", entry, 20)[0], unpack_from("<H", entry, 26)[0]
                yield name, bool(flags & _FOLDER), high << 16 | low, unpack_from("<I", entry, 28)[0]


def _join_name(entry: bytes, long_name: list[bytes]) -> str:
    if long_name:
        text = b"".join(long_name).decode("utf-16-le", "backslashreplace").split("\0")[0]
        return show_name(text.encode("utf-8", "backslashreplace"))
    base, extension = entry[:8].rstrip(), entry[8:11].rstrip()
    return show_name((base + (b"." + extension if extension else b"")).lower())
