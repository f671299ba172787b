"""A board whose disk has room for a production image, the image itself, and the firmware that chooses what boots.

The disk lies as on an eMMC: two boot containers, the state partition, the production root. The provisioning root is a
disk of its own. QEMU starts a kernel directly, so the harness plays boot ROM and boot loader, by
what stands on the disk and nothing else: never by what a test hopes for.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from tests.qemu import cache
from tests.qemu.base import _as_root as as_root
from tests.qemu.board import STATE_BYTES, Board, format_state, write_site
from tests.qemu.guest import GuestBroke
from tests.qemu.installed import find_installed

MIB: Final = 1 << 20
SECTOR: Final = 512
CONTAINER_BYTES: Final = 2 * MIB
ROOM_BYTES: Final = 256 * MIB
"""For the production root."""
_IVT: Final = b"\xd1\x00\x20\x41"
"""The first word of an i.MX8M boot image, its header: what a boot ROM looks for."""
_PARTITIONS: Final = (CONTAINER_BYTES, CONTAINER_BYTES, STATE_BYTES, ROOM_BYTES)
"""p1 the provisioning build's container, p2 the production's, p3 state, p4 the production root; from 1 MiB on."""
_SUPERBLOCK: Final = 1024
_EXT4_MAGIC: Final = (_SUPERBLOCK + 56, b"\x53\xef")
_LEFT_OUT: Final = (
    *("boot", "var/cache", "var/lib/apt", "var/log", "var/lib/dpkg/info", "usr/share/perl*", "usr/share/zoneinfo"),
    *("usr/share/bash-completion", "usr/lib/*/perl*", "usr/lib/*/gconv", "usr/bin/*perl*", "usr/lib/udev/hwdb*"),
    *("usr/lib/python3.*/test", "usr/lib/python3.*/pydoc_data", "usr/lib/python3/dist-packages/*pytest*"),
)
"""What a production image of this board does without; the image is sent through an emulated machine."""


def make_container(name: str) -> bytes:
    """A stand-in of one build's boot container: the header, and bytes that a ROM's signature check would cover."""
    return _IVT + random.Random(name).randbytes(1_400_000)


PROVISIONING, PRODUCTION = make_container("provisioning"), make_container("production")


def describe_containers() -> str:
    """Keys of [finish]: which one goes, and which one has to be there."""
    new = f'boot_new_bytes = {len(PRODUCTION)}\nboot_new_digest = "{sha256(PRODUCTION).hexdigest()}"\n'
    return f'boot_old = "/dev/vdb1"\nboot_new = "/dev/vdb2"\n{new}'


class ProductionBoard(Board):
    """`state` is the whole disk with its four partitions."""

    has_containers = True
    """Without: the boot loader of both builds is one, and boots the production root as soon as there is one."""

    def make_state(self) -> None:
        """The factory's disk: both containers, no production root yet, an empty state partition."""
        format_state(self.state)
        inside = self.state.read_bytes()
        with self.state.open("wb") as disk:
            disk.write(_write_table())
            for number, content in ((1, PROVISIONING), (2, PRODUCTION), (3, inside)):
                disk.seek(find_start(number))
                disk.write(content)
            disk.truncate(find_start(len(_PARTITIONS) + 1))

    def read(self, number: int, size: int | None = None) -> bytes:
        """Bytes of a partition, from 1 on."""
        with self.state.open("rb") as disk:
            disk.seek(find_start(number))
            return disk.read(_PARTITIONS[number - 1] if size is None else size)

    def root_device(self) -> str:
        """What the firmware boots: by the first boot container that is whole, or by a superblock."""
        if not self.has_containers:
            place, magic = _EXT4_MAGIC
            return "/dev/vdb4" if self.read(4, place + len(magic))[place:] == magic else "/dev/vda"
        if self.read(1, len(PROVISIONING)) == PROVISIONING:
            return "/dev/vda"
        if self.read(2, len(PRODUCTION)) == PRODUCTION:
            return "/dev/vdb4"
        raise GuestBroke("no boot container is whole: this board would not start any more")


class PlainBoard(ProductionBoard):
    """One whose boot loader is no secret: the provisioning build's container stays."""

    has_containers = False


def find_start(number: int) -> int:
    """First byte of a partition, from 1 on."""
    return MIB + sum(_PARTITIONS[: number - 1])


def _write_table() -> bytes:
    """A master boot record with four entries of type Linux, addressed by sector."""
    entries = b""
    for number, size in enumerate(_PARTITIONS, 1):
        place = (find_start(number) // SECTOR).to_bytes(4, "little") + (size // SECTOR).to_bytes(4, "little")
        entries += b"\x00" + bytes(3) + b"\x83" + bytes(3) + place
    return bytes(440) + b"MPAG" + bytes(2) + entries + b"\x55\xaa"


def flash_production(disk: Path, anchors: str, files: Mapping[str, str]) -> Path:
    """A production image: the root of a production build with the site's files and no finisher of its own."""
    subprocess.run(["cp", "--sparse=always", str(find_root()), str(disk)], check=True)
    write_site(disk, anchors, files)
    return disk


def find_root() -> Path:
    """The installed disk without what a production image does not need, as small as it gets. Half a minute."""
    installed = find_installed()
    key = cache.key_of(installed.parent.name, Path(__file__))
    return cache.find_or_build("production", key, lambda folder: _build(folder, installed)) / "production.raw"


def _build(folder: Path, installed: Path) -> None:
    tree = folder / "tree"
    tree.mkdir()
    script = f"""
    cd {tree}
    debugfs -R 'rdump / {tree}' {installed} 2>/dev/null
    rm -rf lost+found {" ".join(_LEFT_OUT)}
    size=$(du -sm . | cut -f1)
    files=$(find . | wc -l)
    size=$((size * 11 / 10 + 16))M
    mke2fs -q -t ext4 -m 0 -J size=4 -N $((files * 5 / 4)) -d . -F ../production.raw $size >../log 2>&1
    cd ..
    rm -rf tree
    chown {os.getuid()} production.raw log
    """
    done = subprocess.run(
        [*as_root(), "sh", "-ec", script], env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        shutil.rmtree(tree, ignore_errors=True)
        raise RuntimeError(f"the production root cannot be made:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    if (size := (folder / "production.raw").stat().st_size) > ROOM_BYTES:
        raise RuntimeError(f"the production root has {size} bytes, and its partition {ROOM_BYTES}")
