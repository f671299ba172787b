"""Power cuts after enrollment: at every touch of a medium that loses its cache, and at every write of cryptsetup."""

import hashlib
import random
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpagent.durable import Disk
from mpagent.errors import MpError, NoServer
from mpagent.finish.fetch import Range
from mpagent.finish.install import HEAD_BYTES, Installing
from mpagent.finish.luks import Volume, name_volume
from mpagent.finish.medium import CHUNK_BYTES, SECTOR_BYTES, Medium
from mpagent.finish.notes import Notebook
from mpagent.finish.program import CRYPTSETUP, Programs
from mpwire.messages.grant import Manifest
from mpwire.secret import Secret
from tests.power.processes import Mpserver

from .finish_bench import IMAGE as REAL_IMAGE
from .finish_bench import Bench, make_server, open_bench

MIB = 1_048_576
_DRAW = random.Random(3)
IMAGE = _DRAW.randbytes(2 * MIB) + bytes(3 * MIB) + _DRAW.randbytes(14 * MIB + 777)
"""More than one sync of 16 MiB after the head."""
OLD = random.Random(4).randbytes(20 * MIB)
"""What stood on the medium: it boots."""
MANIFEST = Manifest(hashlib.sha256(IMAGE).digest(), len(IMAGE), "2.0.0", "/mpagent/1/image/x")


class Cut(BaseException):
    """The power is gone; no handler of the product lives through it."""


class Plug:
    """Pulled at touch `pull_at`, counted from 1."""

    def __init__(self, pull_at: int | None) -> None:
        self.pull_at, self.touches = pull_at, 0

    def touch(self) -> None:
        self.touches += 1
        if self.pull_at is not None and self.touches >= self.pull_at:
            raise Cut


class LosingMedium(Medium):
    """A device with a write cache: what was not synced lands, is lost, or lands in part, sector by sector."""

    def __init__(self, content: bytes, plug: Plug, draw: random.Random) -> None:
        self.durable, self.plug, self._draw = bytearray(content), plug, draw
        self._seen = bytearray(content)
        self._pending: list[tuple[int, bytes]] = []

    def write(self, offset: int, content: bytes) -> None:
        self.plug.touch()
        self._seen[offset : offset + len(content)] = content
        self._pending.append((offset, content))

    def sync(self) -> None:
        self.plug.touch()
        for offset, content in self._pending:
            self.durable[offset : offset + len(content)] = content
        self._pending.clear()
        self.plug.touch()

    def cut(self, size: int) -> None:
        """A device keeps what it has."""

    def read_back(self, offset: int, size: int) -> Iterator[bytes]:
        for place in range(offset, offset + size, CHUNK_BYTES):
            self.plug.touch()
            yield bytes(self._seen[place : min(place + CHUNK_BYTES, offset + size)])

    def lose_power(self) -> bytes:
        """What is there when the power comes back."""
        for offset, content in self._pending:
            fate = self._draw.choice(("lands", "lost", "torn"))
            for place in range(0, len(content), SECTOR_BYTES):
                if fate == "lands" or (fate == "torn" and self._draw.random() < 0.5):
                    part = content[place : place + SECTOR_BYTES]
                    self.durable[offset + place : offset + place + len(part)] = part
        return bytes(self.durable)


class PluggedDisk(Disk):
    """The notes, on the same plug: durable.py has cuts of its own inside a write."""

    def __init__(self, folder: Path, plug: Plug) -> None:
        super().__init__(folder)
        self.plug = plug

    def write(self, name: str, content: bytes) -> None:
        self.plug.touch()
        super().write(name, content)
        self.plug.touch()


def give(wanted: Range) -> Iterator[bytes]:
    for place in range(wanted.start, wanted.end, CHUNK_BYTES):
        yield IMAGE[place : min(place + CHUNK_BYTES, wanted.end)]


def live(folder: Path, content: bytes, pull_at: int | None, draw: random.Random) -> tuple[bytes, bool, int]:
    """One boot of the finisher: what the medium has afterwards, whether it ended, and how often it was touched."""
    plug = Plug(pull_at)
    medium = LosingMedium(content, plug, draw)
    notebook = Notebook(PluggedDisk(folder, plug))
    try:
        Installing(MANIFEST, medium, give, notebook, lambda _text: None, HEAD_BYTES).fill()
    except Cut:
        return medium.lose_power(), False, plug.touches
    return medium.lose_power(), True, plug.touches


def check_bootable(content: bytes) -> None:
    """What looks like the beginning of an image is the beginning of a whole one: the new, or the untouched old."""
    if any(content[:SECTOR_BYTES]):
        assert content[: len(IMAGE)] == IMAGE or content == OLD


