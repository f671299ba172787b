"""The readers of mpserver.scan: bytes in, findings out, nothing raised and nothing printed that a terminal obeys."""

import tempfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Final

from mpserver.scan.budget import Budget
from mpserver.scan.findings import Kind, Notebook
from mpserver.scan.regions import Memory
from mpserver.scan.walk import Walk
from tests.fuzz.decoders import Door
from tests.fuzz.mutation import mutate_bytes
from tests.mpserver.consoles import OTHER, sign
from tests.mpserver.plants import FOLDERS, FORMS, SOUGHT, STREAMS, evidence, make_tree, run

SECONDS: Final = 4.0
HEAD_BYTES: Final = 4_096
"""Where containers keep their tables; half of the changes are made there."""
SMALL: Final = ("cpio", "dtb", "fit", "fit-external", "squashfs-gzip", "squashfs-xz", "squashfs-zstd", "tar", "zip")


def feed(raw: bytes) -> None:
    """The whole walk."""
    notes = Notebook()
    Walk((SOUGHT,), Budget(SECONDS), notes).look(Memory(0, raw), "x")
    for one in notes.findings:
        assert one.path.isprintable() and one.offset >= 0 and one.said, one
        assert one.kind == Kind.UNSEEN or one.offset <= max(len(raw), 1 << 30), one


def mutate_image(raw: bytes, random: Random) -> bytes:
    """Somewhere, or among the tables at the start and at the superblock."""
    if random.randrange(2) or len(raw) < HEAD_BYTES:
        return mutate_bytes(raw, random)
    return mutate_bytes(raw[:HEAD_BYTES], random).ljust(HEAD_BYTES, b"\0") + raw[HEAD_BYTES:]


@cache
def image_doors() -> dict[str, Door]:
    """One for each container and for each form with a structure."""
    files = {"a/key": FORMS["raw"], "b.pem": FORMS["pem"], "c": b"text\n" * 900}
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = make_tree(Path(folder) / "tree", files)
        for kind in SMALL:
            FOLDERS[kind](tree, Path(folder) / kind)
            made[kind] = (Path(folder) / kind).read_bytes()
        run("mke2fs", "-q", "-t", "ext4", "-b", "1024", "-O", "^has_journal,inline_data", "-d", tree,
            Path(folder) / "ext4", "128k")  # fmt: skip
        run("mke2fs", "-q", "-t", "ext2", "-b", "1024", "-d", tree, Path(folder) / "ext2", "128k")
        run("mkfs.vfat", "-C", Path(folder) / "fat", "64")
        run("mcopy", "-s", "-i", Path(folder) / "fat", *sorted(tree.iterdir()), "::/")
        made |= {kind: (Path(folder) / kind).read_bytes() for kind in ("ext4", "ext2", "fat")}
    made |= {kind: pack(FORMS["hex"] * 3) for kind, pack in STREAMS.items()}
    made |= {"evidence": evidence(OTHER, bytes(32)), "log": sign().encode(), "dump": FORMS["md.b-split-line"]}
    made |= {"gpt": _make_table("gpt"), "mbr": _make_table("dos")}
    return {name: Door(feed, raw, mutate_image) for name, raw in made.items()}


def _make_table(label: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder) / "disk"
        run("truncate", "-s", "128K", disk)
        run("sfdisk", "--quiet", disk, told=f"label: {label}\nstart=64, size=64\n".encode())
        return disk.read_bytes()[: 64 * 512] + FORMS["raw"].ljust(512, b"\0") + disk.read_bytes()[65 * 512 :]


IMAGES: Final = {"scan": image_doors}
