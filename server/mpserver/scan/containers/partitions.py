"""Partition tables: GPT (UEFI 2.10 section 5.3) and MBR with logical partitions. Slices of the disk come out."""

from collections.abc import Iterator
from struct import unpack, unpack_from
from typing import Final

from mpserver.scan.budget import Budget
from mpserver.scan.containers.member import Broken, Covered, Member, read_exactly
from mpserver.scan.regions import Region, Slice

SECTOR_BYTES: Final = 512
SECTOR_SIZES: Final = (512, 4096)
GPT_MAGIC: Final = b"EFI PART"
_ENTRIES_MAX: Final = 1_024
_LOGICAL_MAX: Final = 128
_EXTENDED: Final = frozenset({0x05, 0x0F, 0x85})
_PROTECTIVE: Final = 0xEE


def find_gpt(region: Region) -> int | None:
    """Sector size of a disk with a GPT."""
    return next((size for size in SECTOR_SIZES if region.read(size, 8) == GPT_MAGIC), None)


def open_gpt(region: Region, budget: Budget) -> Iterator[Member | Covered]:
    """Partitions by number, p1 first."""
    sector = find_gpt(region)
    if sector is None:
        raise Broken("it has no GPT")
    header = read_exactly(region, sector, 92)
    first, count, size = unpack_from("<QII", header, 72)
    if size < 128 or size > 4096 or count > _ENTRIES_MAX:
        raise Broken(f"its GPT tells of {count} entries of {size} bytes")
    for number in range(count):
        budget.enter()
        entry = read_exactly(region, first * sector + number * size, 128)
        start, end = unpack_from("<QQ", entry, 32)
        if not any(entry[:16]):
            continue
        yield from _give(region, f"p{number + 1}", start * sector, (end - start + 1) * sector)


def _give(region: Region, name: str, start: int, size: int) -> Iterator[Member]:
    if size <= 0 or start >= region.size:
        yield Member(name, reason="the partition lies beyond the end of the image")
        return
    if start + size > region.size:
        yield Member(name, reason="the image ends within this partition")
    yield Member(name, Slice(region, start, size))


def is_mbr(head: bytes) -> bool:
    """A boot sector whose table makes sense; that of a file system looks the same up to the last two bytes."""
    if len(head) < SECTOR_BYTES or head[510:512] != b"\x55\xaa":
        return False
    entries = [head[at : at + 16] for at in range(446, 510, 16)]
    used = [one for one in entries if one[4]]
    return bool(used) and all(one[0] in (0, 0x80) and any(one[8:16]) for one in used)


def open_mbr(region: Region, budget: Budget) -> Iterator[Member | Covered]:
    """Primary partitions p1 to p4, logical ones from p5 on."""
    head = read_exactly(region, 0, SECTOR_BYTES)
    logical: list[tuple[int, int]] = []
    for number in range(4):
        kind, start, size = _read_entry(head, number)
        if kind == _PROTECTIVE:
            yield Member("", reason="its partition table says that a GPT follows, and none does")
        if kind in _EXTENDED:
            logical += _read_logical(region, start, budget)
        elif kind not in (0, _PROTECTIVE):
            yield from _give(region, f"p{number + 1}", start * SECTOR_BYTES, size * SECTOR_BYTES)
    for number, (start, size) in enumerate(logical, 5):
        yield from _give(region, f"p{number}", start * SECTOR_BYTES, size * SECTOR_BYTES)


def _read_entry(sector: bytes, number: int) -> tuple[int, int, int]:
    start, size = unpack("<II", sector[446 + 16 * number + 8 : 446 + 16 * number + 16])
    return sector[446 + 16 * number + 4], start, size


def _read_logical(region: Region, extended: int, budget: Budget) -> list[tuple[int, int]]:
    """Start and size in sectors. Raises Broken for a chain that bites its tail."""
    found: list[tuple[int, int]] = []
    at = extended
    for _ in range(_LOGICAL_MAX):
        budget.enter()
        sector = region.read(at * SECTOR_BYTES, SECTOR_BYTES)
        if len(sector) < SECTOR_BYTES or sector[510:512] != b"\x55\xaa":
            return found
        kind, start, size = _read_entry(sector, 0)
        if kind:
            found.append((at + start, size))
        kind, start, _ = _read_entry(sector, 1)
        if kind not in _EXTENDED:
            return found
        at = extended + start
    raise Broken(f"its extended partition has more than {_LOGICAL_MAX} links")
