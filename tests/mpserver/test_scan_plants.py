"""mpserver.scan: a planted key is found in every spelling and container, with the path that leads to it."""

import gzip
import lzma
import os
from pathlib import Path

import pytest
import zstandard

from mpserver.scan.findings import Kind, Severity
from tests.mpserver.plants import (
    FOLDERS,
    FORMS,
    KEY,
    SOUGHT,
    STREAMS,
    make_cpio,
    make_disk,
    make_fat,
    make_fit,
    make_tar,
    make_tree,
    noise,
    paths,
    run,
    walk,
    walk_bytes,
)

CLEAN = {"readme.txt": b"nothing to see here\n" * 40, "noise.bin": noise(9_000, 3)}


def all_forms() -> dict[str, bytes]:
    return {
        f"f-{number:02d}.bin": noise(37, number) + b"\n" + body + b"\n" for number, body in enumerate(FORMS.values())
    }


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_found_in_each_spelling_on_a_raw_medium(form: str) -> None:
    """T-620 Leaked key: somebody left the MP public key in the image, spelled in a way of his own."""
    at = 1_234_567
    found = walk_bytes(noise(at) + b"\n" + FORMS[form] + b"\n" + noise(300_000, 1))
    assert {(one.kind, one.severity, one.path) for one in found} == {(Kind.MP_KEY, Severity.LEAK, "x")}
    assert all(at < one.offset <= at + len(FORMS[form]) for one in found)
    assert not any(KEY[at : at + 4].hex() in str(one) for one in found for at in range(0, 64, 4))


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_key_is_found_in_each_container_in_each_spelling(kind: str, tmp_path: Path) -> None:
    """T-621 Hidden key: it lies in a file of a file system, an archive or a FIT."""
    plants = all_forms()
    tree = make_tree(tmp_path / "tree", {**CLEAN, **plants})
    FOLDERS[kind](tree, tmp_path / "image")
    found = walk(tmp_path / "image")
    assert {one.kind for one in found} == {Kind.MP_KEY}
    # What a packer left as it is shows in the packed bytes, too.
    told = {one for one in paths(found, Kind.MP_KEY) if "!" in one}
    names = {one.rsplit("!", 1)[1].rsplit("/", 1)[-1].removesuffix(".bin").removesuffix("-bin") for one in told}
    assert names == {one.removesuffix(".bin") for one in plants}, told


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_clean_container_is_clean(kind: str, tmp_path: Path) -> None:
    FOLDERS[kind](make_tree(tmp_path / "tree", CLEAN), tmp_path / "image")
    assert walk(tmp_path / "image") == []


@pytest.mark.parametrize("kind", STREAMS)
def test_a_key_is_found_in_each_packed_stream(kind: str) -> None:
    body = noise(100_000) + b"\n" + b"\n".join(FORMS.values()) + noise(5_000, 2)
    found = walk_bytes(STREAMS[kind](body))
    inner = [one for one in found if one.path != "x"]  # zstd and lz4 leave what they cannot shorten as it is
    assert {(one.kind, one.path) for one in inner} == {(Kind.MP_KEY, f"x!{kind.partition('-')[0]}")}
    assert len({one.form for one in inner}) > 10
    assert walk_bytes(STREAMS[kind](noise(100_000))) == []


def test_a_key_at_each_place_around_the_edge_of_a_window_is_found() -> None:
    """T-622 Cut in two: a window of the scanner ends in the middle of the key."""
    for form in ("raw", "c-lines", "base64-1", "md.b-split-line"):
        body = FORMS[form]
        for cut in range(0, len(body) + 1, 5):
            assert walk_bytes(noise(1024 * 1024 - 1 - cut) + b"\n" + body + noise(500, 1)), (form, cut)


def test_a_deleted_file_is_still_found_on_the_medium(tmp_path: Path) -> None:
    """T-623 Deleted, not gone: the file was removed before the image was taken, its blocks were not."""
    image = tmp_path / "image"
    tree = make_tree(tmp_path / "tree", {**CLEAN, "etc/key": KEY, "etc/key.gz": gzip.compress(noise(5_000) + KEY)})
    FOLDERS["ext4"](tree, image)
    run("debugfs", "-w", "-R", "rm /etc/key", image)
    run("debugfs", "-w", "-R", "rm /etc/key.gz", image)
    raw, packed = sorted(paths(walk(image), Kind.MP_KEY))
    assert raw == "image" and packed.startswith("image!@0x") and packed.endswith("!gz")


def test_a_key_across_two_fragments_of_a_file_is_found(tmp_path: Path) -> None:
    """T-622 Cut in two: the file system put the halves of the key at different places."""
    image = tmp_path / "image"
    tree = make_tree(tmp_path / "tree", {f"{number:04d}": noise(4096, number) for number in range(1_000)})
    run("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", tree, image, "6M")
    doomed = "\n".join(f"rm /{number:04d}" for number in range(1, 1_000, 2))
    run("debugfs", "-w", "-f", "-", image, told=doomed.encode())
    (tmp_path / "split").write_bytes(noise(4096 * 3 - 20, 5) + KEY + noise(4096 * 200, 6))
    run("debugfs", "-w", "-R", f"write {tmp_path / 'split'} split", image)
    assert KEY not in image.read_bytes()
    (found,) = walk(image)
    assert (found.kind, found.path, found.offset) == (Kind.MP_KEY, "image!/split", 4096 * 3 - 20)


