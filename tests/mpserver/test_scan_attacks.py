"""mpserver.scan against images made to hurt it: each ends bounded, by name, and leaves nothing behind."""

import gzip
import io
import lzma
import os
import resource
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random

import lz4.frame
import pytest
import zstandard

from mpserver.scan import budget as bounds
from mpserver.scan.budget import Budget, Exhausted
from mpserver.scan.containers.packed import open_packed
from mpserver.scan.findings import KEPT_MAX, Finding, Kind, Notebook
from mpserver.scan.marks import MAGICS
from mpserver.scan.patrol import Report, examine
from mpserver.scan.regions import Memory, Stretches
from mpserver.scan.spool import Spooled
from mpserver.scan.walk import Walk
from tests.mpserver.plants import (
    FOLDERS,
    FORMS,
    KEY,
    SOUGHT,
    STREAMS,
    make_disk,
    make_tree,
    noise,
    paths,
    walk,
    walk_bytes,
)

MIB = 1024 * 1024


def report(image: Path, seconds: float = 60.0) -> Report:
    return examine(image, (SOUGHT,), seconds, lambda done, size, path: None)


def unseen(findings: list[Finding]) -> list[str]:
    return [f"{one.path}: {one.said}" for one in findings if one.kind == Kind.UNSEEN]