def test_every_cut_of_an_install_leaves_the_old_image_none_or_the_whole_new_one(tmp_path: Path) -> None:
    """T-545 A cut at every touch of medium and notes, with the cache lost, torn or written; the next boot ends it."""
    touches = live(tmp_path / "whole", OLD, None, random.Random(0))[2]
    assert touches > 40
    for pull_at in range(1, touches + 1):
        folder, draw = tmp_path / str(pull_at), random.Random(pull_at)
        content, ended, _ = live(folder, OLD, pull_at, draw)
        assert not ended
        check_bootable(content)
        content, ended, _ = live(folder, content, None, draw)
        assert ended and content[: len(IMAGE)] == IMAGE and content[len(IMAGE) :] == OLD[len(IMAGE) :]


def test_cut_after_cut_an_install_comes_to_its_end(tmp_path: Path) -> None:
    """T-545 A bad supply: each boot lives a little, and no boot asks again for what was noted."""
    for seed in range(12):
        folder, draw, content, ended, boots = tmp_path / str(seed), random.Random(seed), OLD, False, 0
        while not ended:
            content, ended, _ = live(folder, content, draw.randrange(8, 60), draw)
            check_bootable(content)
            boots += 1
            assert boots < 200
        assert content[: len(IMAGE)] == IMAGE


def test_a_line_that_breaks_after_every_piece_goes_on_from_where_it_was(tmp_path: Path) -> None:
    """T-552 Each try brings two pieces; none is fetched twice but the head."""
    asked: list[Range] = []

    def give_two(wanted: Range) -> Iterator[bytes]:
        asked.append(wanted)
        for number, piece in enumerate(give(wanted)):
            if number == 2:
                raise NoServer("the line broke")
            yield piece

    medium = LosingMedium(OLD, Plug(None), random.Random(0))
    Installing(MANIFEST, medium, give_two, Notebook(Disk(tmp_path)), lambda _text: None, HEAD_BYTES).fill()
    assert bytes(medium.durable[: len(IMAGE)]) == IMAGE
    assert [one.start // MIB for one in asked] == [*range(1, 20, 2), 0]


def test_a_medium_that_gives_back_other_bytes_does_not_boot(tmp_path: Path) -> None:
    """T-542 Worn flash: the hash is of what the medium has, so a write that got lost is found before the switch."""

    class Worn(LosingMedium):
        def read_back(self, offset: int, size: int) -> Iterator[bytes]:
            for piece in super().read_back(offset, size):
                yield bytes(len(piece)) if any(piece) and offset else piece

    medium = Worn(OLD, Plug(None), random.Random(0))
    with pytest.raises(MpError, match="not the one that the Grant names"):
        Installing(MANIFEST, medium, give, Notebook(Disk(tmp_path)), lambda _text: None, HEAD_BYTES).fill()
    assert bytes(medium.durable[:HEAD_BYTES]) == bytes(HEAD_BYTES)


@pytest.mark.parametrize("size", [1, 511, 512, 513, MIB - 1, MIB, MIB + 1])
def test_images_as_small_as_their_head_are_installed_whole(tmp_path: Path, size: int) -> None:
    small = IMAGE[:size]
    manifest = Manifest(hashlib.sha256(small).digest(), size, "2", "/x")
    medium = LosingMedium(OLD, Plug(None), random.Random(0))

    def give_small(wanted: Range) -> Iterator[bytes]:
        yield from (piece for piece in give(wanted._replace(end=min(wanted.end, size))))

    Installing(manifest, medium, give_small, Notebook(Disk(tmp_path)), lambda _text: None, HEAD_BYTES).fill()
    assert bytes(medium.durable[:size]) == small and bytes(medium.durable[MIB + 1 :]) == OLD[MIB + 1 :]


# cryptsetup, killed at each of its own system calls

WRITES = "pwrite64,write,fsync,fdatasync"
AXE = """case "$1" in
  {command}) exec strace -f -qq -o /dev/null -e trace={calls} \
      -e inject={calls}:signal=SIGKILL:when={number} {real} "$@" ;;
esac
exec {real} "$@"
"""


def find_cryptsetup() -> str:
    found = shutil.which("cryptsetup", path="/usr/sbin:/sbin:/usr/bin")
    assert found is not None, "cryptsetup-bin is missing: make setup"
    return found


def make_programs(root: Path, command: str = "none", number: int = 0) -> Programs:
    """cryptsetup, with an axe over one of its commands."""
    path = root / CRYPTSETUP
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + AXE.format(command=command, calls=WRITES, number=number, real=find_cryptsetup()))
    path.chmod(0o755)
    return Programs(root)