def test_a_packed_file_in_pieces_is_opened_once_and_whole(tmp_path: Path) -> None:
    """Its first piece begins like a stream of its own, which would be called damaged."""
    image = tmp_path / "image"
    tree = make_tree(tmp_path / "tree", {f"{number}": noise(4096 * 100, number) for number in range(10)})
    run("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", tree, image, "6M")
    for doomed in ("3", "6"):
        run("debugfs", "-w", "-R", f"rm /{doomed}", image)
    (tmp_path / "packed").write_bytes(gzip.compress(bytes(one & 63 for one in noise(4096 * 330, 8)) + KEY))
    run("debugfs", "-w", "-R", f"write {tmp_path / 'packed'} packed", image)
    assert {one.path for one in walk(image)} == {"image!/packed!gz"}


def test_a_key_in_a_gzip_in_a_cpio_in_a_fit_in_a_fat_on_a_disk_is_found_by_its_path(tmp_path: Path) -> None:
    """T-621 Hidden key: five containers deep, the last one packed."""
    make_cpio(make_tree(tmp_path / "root", {"etc/mp.gz": gzip.compress(b"x" * 9_000 + KEY)}), tmp_path / "initramfs")
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit" / "ramdisk-1").write_bytes(gzip.compress((tmp_path / "initramfs").read_bytes()))
    (tmp_path / "boot").mkdir()
    make_fit(tmp_path / "fit", tmp_path / "boot" / "fitImage")
    make_fat(tmp_path / "boot", tmp_path / "fat")
    for label in ("gpt", "dos"):
        make_disk(tmp_path / "disk", [tmp_path / "fat"], label)
        (found,) = walk(tmp_path / "disk")
        assert found.path == "disk!p1!/fitImage!ramdisk-1!gz!etc/mp.gz!gz"
        assert (found.kind, found.offset) == (Kind.MP_KEY, 9_000)


def test_a_boot_loader_between_table_and_partitions_is_opened(tmp_path: Path) -> None:
    """T-624 Between the partitions: SPL, FIT and a kernel with its initramfs stand in no file system."""
    make_cpio(make_tree(tmp_path / "root", {"init": b"#!/bin/sh\n", "key": FORMS["pem"]}), tmp_path / "initramfs")
    lead = noise(2_000) + gzip.compress((tmp_path / "initramfs").read_bytes()) + noise(2_000, 1)
    FOLDERS["ext4"](make_tree(tmp_path / "tree", CLEAN), tmp_path / "ext4")
    make_disk(tmp_path / "disk", [tmp_path / "ext4"], lead=lead)
    (found,) = walk(tmp_path / "disk")
    assert found.path == f"disk!@{33 * 1024 + 2_000:#x}!gz!key"
    make_disk(tmp_path / "other", [tmp_path / "ext4"], lead=noise(900) + KEY)
    (found,) = walk(tmp_path / "other")
    assert (found.path, found.offset) == ("other", 33 * 1024 + 900)


def test_an_initramfs_behind_a_kernel_in_a_packed_archive_is_opened(tmp_path: Path) -> None:
    """T-621 Hidden key: a kernel packed by lz4, its initramfs by xz behind the code, both in a .tar.zst."""
    make_cpio(make_tree(tmp_path / "root", {"etc/key": FORMS["base64-2"]}), tmp_path / "initramfs")
    kernel = noise(70_000) + lzma.compress((tmp_path / "initramfs").read_bytes()) + noise(9_000, 1)
    make_tree(tmp_path / "boot", {"boot/Image.lz4": run("lz4", "-l", "-c", told=kernel), "boot/plain": kernel})
    make_tar(tmp_path / "boot", tmp_path / "image")
    image = tmp_path / "image.tar.zst"
    image.write_bytes(zstandard.compress((tmp_path / "image").read_bytes()))
    told = {one.path for one in walk(image)}
    assert told == {
        "image.tar.zst!zst!./boot/Image.lz4!lz4!@0x11170!xz!etc/key",
        "image.tar.zst!zst!./boot/plain!@0x11170!xz!etc/key",
    }


def test_a_sparse_disk_in_a_gzip_costs_no_disk_of_its_size(tmp_path: Path) -> None:
    FOLDERS["ext4"](make_tree(tmp_path / "tree", {"key": FORMS["hex"]}), tmp_path / "ext4")
    with (tmp_path / "disk").open("wb") as file:
        file.write((tmp_path / "ext4").read_bytes())
        os.truncate(file.fileno(), 300 * 1024 * 1024)
    run("gzip", "-1", tmp_path / "disk")
    (found,) = walk(tmp_path / "disk.gz")
    assert found.path == "disk.gz!gz!/key"


def test_another_key_of_the_same_curve_is_no_finding() -> None:
    other = bytes.fromhex("3ec0c6d1e846b48323712a19f28ee57c32f337fcc5a592bd4961cb53b3f9dffa") + noise(32)
    assert walk_bytes(noise(500) + other + noise(500)) == []
    near = SOUGHT.prefix + noise(59)
    assert walk_bytes(noise(500) + near + noise(500)) == []