def zeros(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(MIB)


class _Lz4:
    """lz4's compressor with the verbs of the others."""

    def __init__(self) -> None:
        self._one = lz4.frame.LZ4FrameCompressor(block_size=lz4.frame.BLOCKSIZE_MAX4MB)
        self._head: bytes = self._one.begin()

    def compress(self, body: bytes) -> bytes:
        head, self._head = self._head, b""
        return head + bytes(self._one.compress(body))

    def flush(self) -> bytes:
        return bytes(self._one.flush())


def bomb(kind: str, mebibytes: int) -> bytes:
    """A stream that unpacks to so many zeros."""
    packer = {
        "gz": lambda: zlib.compressobj(9, zlib.DEFLATED, 31),
        "lz4": _Lz4,
        "xz": lambda: lzma.LZMACompressor(preset=0),
        "zst": lambda: zstandard.ZstdCompressor(level=1).compressobj(),
    }[kind]()
    return b"".join([*map(packer.compress, zeros(mebibytes)), packer.flush()])


@pytest.mark.parametrize("kind", ["gz", "lz4", "xz", "zst"])
def test_a_bomb_is_opened_in_bounded_memory_and_stops_at_its_bound(kind: str) -> None:
    """T-630 Bomb: a few bytes unpack to more than any disk holds."""
    raw = bomb(kind, 512)
    assert len(raw) < 3 * MIB
    budget = Budget(60.0)
    budget.unpacked = bounds.UNPACKED_MAX_BYTES - 100 * MIB
    spooled, largest = Spooled(1, budget), 0
    member = next(open_packed(kind)(Memory(0, raw), budget))
    assert not isinstance(member, tuple) or member.chunks is not None

    def watch(chunks: Iterator[bytes]) -> Iterator[bytes]:
        nonlocal largest
        for chunk in chunks:
            largest = max(largest, len(chunk))
            yield chunk

    with pytest.raises(Exhausted, match="GiB in all"):
        spooled.fill(watch(member.chunks))  # type: ignore[union-attr, arg-type]
    assert spooled.size <= 100 * MIB and spooled.kept == 0
    assert largest <= 17 * MIB
    spooled.finish().close()


def test_a_bomb_ends_the_image_by_name_and_what_was_found_before_is_told(tmp_path: Path) -> None:
    """T-630 Bomb: it must not hide what else is in the image."""
    with tarfile.open(tmp_path / "image", "w") as archive:
        for name, body in (("a-key", FORMS["hex"]), ("bomb.gz", bomb("gz", 200)), ("z-key", FORMS["pem"])):
            one = tarfile.TarInfo(name)
            one.size = len(body)
            archive.addfile(one, io.BytesIO(body))
    notes, budget = Notebook(), Budget(60.0)
    budget.unpacked = bounds.UNPACKED_MAX_BYTES - 64 * MIB
    Walk((SOUGHT,), budget, notes).look(Memory(0, (tmp_path / "image").read_bytes()), "image")
    assert paths(notes.findings, Kind.MP_KEY) >= {"image!a-key"}
    assert len(paths(notes.findings, Kind.MP_KEY)) == 2, "the sweep of the medium saw the other one, too"
    assert any("image!bomb.gz!gz" in one and "GiB in all" in one for one in unseen(notes.findings))


def test_a_scan_of_a_bomb_keeps_its_memory(tmp_path: Path) -> None:
    """T-630 Bomb: measured as the worker's own peak, beside that of a scan of an empty file."""
    peaks = []
    for name, body in (("empty", b""), ("bomb", bomb("zst", 1_000)), ("big", None)):
        path = tmp_path / name
        if body is None:
            with path.open("wb") as file:
                for number in range(120):
                    file.write(noise(MIB, number))
        else:
            path.write_bytes(body)
        told = (
            "import resource, sys; from pathlib import Path; from mpserver.scan.patrol import examine\n"
            "examine(Path(sys.argv[1]), (), 100.0, lambda *_: None)\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", told, str(path)], capture_output=True, check=True, timeout=100)
        peaks.append(int(done.stdout) // 1024)
    assert max(peaks) - peaks[0] <= 64, peaks


def test_containers_inside_each_other_stop_at_a_depth() -> None:
    """T-630 Recursion: a hundred archives inside each other."""
    body = KEY
    for _ in range(100):
        body = gzip.compress(body)
    found = walk_bytes(body)
    assert [one.kind for one in found] == [Kind.UNSEEN]
    assert f"more than {bounds.DEPTH_MAX} containers" in found[0].said
    body = KEY
    for _ in range(bounds.DEPTH_MAX):
        body = gzip.compress(body, 1) + b""
    assert Kind.MP_KEY in {one.kind for one in walk_bytes(body)}


def test_a_quine_that_unpacks_to_itself_ends() -> None:
    """T-630 Recursion: an archive that holds itself, by a partition that is the whole disk."""
    disk = bytearray(64 * 1024)
    disk[446:462] = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + struct.pack("<II", 0, 128)
    disk[510:512] = b"\x55\xaa"
    assert walk_bytes(bytes(disk)) == []
    disk[446:462] = bytes([0, 0, 0, 0, 0x05, 0, 0, 0]) + struct.pack("<II", 0, 128)
    disk[462:478] = disk[446:462]
    assert "links" in unseen(walk_bytes(bytes(disk)))[0]


@pytest.mark.parametrize("name", ["../../../../../../tmp/scan-was-here", "/tmp/scan-was-here", "a\nb\x1b[31m\x00c"])
def test_names_of_an_archive_lead_nowhere(name: str, tmp_path: Path) -> None:
    """T-632 Way out: members named to be written elsewhere, links, devices; a terminal is told nothing raw."""
    with tarfile.open(tmp_path / "image", "w") as archive:
        for kind in (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE):
            one = tarfile.TarInfo(name)
            one.type, one.linkname, one.devmajor, one.devminor = kind, "/etc/shadow", 1, 8
            one.size = len(KEY) if kind == tarfile.REGTYPE else 0
            archive.addfile(one, io.BytesIO(KEY) if one.size else None)
    before = set(os.listdir("/tmp"))
    (found,) = report(tmp_path / "image").findings
    assert found["kind"] == Kind.MP_KEY and "\n" not in found["path"] and "\x1b" not in found["path"]
    assert not {one for one in set(os.listdir("/tmp")) - before if "scan-was-here" in one}
    assert [one.name for one in tmp_path.iterdir()] == ["image"]


def test_a_worker_leaves_no_file_behind_even_when_it_is_ended(tmp_path: Path) -> None:
    """T-632 Way out: what is unpacked to the disk has no name there."""
    image = tmp_path / "image.gz"
    image.write_bytes(gzip.compress(noise(40 * MIB), 1))
    before = set(os.listdir("/var/tmp"))
    said = report(image, seconds=0.01).findings
    assert said and said[0]["severity"] == "unseen"
    assert report(image).findings == ()
    assert set(os.listdir("/var/tmp")) - before == set()


def _images(tmp_path: Path) -> dict[str, bytes]:
    tree = make_tree(tmp_path / "tree", {"a/key": FORMS["raw"], "b.txt": noise(70_000), "c.gz": gzip.compress(KEY)})
    made = {}
    for kind in ("ext4", "fat12", "squashfs-xz", "squashfs-zstd", "tar", "cpio", "zip", "fit-external"):
        FOLDERS[kind](tree, tmp_path / kind)
        made[kind] = (tmp_path / kind).read_bytes()
    make_disk(tmp_path / "disk", [tmp_path / "fat12"])
    made["gpt"] = (tmp_path / "disk").read_bytes()
    made.update({kind: pack(noise(300_000) + KEY) for kind, pack in STREAMS.items()})
    return made


def test_truncated_images_end_and_say_so(tmp_path: Path) -> None:
    """T-633 Cut off: an image that ends in the middle of anything is never called clean because of it."""
    for kind, whole in _images(tmp_path).items():
        assert Kind.MP_KEY in {one.kind for one in walk_bytes(whole)}, kind
        used = len(whole.rstrip(b"\0"))
        for cut in sorted({used * part // 23 for part in range(1, 23)}):
            found = walk_bytes(whole[:cut], seconds=20.0)
            if kind not in ("ext4", "fat12", "gpt"):  # whose files may all lie before the cut
                assert found, (kind, cut)


def test_garbage_and_flipped_bits_end(tmp_path: Path) -> None:
    """T-634 Garbage: any bytes behind any magic; every reader ends, with a finding or without."""
    random = Random(99)
    for magic in (*MAGICS.values(), b"PK\x03\x04", b"\x5d\x00\x00\x80\x00"):
        for _ in range(20):
            walk_bytes(magic + random.randbytes(5_000), seconds=10.0)
    for kind, whole in _images(tmp_path).items():
        for _ in range(15):
            body = bytearray(whole)
            for _ in range(random.choice((1, 4, 40))):
                place = random.randrange(min(len(body), 16_384))
                body[place] = random.randrange(256)
            started = time.monotonic()
            walk_bytes(bytes(body), seconds=20.0)
            assert time.monotonic() - started < 25.0, kind


def test_a_squashfs_of_death_ends() -> None:
    """T-634 Garbage: sizes of petabytes, tables that point at themselves, a root that is its own child."""
    head = struct.pack("<4sIIIIHHHHHHQQ", b"hsqs", 5, 0, 131_072, 4, 1, 17, 0, 1, 4, 0, 0, 1 << 40)
    for tables in (
        struct.pack("<QQQQQQ", 96, 2**64 - 1, 96, 96, 96, 96),
        struct.pack("<QQQQQQ", *[2**63] * 6),
        struct.pack("<QQQQQQ", 96, 96, 96, 100, 104, 108),
    ):
        folder = struct.pack("<HHHHIIIIHHI", 1, 0, 0, 0, 0, 1, 0, 2, 60_000, 0, 1)
        meta = struct.pack("<H", 0x8000 | len(folder)) + folder
        found = walk_bytes(head + tables + meta * 50, seconds=20.0)
        assert found and found[-1].kind == Kind.UNSEEN
    file = struct.pack("<HHHHII", 9, 0, 0, 0, 0, 1) + struct.pack("<QQQIIII", 96, 2**50, 0, 1, 2**32 - 1, 0, 0)
    meta = struct.pack("<H", 0x8000 | len(file)) + file
    found = walk_bytes(head + struct.pack("<QQQQQQ", 900, 900, 96, 800, 900, 900) + meta + bytes(900))
    assert found and found[-1].kind == Kind.UNSEEN


def test_a_sparse_file_of_an_exabyte_ends(tmp_path: Path) -> None:
    """T-630 Bomb: an inode says that its file is 2^60 bytes long, all of it a hole but one block."""
    tree = make_tree(tmp_path / "tree", {"key": FORMS["raw"] * 40})
    FOLDERS["ext4"](tree, tmp_path / "image")
    subprocess.run(
        ["debugfs", "-w", "-R", f"set_inode_field /key size {2**60}", tmp_path / "image"],
        check=True,
        capture_output=True,
    )
    started = time.monotonic()
    assert Kind.MP_KEY in {one.kind for one in walk(tmp_path / "image")}
    assert time.monotonic() - started < 20.0


def test_an_image_full_of_marks_ends_and_says_that_not_all_were_judged() -> None:
    """T-635 Flood: every byte looks like the start of something."""
    for mark in (SOUGHT.prefix, b"\x00mfgprot\x00", b"PRIVATE KEY-----", b"\x1f\x8b\x08", b"\x02\x01\x01\x04\x20"):
        started = time.monotonic()
        found = walk_bytes(mark * (4 * MIB // len(mark)), seconds=60.0)
        assert time.monotonic() - started < 60.0, mark
        assert len(found) <= KEPT_MAX + 1
        if mark != b"PRIVATE KEY-----" and mark != b"\x02\x01\x01\x04\x20":
            assert unseen(found) or mark == b"\x1f\x8b\x08", mark


def test_an_archive_of_many_small_packed_files_takes_time_by_their_number() -> None:
    """T-635 Flood: each member looks like the start of an archive, and of a stream."""
    packed = gzip.compress(b"text " * 4, mtime=0)
    member = b"070701" + b"%08x" * 13 % (1, 0o100644, 0, 0, 1, 0, len(packed), 0, 0, 0, 0, 2, 0) + b"a\0"
    member = member.ljust(-(-len(member) // 4) * 4, b"\0") + packed.ljust(-(-len(packed) // 4) * 4, b"\0")
    started = time.monotonic()
    found = walk_bytes(member * 20_000 + KEY, seconds=60.0)
    assert time.monotonic() - started < 50.0
    assert {one.kind for one in found} == {Kind.MP_KEY, Kind.UNSEEN} and len(found) == 2, found[:3]


class _Worn(Memory):
    """A disk with a block that cannot be read."""

    def read(self, offset: int, length: int) -> bytes:
        if offset <= 3 * MIB < offset + length:
            raise OSError(5, "Input/output error")
        return super().read(offset, length)


def test_a_block_that_cannot_be_read_is_named_and_what_came_before_is_told() -> None:
    """T-633 Cut off: the medium fails in the middle of the scan."""
    notes = Notebook()
    Walk((SOUGHT,), Budget(20.0), notes).look(_Worn(0, noise(500) + KEY + noise(5 * MIB)), "x")
    assert [one.kind for one in notes.findings] == [Kind.MP_KEY, Kind.UNSEEN]
    assert "Input/output error" in notes.findings[1].said


def test_stretches_never_overlap() -> None:
    random = Random(5)
    stretches, offsets = Stretches(), set[int]()
    for _ in range(400):
        start = random.randrange(1_000)
        end = start + random.choice((1, 3, 40))
        stretches.add(start, end)
        offsets.update(range(start, end))
        assert {one for one in range(1_050) if one in stretches} == offsets


def test_a_zip_with_a_wild_directory_ends() -> None:
    """T-634 Garbage: a directory that tells of members outside, encrypted and overlapping."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("key", FORMS["hex"] * 3)
    whole = made.getvalue()
    assert paths(walk_bytes(whole), Kind.MP_KEY) == {"x!key"}
    at = whole.rindex(b"PK\x01\x02")
    for place, value in ((at + 8, b"\x01\x00"), (at + 42, b"\xff\xff\xff\x7f"), (at + 10, b"\x63\x00")):
        body = whole[:place] + value + whole[place + len(value) :]
        assert unseen(walk_bytes(body)), place


def test_a_worker_that_dies_is_a_finding(tmp_path: Path) -> None:
    """T-636 Worker lost: the process that meets the image is ended by the kernel; the scan is not clean."""
    image = tmp_path / "image"

    def kill(done: int, size: int, path: str) -> None:
        for one in Path("/proc").glob("[0-9]*"):
            try:
                if int((one / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                    os.kill(int(one.name), 9)
            except (OSError, ValueError):
                continue

    image.write_bytes(FORMS["raw"] + noise(MIB))
    with image.open("ab") as file:
        for number in range(200):
            file.write(noise(MIB, number))
    found = examine(image, (SOUGHT,), 60.0, kill).findings
    assert found[-1]["kind"] == Kind.UNSEEN and "signal 9" in found[-1]["said"]


def test_the_time_of_one_image_is_bounded(tmp_path: Path) -> None:
    """T-630 Bomb: what takes too long is named, and the next image has its turn."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        for number in range(100):
            file.write(noise(MIB, number))
    found = report(image, seconds=0.05).findings
    assert [one["kind"] for one in found] == [Kind.UNSEEN] and "may take" in found[0]["said"]


def test_the_worker_has_limits_of_its_own(tmp_path: Path) -> None:
    """T-636 Worker lost: memory, processes and files of the worker are bounded by the kernel as well."""
    told = (
        "import resource; from mpserver.scan.worker import confine; confine(10.0)\n"
        "print([resource.getrlimit(one)[0] for one in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NPROC,"
        " resource.RLIMIT_CORE)])"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, check=True, text=True)
    memory, cpu, processes, core = eval(done.stdout)
    assert 0 < memory < 2 * 1024 * MIB and cpu == 40 and (processes, core) == (0, 0)
    assert resource.getrlimit(resource.RLIMIT_CPU)[0] == resource.RLIM_INFINITY


def test_what_we_have_no_reader_for_is_named() -> None:
    """T-637 Silence: an encrypted or foreign file system looks like noise, and noise would be clean."""
    protective = bytearray(noise(64 * 1024))
    protective[446:512] = bytes(4) + b"\xee" + bytes(3) + struct.pack("<II", 1, 127) + bytes(48) + b"\x55\xaa"
    assert "a GPT follows, and none does" in unseen(walk_bytes(bytes(protective)))[0]
    for body in (
        b"LUKS\xba\xbe\0\2" + noise(5_000),
        bytes(512) + b"LABELONE" + noise(5_000),
        bytes(1024) + b"\xe2\xe1\xf5\xe0" + noise(5_000),
    ):
        assert unseen(walk_bytes(body))
    assert unseen(walk_bytes(b"\x89LZO\x00\x0d\x0a\x1a\x0a" + noise(500))) == ["x: not looked into: packed with lzop"]
