"""The provisioning image's boot container, which lets Linux sign, goes last, and never while no other one boots."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from mpagent.finish.medium import SECTOR_BYTES
from tests.power.processes import Mpserver

from .finish_bench import DATA_MIB, IMAGE, MIB, ROOT_MIB, Bench, do, make_server, open_bench
from .test_finish_cuts import Cut, LosingMedium, Plug

PLACE_BYTES = 4 * MIB
OLD, NEW = (random.Random(seed).randbytes(size) for seed, size in ((5, 3 * MIB + 4_321), (6, 2 * MIB + 1_234)))
"""What the line wrote: a container of either build, with room after it."""


class Places(NamedTuple):
    """Two devices for boot containers."""

    old: Path
    new: Path

    def text(self, digest: str = hashlib.sha256(NEW).hexdigest(), size: int = len(NEW)) -> str:
        """Keys of [finish]."""
        new = f'boot_new = "{self.new}"\nboot_new_bytes = {size}\nboot_new_digest = "{digest}"\n'
        return f'boot_old = "{self.old}"\n{new}'

    def read(self) -> tuple[bytes, bytes]:
        """What the devices have."""
        do("sync")
        return self.old.read_bytes(), self.new.read_bytes()


ALL = 'luks = "{data}"\nluks_slot = "disk"\ninstaller = "raw"\ntarget = "{root}"\nstate = "{state}"\nafter = "reboot"\n'
OLD_PLACE, NEW_PLACE = (raw.ljust(PLACE_BYTES, b"\x00") for raw in (OLD, NEW))


@contextmanager
def attach_place(file: Path, content: bytes, size: int = PLACE_BYTES) -> Iterator[Path]:
    with file.open("wb") as made:
        made.write(content)
        made.truncate(size)
    loop = Path(do("losetup", "--find", "--show", file))
    try:
        yield loop
    finally:
        do("losetup", "--detach", loop)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mpserver]:
    made = make_server(tmp_path_factory.mktemp("oem") / "oem")
    yield made
    made.stop()


@pytest.fixture
def bench(server: Mpserver) -> Iterator[Bench]:
    with open_bench(server) as made:
        yield made


@pytest.fixture
def places(bench: Bench) -> Iterator[Places]:
    """As the line leaves a board: both containers written."""
    with ExitStack() as stack:
        old, new = (
            stack.enter_context(attach_place(bench.folder / name, raw)) for name, raw in (("old", OLD), ("new", NEW))
        )
        yield Places(old, new)


def ask(bench: Bench, places: Places, text: str | None = None) -> None:
    """The order of this boot, for an image that asks so."""
    bench.set_finish(ALL + (places.text() if text is None else text))
    bench.enroll()


def check_untouched(bench: Bench, places: Places) -> None:
    assert places.read() == (OLD_PLACE, NEW_PLACE) and bench.systemctl_calls() == []
    assert not any(bench.read(2, DATA_MIB * MIB)) and not any(bench.read(3, ROOT_MIB * MIB))


def test_the_provisioning_container_goes_after_the_image_is_whole(bench: Bench, places: Places) -> None:
    """T-562 Open door: the container whose OP-TEE lets Linux sign ships beneath the production root."""
    ask(bench, places)
    told = bench.mpagent("finish", "run", "--dry-run").stdout
    assert told == "WOULD luks-format, install-image, retire-boot, reboot\n"
    check_untouched(bench, places)

    done = bench.finish()
    assert (done.returncode, done.stdout) == (0, "DONE luks-format, install-image, retire-boot, reboot\n"), done.stderr
    assert places.read() == (bytes(PLACE_BYTES), NEW_PLACE)
    assert bench.read(3, len(IMAGE)) == IMAGE
    said = done.stderr
    assert said.index("making it bootable") < said.index(f"zeroing the one on {places.old}")

    bench.boot()
    bench.enroll()
    assert bench.finish().stdout == "DONE before\n"
    assert len(bench.systemctl_calls()) == 1 and places.read() == (bytes(PLACE_BYTES), NEW_PLACE)


@pytest.mark.parametrize("content", [b"", NEW[:-100], OLD, b"\x00" + NEW[1:]])
def test_the_only_container_that_boots_is_never_zeroed(bench: Bench, places: Places, content: bytes) -> None:
    """T-582 Accident: the line forgot the production's container, wrote half of it, another, or on a bad block."""
    places.new.write_bytes(content.ljust(PLACE_BYTES, b"\x00"))
    ask(bench, places)
    before = places.read()
    done = bench.finish()
    assert done.returncode == 77 and "does not hold the boot container that this image names" in done.stderr
    assert places.read() == before and bench.systemctl_calls() == []
    assert not any(bench.read(2, DATA_MIB * MIB)) and not any(bench.read(3, ROOT_MIB * MIB))