def opens(programs: Programs, node: Path, key: Secret) -> bool:
    words = ("open", "--test-passphrase", "--key-file", "{0}", str(node))
    return programs.run(CRYPTSETUP, words, (key,)).code == 0


def cut_everywhere(tmp_path: Path, command: str, content: bytes, old: Secret | None) -> int:
    """Kill `command` at its first call, its second, ...; after each the next boot must end the work. The cuts made."""
    key, uuid, cuts = Secret(secrets.token_bytes(32)), name_volume(b"\x01" * 33, "disk"), 0
    node = tmp_path / "partition"
    while True:
        node.write_bytes(content)
        cut = Volume(make_programs(tmp_path, command, cuts + 1), node, key, uuid, old, False, lambda _text: None)
        try:
            cut.make()
        except MpError:
            cuts += 1
        else:
            return cuts
        whole = make_programs(tmp_path)
        assert old is None or opens(whole, node, old) or opens(whole, node, key)
        Volume(whole, node, key, uuid, old, False, lambda _text: None).make()
        assert opens(whole, node, key) and not opens(whole, node, Secret(bytes(32)))
        assert old is None or not opens(whole, node, old)
        assert not Volume(whole, node, key, uuid, old, True, lambda _text: None).make()
        assert key.reveal() not in node.read_bytes()


def test_every_cut_of_a_luks_format_is_ended_by_the_next_boot(tmp_path: Path) -> None:
    """T-546 cryptsetup is killed at every write and sync of luksFormat."""
    assert cut_everywhere(tmp_path, "luksFormat", bytes(20 * MIB), None) >= 4


@pytest.mark.parametrize("command", ["luksAddKey", "luksRemoveKey"])
def test_every_cut_of_a_change_of_keys_leaves_one_that_opens(tmp_path: Path, command: str) -> None:
    """T-546 At no moment does neither key open the volume; in the end the factory's does not."""
    node, old = tmp_path / "flashed", Secret(secrets.token_bytes(32))
    node.write_bytes(bytes(20 * MIB))
    words = ("luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
    assert make_programs(tmp_path).run(CRYPTSETUP, (*words, "--key-file", "{0}", str(node)), (old,)).code == 0
    assert cut_everywhere(tmp_path, command, node.read_bytes(), old) >= 2


# The whole program, killed by strace


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mpserver]:
    made = make_server(tmp_path_factory.mktemp("oem") / "oem")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def bench(server: Mpserver) -> Iterator[Bench]:
    with open_bench(server) as made:
        made.set_finish(
            'luks = "{data}"\nluks_slot = "disk"\ninstaller = "raw"\ntarget = "{root}"\nstate = "{state}"\n'
        )
        made.enroll()
        yield made


@pytest.mark.parametrize(
    ("call", "number"),
    [*(("fdatasync", one) for one in (1, 2, 3, 4, 5, 6, 7)), ("renameat,rename", 1), ("renameat,rename", 2),
     ("pwrite64", 2), ("pwrite64", 9), ("ioctl", 20)],
)  # fmt: skip
def test_the_finisher_is_killed_and_the_next_boot_ends_its_work(bench: Bench, call: str, number: int) -> None:
    """T-545 A kill of the real process on a real disk, then another boot: another boot id, another order."""
    for partition, size in ((2, 16 * MIB), (3, 16 * MIB)):
        with bench.partition(partition).open("r+b") as file:
            file.write(b"\x5a" * size)
    shutil.rmtree(bench.state / "finish", ignore_errors=True)
    axe = [
        "strace",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:signal=SIGKILL:when={number}",
    ]
    cut = bench.finish(prefix=axe)
    assert cut.returncode == -9, cut.stderr
    assert bench.read(3, SECTOR_BYTES) in (b"\x5a" * SECTOR_BYTES, bytes(SECTOR_BYTES), REAL_IMAGE[:SECTOR_BYTES])
    if bench.read(3, SECTOR_BYTES) == REAL_IMAGE[:SECTOR_BYTES]:
        assert bench.read(3, len(REAL_IMAGE)) == REAL_IMAGE
    bench.boot()
    bench.enroll()
    done = bench.finish()
    assert done.returncode == 0, done.stderr
    assert bench.read(3, len(REAL_IMAGE)) == REAL_IMAGE and bench.opens(bench.secret("disk"))
    assert bench.secret("disk") not in bench.medium.read_bytes()
