"""Writing to a disk that is full, read-only or cut off, and reading what a worn one gives back."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpagent.durable import Damaged, Disk
from mpagent.errors import StorageBroke, StorageFull
from mpagent.latch import Latch
from mpagent.shelf import DiskShelf

from .conftest import AS_ROOT, mounted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    with mounted(folder, "size=64k"):
        yield folder


def list_all(folder: Path) -> list[str]:
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())


def test_what_was_written_comes_back_and_is_the_owners_alone(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "state")
    disk.prepare()
    assert disk.read("a/b", 10) is None
    disk.write("a/b", b"first")
    disk.write("a/b", b"second")
    assert disk.read("a/b", 10) == b"second"
    assert list_all(disk.folder) == ["a/b"]
    assert [oct(one.stat().st_mode & 0o777) for one in (disk.folder, disk.folder / "a", disk.folder / "a/b")] == [
        "0o700",
        "0o700",
        "0o600",
    ]


def test_full_disk_keeps_the_former_content_and_nothing_else(small_disk: Path) -> None:
    disk = Disk(small_disk / "state")
    disk.write("record", b"before")
    with pytest.raises(StorageFull, match=r"cannot write .*/record: No space left.*free some space"):
        disk.write("record", bytes(100_000))
    assert disk.read("record", 100) == b"before"
    assert list_all(disk.folder) == ["record"]
    disk.write("record", b"after")  # the half-written file gave its room back
    assert disk.read("record", 100) == b"after"


def test_read_only_disk_says_so_and_stays_readable(small_disk: Path) -> None:
    disk = Disk(small_disk / "state")
    disk.write("record", b"before")
    subprocess.run([*AS_ROOT, "mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StorageFull, match=r"Read-only file system; mount it writable"):
        disk.write("record", b"after")
    with pytest.raises(StorageFull):
        disk.remove("record")
    assert disk.read("record", 100) == b"before"


def test_left_over_of_a_cut_write_is_removed_at_start(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.write("vault/gen-000001", b"whole")
    (tmp_path / "vault/.gen-000002.new").write_bytes(b"half")
    (tmp_path / ".record-a.new").write_bytes(b"half")
    assert disk.names("vault") == ("gen-000001",)
    disk.prepare()
    assert list_all(tmp_path) == ["vault/gen-000001"]


@pytest.mark.parametrize("place", range(37))
def test_any_flipped_bit_is_noticed(tmp_path: Path, place: int) -> None:
    disk = Disk(tmp_path)
    disk.write("record", b"hello")
    raw = bytearray((tmp_path / "record").read_bytes())
    raw[place] ^= 1
    (tmp_path / "record").write_bytes(raw)
    with pytest.raises(Damaged, match="checksum"):
        disk.read("record", 100)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 36])
def test_truncated_file_is_damaged_not_short(tmp_path: Path, size: int) -> None:
    disk = Disk(tmp_path)
    disk.write("record", b"hello")
    os.truncate(tmp_path / "record", size)
    with pytest.raises(Damaged):
        disk.read("record", 100)


def test_file_longer_than_its_bound_is_not_read_into_memory(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    with open(tmp_path / "record", "wb") as file:
        file.truncate(50_000_000_000)
    with pytest.raises(Damaged):
        disk.read("record", 100)


def test_link_or_pipe_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "state")
    disk.write("other", b"x")
    (tmp_path / "state/record").symlink_to(tmp_path / "state/other")
    with pytest.raises(StorageBroke):
        disk.read("record", 100)
    os.mkfifo(tmp_path / "state/pipe")
    with pytest.raises(Damaged):
        disk.read("pipe", 100)


def test_damaged_files_are_set_aside_one_beside_the_other(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    for number in (1, 2):
        disk.write("record", str(number).encode())
        assert disk.set_aside("record") == f"record.damaged-{number}"
    assert list_all(tmp_path) == ["record.damaged-1", "record.damaged-2"]


def test_latch_stays_and_its_damage_latches_too(tmp_path: Path) -> None:
    from mpagent.errors import Tampered

    latch = Latch(Disk(tmp_path))
    latch.check()
    latch.close(Tampered("first reason"))
    latch.close(Tampered("second reason"))
    with pytest.raises(Tampered, match="first reason"):
        latch.check()
    (tmp_path / "latch").write_bytes(b"")
    with pytest.raises(Tampered, match="the reason itself is damaged"):
        latch.check()


def test_damaged_device_key_is_never_replaced_in_silence(tmp_path: Path) -> None:
    """T: a new key in the place of a damaged one would be taken for a clone."""
    from mpagent.errors import Tampered

    shelf = DiskShelf(Disk(tmp_path))
    assert shelf.find("sign") is None
    shelf.put("sign", b"blob")
    assert shelf.find("sign") == b"blob"
    (tmp_path / "shelf/sign").write_bytes(b"garbage")
    with pytest.raises(Tampered, match="device key sign"):
        shelf.find("sign")
    assert list_all(tmp_path) == ["shelf/sign.damaged-1"]


def test_slot_names_cannot_leave_the_shelf(tmp_path: Path) -> None:
    shelf = DiskShelf(Disk(tmp_path / "state"))
    names = ["../../escape", "a/b", ".", "..", "ä", "x" * 64, "certificate-x y", ".hidden.new", "-", "x.2e"]
    for name in names:
        shelf.put(name, name.encode())
    assert [shelf.find(name) for name in names] == [name.encode() for name in names]
    assert len(list_all(tmp_path / "state/shelf")) == len(names)
    assert [one.name for one in tmp_path.iterdir()] == ["state"]


def test_large_file_has_no_name_before_it_is_whole(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.stage("files/a", iter([b"one", b"two"]))
    assert disk.names("files") == ()
    disk.publish("files/a")
    with disk.open("files/a") as file:
        assert file.read() == b"onetwo" and disk.names("files") == ("a",)
    disk.stage("files/a", iter([b"other"]))
    disk.unstage("files/a")
    disk.unstage("files/a")
    assert list_all(tmp_path) == ["files/a"]
    disk.stage("files/b", iter([b"left over"]))
    disk.prepare()
    assert list_all(tmp_path) == ["files/a"]


def test_large_file_whose_source_fails_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise Damaged("the source broke")

    with pytest.raises(Damaged):
        Disk(tmp_path).stage("files/a", chunks())
    assert list_all(tmp_path) == []


def test_large_file_that_does_not_fit_leaves_the_former_one(small_disk: Path) -> None:
    disk = Disk(small_disk / "state")
    disk.stage("files/a", iter([b"before"]))
    disk.publish("files/a")
    with pytest.raises(StorageFull):
        disk.stage("files/a", (bytes(10_000) for _ in range(100)))
    assert list_all(disk.folder) == ["files/a"]
    with disk.open("files/a") as file:
        assert file.read() == b"before"
    assert disk.measure_free() < 1_000_000


@pytest.mark.parametrize("strange", ["folder", "link", "pipe", "nothing"])
def test_what_is_no_large_file_is_damage_and_not_waited_for(tmp_path: Path, strange: str) -> None:
    disk, path = Disk(tmp_path), tmp_path / "files/a"
    path.parent.mkdir()
    if strange == "folder":
        path.mkdir()
    elif strange == "link":
        path.symlink_to("/etc/passwd")
    elif strange == "pipe":
        os.mkfifo(path)
    with pytest.raises((Damaged, StorageBroke)):
        disk.open("files/a")