def test_an_image_that_does_not_come_leaves_the_board_its_container(
    bench: Bench, places: Places, server: Mpserver
) -> None:
    """T-582 Accident: no line. The board has to boot again to go on."""
    ask(bench, places)
    server.stop()
    try:
        assert bench.finish().returncode == 69
    finally:
        server.start()
    assert places.read() == (OLD_PLACE, NEW_PLACE)
    assert bench.finish().returncode == 0
    assert places.read() == (bytes(PLACE_BYTES), NEW_PLACE)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{new}", "{new}", "would overwrite the boot container that stays"),
        ("{loop}p1", "{new}", "would overwrite the state partition"),
        ("{loop}", "{new}", "would overwrite the state partition"),
        ("{loop}p2", "{new}", "would overwrite the boot container that goes"),
        ("{loop}p3", "{new}", "would overwrite the boot container that goes"),
        ("{old}", "{loop}p3", "would overwrite the boot container that stays"),
        ("/dev/null", "{new}", "is no block device"),
        ("{large}", "{new}", "no place of a boot container"),
        ("{old}", "/dev/mmcblk7boot1", "No such file"),
    ],
)
def test_no_other_device_is_zeroed_for_a_boot_container(
    bench: Bench, places: Places, old: str, new: str, words: str
) -> None:
    """T-583 Accident: [finish] names the state, the disk, the image, the container that stays, or a whole disk."""
    with attach_place(bench.folder / "large", b"", 65 * MIB) as large:
        names = {"old": places.old, "new": places.new, "loop": bench.loop, "large": large}
        ask(bench, places, Places(*(Path(one.format(**names)) for one in (old, new))).text())
        done = bench.finish()
    assert done.returncode == 77 and words in done.stderr, done.stderr
    check_untouched(bench, places)


@pytest.mark.parametrize(("call", "number"), [("pwrite64", 1), ("pwrite64", 2), ("pwrite64", 5), ("fdatasync", 1)])
def test_a_finisher_killed_while_it_zeroes_leaves_a_container_that_boots(
    bench: Bench, places: Places, call: str, number: int
) -> None:
    """T-583 Power cut: the old container is whole or headless, and the next boot, of whichever, loses nothing."""
    ask(bench, places, "")
    assert bench.finish().returncode == 0
    bench.boot()
    ask(bench, places)
    axe = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(places.old)]
    axe += ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"]
    cut = bench.finish(prefix=axe)
    assert cut.returncode == -9, cut.stderr
    old, new = places.read()
    assert new == NEW_PLACE and old[:SECTOR_BYTES] in (OLD[:SECTOR_BYTES], bytes(SECTOR_BYTES))
    if old[:SECTOR_BYTES] != bytes(SECTOR_BYTES):
        assert old == OLD_PLACE
    bench.boot()
    bench.enroll()
    done = bench.finish()
    assert (done.returncode, done.stdout) == (0, "DONE retire-boot, reboot\n"), done.stderr
    assert places.read() == (bytes(PLACE_BYTES), NEW_PLACE)


def test_every_cut_of_zeroing_leaves_a_whole_container_or_none() -> None:
    """T-583 Power cut, on a medium that loses, tears or keeps what was not synced."""
    for pull_at in range(1, 60):
        for seed in range(4):
            plug = Plug(pull_at)
            medium = LosingMedium(OLD_PLACE, plug, random.Random(seed))
            try:
                medium.erase_head(PLACE_BYTES)
            except Cut:
                left = medium.lose_power()
                assert left == OLD_PLACE or not any(left[:SECTOR_BYTES]), (pull_at, seed)
            else:
                assert medium.lose_power() == bytes(PLACE_BYTES) and pull_at > 5
                return
    raise AssertionError("never came to its end")
