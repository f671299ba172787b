"""Large files in little memory, and bundles on block devices: opened, and destroyed where the image says so."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mpwire.messages.bundle import Component
from tests.mpagent.conftest import AS_ROOT
from tests.offline.bench import API_KEY, ITEMS, MODEL
from tests.offline.maker import Maker, write_large
from tests.offline.shell import Shell

MIB = 1 << 20
LARGE_BYTES = 200 * MIB
ABOVE_IDLE_MAX_KIB = 32 * 1024
SMALL = [ITEMS[0], *ITEMS[2:]]


@pytest.fixture
def shell(tmp_path: Path, maker: Maker) -> Shell:
    return Shell(tmp_path / "board", maker)


MEASURE = """
import os, resource, sys
process = os.fork()
if process == 0:
    os.execv(sys.argv[1], sys.argv[1:])
status = os.waitpid(process, 0)[1]
sys.stderr.write(f"peak {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}")
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A small parent: what a process holds before it becomes another counts for its peak, and a test run holds much."""


def measure(shell: Shell, *words: str, output: Path = Path("/dev/null")) -> tuple[int, int, bytes]:
    """(exit code, peak of resident memory in KiB, standard error) of one run."""
    command = [sys.executable, "-S", "-c", MEASURE, *shell.command(*words)]
    with open(output, "wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=120)
    said, _, peak = done.stderr.rpartition(b"peak ")
    return done.returncode, int(peak), said


def test_measuring_sees_what_a_process_holds(shell: Shell) -> None:
    """The bound below means something: a process that holds 60 MiB more is seen to."""
    _, idle_kib, _ = measure(shell, "--version")
    assert 5_000 < idle_kib < 60_000, idle_kib
    hog = [sys.executable, "-S", "-c", MEASURE, sys.executable, "-S", "-c", f"x = b'1' * {60 * MIB}"]
    done = subprocess.run(hog, stderr=subprocess.PIPE, timeout=60)
    assert int(done.stderr.rpartition(b"peak ")[2]) > idle_kib + ABOVE_IDLE_MAX_KIB


def test_large_file_is_taken_and_given_out_in_bounded_memory(shell: Shell, maker: Maker) -> None:
    """T-703 Large: 200 MiB cost at most 32 MiB above what an empty bundle costs, and are told of on the way."""
    small = shell.folder / "small"
    small.write_bytes(maker.make([SMALL[0], ITEMS[1]._replace(plain=b""), *SMALL[1:]]))
    _, idle_kib, _ = measure(shell, "offline", "apply", "--dry-run", str(small))
    path = shell.folder / "large"
    write_large(maker, path, SMALL, Component("model", "file", "sealed", 1, "fill", LARGE_BYTES))
    code, peak_kib, said = measure(shell, "offline", "apply", str(path))
    assert code == 0, said
    assert peak_kib - idle_kib < ABOVE_IDLE_MAX_KIB, (idle_kib, peak_kib)
    for line in (b"checking the bundle: 50 %", b"opening the bundle: 100 %", b"reading back model: 90 %"):
        assert line in said
    output = shell.folder / "out"
    code, peak_kib, said = measure(shell, "secret", "get", "model", output=output)
    assert code == 0 and output.stat().st_size == LARGE_BYTES, said
    assert peak_kib - idle_kib < ABOVE_IDLE_MAX_KIB, (idle_kib, peak_kib)
    os.truncate(path, path.stat().st_size - 1)
    other = Shell(shell.folder.with_name("other"), maker)
    code, _, _ = measure(other, "offline", "apply", str(path))
    assert code == 76 and other.state() == {}


@contextmanager
def loop_device(folder: Path, content: bytes, size: int) -> Iterator[Path]:
    """A block device that begins with these bytes and goes on with noise."""
    backing = folder / "backing"
    backing.write_bytes(content + os.urandom(size - len(content)))
    made = subprocess.run(
        [*AS_ROOT, "losetup", "--find", "--show", backing], check=True, capture_output=True, text=True
    )
    device = Path(made.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run([*AS_ROOT, "losetup", "--detach", device], check=True)


def name_device(shell: Shell, device: Path) -> None:
    """The board's own name for it, as a partition label is."""
    link = shell.disk / "dev/bundle"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(device)
    shell.set('bundle = "/dev/bundle"\nreceipts = "/out"\n')


