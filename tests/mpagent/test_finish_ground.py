"""Where a device really lies: kernels as they describe disks, partitions, mappings and mounts, in a folder."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from mpagent.errors import TargetRefused
from mpagent.finish.ground import Extent, Ground, check_target

from .finish_bench import MIB, do

STATE = Path("/dev/mmcblk0p3")


@dataclass
class Kernel:
    """Below `root`: /dev, /sys/dev/block and /proc, with one eMMC of 64 MiB."""

    root: Path

    def disk(self, name: str, number: str, mib: int) -> Path:
        folder = self.root / "sys/devices" / name
        self._device(folder, name, number, mib)
        return folder

    def partition(self, disk: str, name: str, number: str, start: int, mib: int) -> None:
        folder = self.root / "sys/devices" / disk / name
        self._device(folder, name, number, mib)
        (folder / "partition").write_text("1\n")
        (folder / "start").write_text(f"{start * MIB // 512}\n")

    def mapped(self, name: str, number: str, mib: int, *below: str) -> None:
        """Device mapper or RAID over others."""
        folder = self.disk(name, number, mib)
        for one in below:
            (folder / "slaves").mkdir(exist_ok=True)
            (folder / "slaves" / one.replace(":", "-")).symlink_to(self.root / "sys/dev/block" / one)

    def mounts(self, *lines: str) -> None:
        path = self.root / "proc/self/mountinfo"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))

    def check(self, target: str, size: int | None = MIB, state: Path = STATE) -> None:
        check_target(Ground(self.root), Path(target), size, state, self.root / "var/lib/mpagent")

    def _device(self, folder: Path, name: str, number: str, mib: int) -> None:
        folder.mkdir(parents=True)
        (folder / "dev").write_text(f"{number}\n")
        (folder / "size").write_text(f"{mib * MIB // 512}\n")
        link = self.root / "sys/dev/block" / number
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder)
        node = self.root / "dev" / name
        node.parent.mkdir(parents=True, exist_ok=True)
        do("mknod", node, "b", *number.split(":"))


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """p1 boot at 1, p2 root at 8, p3 state at 40 MiB."""
    made = Kernel(tmp_path)
    made.disk("mmcblk0", "179:0", 64)
    made.partition("mmcblk0", "mmcblk0p1", "179:1", 1, 7)
    made.partition("mmcblk0", "mmcblk0p2", "179:2", 8, 32)
    made.partition("mmcblk0", "mmcblk0p3", "179:3", 40, 8)
    (tmp_path / "var/lib/mpagent").mkdir(parents=True)
    number = (tmp_path / "var/lib/mpagent").stat().st_dev
    # This folder's own file system is taken for the state partition.
    link = tmp_path / "sys/dev/block" / f"{os.major(number)}:{os.minor(number)}"
    link.symlink_to(tmp_path / "sys/devices/mmcblk0/mmcblk0p3")
    made.mounts()
    return made


def test_a_partition_of_its_own_is_taken_and_any_range_that_meets_the_state_is_not(kernel: Kernel) -> None:
    """T-543 By partition, by the whole disk, and by the last byte."""
    kernel.check("/dev/mmcblk0p2", 32 * MIB)
    kernel.check("/dev/mmcblk0", 40 * MIB)
    for target, size in (("/dev/mmcblk0", 40 * MIB + 1), ("/dev/mmcblk0", None), ("/dev/mmcblk0p3", 1)):
        with pytest.raises(TargetRefused, match="overwrite the state partition"):
            kernel.check(target, size)
    with pytest.raises(TargetRefused, match="has 33554432 bytes and the image 33554433"):
        kernel.check("/dev/mmcblk0p2", 32 * MIB + 1)


def test_a_state_partition_under_a_mapping_is_found(kernel: Kernel) -> None:
    """T-543 The state on dm-crypt, the target a RAID or a mapping that reaches it."""
    kernel.mapped("dm-0", "253:0", 7, "179:3")
    kernel.check("/dev/mmcblk0p2", MIB, Path("/dev/dm-0"))
    kernel.mapped("dm-1", "253:1", 40, "179:2", "179:3")
    for target in ("/dev/mmcblk0p3", "/dev/dm-0", "/dev/dm-1"):
        with pytest.raises(TargetRefused, match="overwrite the state partition"):
            kernel.check(target, 1, Path("/dev/dm-0"))


def test_what_is_mounted_or_swapped_on_is_in_use_by_whatever_way(kernel: Kernel) -> None:
    """T-544 Directly, through a mapping, under a number of the file system's own, and as swap."""
    kernel.mapped("dm-0", "253:0", 31, "179:2")
    for line in ("9 1 179:2 / /old rw - ext4 /dev/x rw", "9 1 253:0 / /old rw,x shared:1 - ext4 /dev/mapper/a rw",
                 "9 1 0:44 /sub /old rw - btrfs /dev/mmcblk0p2 rw"):  # fmt: skip
        kernel.mounts("1 1 0:2 / /proc rw - proc proc rw", "2 1 0:3 / /n rw - nfs host:/x rw", line)
        with pytest.raises(TargetRefused, match="is in use: /old"):
            kernel.check("/dev/mmcblk0p2")
        kernel.check("/dev/mmcblk0p1")
    kernel.mounts("9 1 0:44 / /old rw - btrfs /dev/gone rw")
    (kernel.root / "proc/swaps").write_text("Filename Type\n/dev/mmcblk0p2 partition 1 0 -2\n/file file 1 0 -3\n")
    with pytest.raises(TargetRefused, match="is in use: swap on /dev/mmcblk0p2"):
        kernel.check("/dev/mmcblk0p2")


def test_a_kernel_that_does_not_tell_where_a_device_lies_is_not_guessed_at(kernel: Kernel) -> None:
    """T-543 No sysfs, a device that is gone, and mappings in a circle."""
    (kernel.root / "sys/dev/block/179:2").unlink()
    with pytest.raises(TargetRefused, match="does not tell where block device 179:2 lies"):
        kernel.check("/dev/mmcblk0p2")
    kernel.mapped("dm-3", "253:3", 1, "253:3")
    with pytest.raises(TargetRefused, match="does not tell"):
        kernel.check("/dev/dm-3")
    (kernel.root / "sys/devices/mmcblk0/mmcblk0p1/size").unlink()
    with pytest.raises(TargetRefused, match="No such file"):
        kernel.check("/dev/mmcblk0p1")
    with pytest.raises(TargetRefused, match="No such file"):
        kernel.check("/dev/mmcblk0p1", MIB, Path("/dev/mmcblk9"))


def test_extents_meet_where_they_share_a_byte() -> None:
    one = Extent("8:0", 10, 20)
    assert one.meets(Extent("8:0", 19, 30)) and one.meets(Extent("8:0", 0, 11)) and one.meets(Extent("8:0", 12, 13))
    assert not one.meets(Extent("8:0", 20, 30)) and not one.meets(Extent("8:0", 0, 10))
    assert not one.meets(Extent("8:16", 10, 20))
