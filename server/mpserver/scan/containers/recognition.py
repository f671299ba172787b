"""Which reader a region wants, by its own bytes; and what we know by its bytes and have no reader for."""

from typing import Final, NamedTuple

from mpserver.scan.containers import archives, ext, fat, packed, partitions, squashfs, trees
from mpserver.scan.containers.member import Opener
from mpserver.scan.regions import Region

HEAD_BYTES: Final = 4_096
SMALLEST_BYTES: Final = 18
"""An empty gzip stream; what is shorter holds nothing else."""


class Reader(NamedTuple):
    """A reader, and what it reads."""

    form: str
    open: Opener


_BY_MAGIC: Final = (
    (b"hsqs", Reader("squashfs", squashfs.open_squashfs)),
    (trees.MAGIC, Reader("fdt", trees.open_tree)),
    (b"070701", Reader("cpio", archives.open_cpio)),
    (b"070702", Reader("cpio", archives.open_cpio)),
    (b"PK\x03\x04", Reader("zip", archives.open_zip)),
    (b"\x1f\x8b\x08", Reader("gz", packed.open_packed("gz"))),
    (b"\xfd7zXZ\x00", Reader("xz", packed.open_packed("xz"))),
    (b"\x28\xb5\x2f\xfd", Reader("zst", packed.open_packed("zst"))),
    (packed.LZ4_MAGIC, Reader("lz4", packed.open_packed("lz4"))),
    (packed.OLD_LZ4_MAGIC, Reader("lz4", packed.open_packed("lz4-old"))),
    (b"BZh", Reader("bz2", packed.open_packed("bz2"))),
)
_LZMA_HEAD: Final = b"\x5d\x00\x00"

SHUT: Final = (
    (0, b"LUKS\xba\xbe", "encrypted by LUKS"),
    (0, b"UBI#", "UBI volumes"),
    (0, b"\x31\x18\x10\x06", "UBIFS"),
    (0, b"\x85\x19", "JFFS2"),
    (0, b"\x45\x3d\xcd\x28", "cramfs"),
    (0, b"XFSB", "XFS"),
    (0, b"\x89LZO\x00\x0d\x0a\x1a\x0a", "packed with lzop"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"070707", "cpio in its old form"),
    (0, b"\x3a\xff\x26\xed", "an Android sparse image (simg2img makes a disk of it)"),
    (0, b"QFI\xfb", "a qcow2 disk (qemu-img makes a raw disk of it)"),
    (0, b"KDMV", "a VMDK disk (qemu-img makes a raw disk of it)"),
    (3, b"EXFAT   ", "exFAT"),
    (3, b"NTFS    ", "NTFS"),
    (512, b"LABELONE", "volumes of LVM"),
    (1024, b"\xe2\xe1\xf5\xe0", "EROFS"),
    (1024, b"\x10\x20\xf5\xf2", "F2FS"),
    (32_769, b"CD001", "an ISO 9660 image"),
    (65_600, b"_BHRfS_M", "Btrfs"),
)
"""Offset, magic, and what it is: its content may be packed or encrypted, so the raw bytes say too little."""
_JFFS2_NODES: Final = frozenset({b"\x01\xe0", b"\x02\xe0", b"\x03\x20"})


def recognise(region: Region) -> Reader | None:
    """None for what holds nothing, or nothing we know of."""
    if region.size < SMALLEST_BYTES:
        return None
    head = region.read(0, HEAD_BYTES)
    for magic, reader in _BY_MAGIC:
        if head.startswith(magic):
            return None if reader.form == "fdt" and trees.read_header(region) is None else reader
    if head.startswith(_LZMA_HEAD) and _is_lzma(head):
        return Reader("lzma", packed.open_packed("lzma"))
    return _recognise_disk(region, head)


def _recognise_disk(region: Region, head: bytes) -> Reader | None:
    if archives.is_tar(head):
        return Reader("tar", archives.open_tar)
    if ext.is_ext(region):
        return Reader("ext4", ext.open_ext)
    if fat.is_fat(head):
        return Reader("fat", fat.open_fat)
    if partitions.find_gpt(region) is not None:
        return Reader("gpt", partitions.open_gpt)
    if partitions.is_mbr(head):
        return Reader("mbr", partitions.open_mbr)
    return None


def _is_lzma(head: bytes) -> bool:
    """The header of lzma's first format has no magic: a dictionary of a power of two, a size that is not absurd."""
    dictionary, size = int.from_bytes(head[1:5], "little"), int.from_bytes(head[5:13], "little")
    return dictionary & (dictionary - 1) == 0 and dictionary >= 4096 and (size == 2**64 - 1 or size < 1 << 36)


def recognise_shut(region: Region) -> str | None:
    """What it is that we cannot read, in words."""
    for offset, magic, words in SHUT:
        if region.read(offset, len(magic)) == magic and not (
            words == "JFFS2" and region.read(2, 2) not in _JFFS2_NODES
        ):
            return words
    return None