def test_bundle_on_a_partition_is_taken_though_the_partition_is_longer(shell: Shell, maker: Maker) -> None:
    raw = maker.make(ITEMS)
    with loop_device(shell.folder, raw, 2 * MIB) as device:
        name_device(shell, device)
        done = shell.run("enroll", "--once")
        assert done.returncode == 0, done.stderr
        assert device.read_bytes()[: len(raw)] == raw
    assert shell.run("secret", "get", "model").stdout == MODEL


def test_partition_that_ends_inside_its_bundle_is_refused(shell: Shell, maker: Maker) -> None:
    raw = maker.make(ITEMS)
    with loop_device(shell.folder, raw[:65_536], 65_536) as device:
        name_device(shell, device)
        done = shell.run("enroll", "--once")
        assert done.returncode == 76 and done.stdout == b"FAIL bundle-payload\n"
    assert shell.state() == {}


def test_partition_is_wiped_where_the_image_says_so(shell: Shell, maker: Maker) -> None:
    """T-704 Left behind: no byte of the manifest is left, nor of the ciphertext; what lies behind the bundle stays."""
    shell.write_image("[offline]\nwipe = true\n\n")
    raw = maker.make(ITEMS)
    with loop_device(shell.folder, raw, 2 * MIB) as device:
        tail = device.read_bytes()[len(raw) :]
        name_device(shell, device)
        done = shell.run("enroll", "--once")
        assert done.returncode == 0 and b"cannot be wiped" not in done.stderr, done.stderr
        after = read_direct(device)
        assert after[: len(raw) // 4096 * 4096].count(0) > len(raw) // 4096 * 4096 * 9 // 10
        assert raw[12:200] not in after and after[len(raw) :] == tail
        again = shell.run("enroll", "--once")  # an empty partition is no broken bundle
        assert again.returncode == 0 and b"cut off" not in again.stderr
    assert shell.run("secret", "get", "api-key").stdout == API_KEY


def read_direct(device: Path) -> bytes:
    subprocess.run([*AS_ROOT, "blockdev", "--flushbufs", device], check=True)
    return device.read_bytes()


def test_empty_partition_is_waited_for(shell: Shell) -> None:
    for filling in (b"\0", b"\xff"):
        shell.folder.joinpath("backing").unlink(missing_ok=True)
        with loop_device(shell.folder, filling * MIB, MIB) as device:
            name_device(shell, device)
            done = shell.run("enroll", "--once")
            assert done.returncode == 69 and b"is empty" in done.stderr
        (shell.disk / "dev/bundle").unlink()


def test_file_is_overwritten_before_its_name_goes(shell: Shell, maker: Maker) -> None:
    """T-704 The blocks that the bundle had: a second name of the same file shows them."""
    shell.write_image("[offline]\nwipe = true\n\n")
    raw = maker.make(ITEMS)
    path = shell.put(raw)
    other = shell.folder / "second-name"
    os.link(path, other)
    assert shell.run("enroll", "--once").returncode == 0
    assert not path.exists() and other.read_bytes() == bytes(len(raw))


def test_dry_run_and_refusal_wipe_nothing(shell: Shell, maker: Maker) -> None:
    shell.write_image("[offline]\nwipe = true\n\n")
    for raw in (maker.make(ITEMS), maker.make(ITEMS, product="toaster"), b"noise"):
        path = shell.put(raw, "b")
        shell.run("offline", "apply", "--dry-run", str(path))
        assert path.read_bytes() == raw
    shell.run("offline", "apply", str(path))
    assert path.read_bytes() == b"noise"


@pytest.mark.parametrize("name", ["\x1b[31m0", "0\nPASS 01f0 5 slots", os.fsdecode(b"0\xff")])
def test_names_on_a_stick_steer_no_terminal_and_forge_no_line(shell: Shell, maker: Maker, name: str) -> None:
    """T-735 Forged PASS: who fills the medium chooses the names of its files, which an enrollment would say."""
    shell.put(b"noise", f"{name}.mpbundle")
    for words in (("enroll", "--once"), ("enroll", "--once", "--json"), ("doctor",), ("doctor", "--json")):
        done = shell.run(*words)
        said = (done.stdout + done.stderr).decode()
        assert "PASS" not in said and all(line.isprintable() for line in said.splitlines()), said
        assert done.returncode in {69, 77} and b"Traceback" not in done.stderr, done.stderr
    shell.put(maker.make(ITEMS), "1.mpbundle")
    assert shell.run("enroll", "--once").returncode == 0
