"""The other ways out: the kernel's keyring, a file for a script, and systemd's own programs on our socket."""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpagent.hal.caam.keyctl import USER, KernelKeys

from .credential_desk import ASKED, CLOUD, DISK, VALUES, ask, make_disk, provision, serving

CRYPTSETUP = "/usr/lib/systemd/systemd-cryptsetup"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = make_disk(tmp_path_factory.mktemp("board"))
    provision(found)
    return found


def run(disk: Path, *words: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "mpagent", "--root", str(disk), *words]
    return subprocess.run(command, capture_output=True, timeout=60, check=False)


def keyctl(*words: str) -> "subprocess.CompletedProcess[bytes]":
    """In a session of its own that holds the user keyring, as a unit with KeyringMode=shared has."""
    script = 'keyctl link @u @s && exec keyctl "$@"'
    return subprocess.run(
        ["keyctl", "session", "-", "sh", "-c", script, "sh", *words], capture_output=True, check=False
    )


@pytest.fixture
def key() -> Iterator[str]:
    """A description of our own: the kernel's keys are for every process of the user, and outlive it."""
    found = f"mpagent-test-{secrets.token_hex(8)}:wifi"
    yield found
    for word in ("user", "logon"):
        keyctl("purge", word, found)


def name_key(disk: Path, key: str, kind: str = "user") -> Path:
    """The same board with another key in its image."""
    anchors = disk / "usr/lib/mpagent/anchors.toml"
    text = re.sub(r'key = ".*"\ntype = ".*"', f'key = "{key}"\ntype = "{kind}"', anchors.read_text())
    anchors.write_text(text)
    return disk


def find_key(key: str, kind: str = "user") -> bytes:
    return keyctl("search", "@u", kind, key).stdout.strip()


def test_kernel_holds_the_key_for_sessions_of_this_user_alone(disk: Path, key: str) -> None:
    """T-527 Neighbour: a process without the user's keyring looks for the key by its description and its number."""
    name_key(disk, key)
    done = run(disk, "credentials", "keyring")
    assert (done.returncode, done.stdout) == (0, b"1 keys are in the user keyring\n"), done.stderr
    serial = find_key(key).decode()
    assert keyctl("pipe", serial).stdout == VALUES["wifi"][1]
    assert b";2b000000;" in keyctl("rdescribe", serial).stdout  # for its possessor; nothing for user, group, others
    alone = subprocess.run(["keyctl", "session", "-", "keyctl", "pipe", serial], capture_output=True, check=False)
    assert alone.returncode != 0 and alone.stdout == b""

    assert run(disk, "credentials", "keyring").returncode == 0  # again: one key, the newer one
    assert find_key(key).decode() not in ("", serial)
    assert keyctl("pipe", serial).returncode != 0


def test_logon_key_is_read_by_nobody(tmp_path: Path, key: str) -> None:
    found = name_key(make_disk(tmp_path / "board"), key, "logon")
    provision(found)
    assert run(found, "credentials", "keyring").returncode == 0
    serial = find_key(key, "logon")
    assert serial and keyctl("pipe", serial.decode()).returncode != 0


def test_key_too_large_for_the_kernel_is_refused_by_name(tmp_path: Path, key: str) -> None:
    found = name_key(make_disk(tmp_path / "board"), key)
    provision(found, {"wifi": bytes(32_768)})
    done = run(found, "credentials", "keyring")
    assert done.returncode == 77 and key.encode() in done.stderr and b"32767" in done.stderr
    assert find_key(key) == b""


def test_board_without_secrets_hands_over_no_key(tmp_path: Path, key: str) -> None:
    assert run(name_key(make_disk(tmp_path / "board"), key), "credentials", "keyring").returncode == 75
    assert find_key(key) == b""


def test_search_that_the_kernel_refuses_is_no_missing_key() -> None:
    """The kernel takes 4 KiB of description; a key of that name cannot be missing."""
    with pytest.raises(OSError, match="Invalid argument"):
        KernelKeys().find("user", "d" * 5_000, USER)
    assert KernelKeys().find("user", f"mpagent-test-{secrets.token_hex(8)}:none", USER) is None


def test_secret_for_a_script_is_a_file_of_its_owner(disk: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder, "key")
        other = Path(folder, "other")
        other.write_bytes(b"kept")
        path.symlink_to(other)
        done = run(disk, "secret", "get", "cloud", "--output", str(path))
        assert (done.returncode, done.stdout) == (0, b""), done.stderr
        assert not path.is_symlink() and path.read_bytes() == CLOUD and other.read_bytes() == b"kept"
        assert path.stat().st_mode & 0o777 == 0o600 and sorted(os.listdir(folder)) == ["key", "other"]
        assert run(disk, "secret", "get", "--hex", "cloud", "--output", str(path)).returncode == 0
        assert path.read_bytes() == CLOUD.hex().encode() + b"\n"


def test_secret_for_a_script_is_not_put_on_a_disk(disk: Path) -> None:
    """T-526 Left behind: a script writes a secret where it stays after the power is gone."""
    folder = Path(tempfile.mkdtemp(dir=Path(__file__).parents[2] / "out"))  # the checkout lies on a disk
    try:
        done = run(disk, "secret", "get", "cloud", "--output", str(folder / "key"))
        assert done.returncode == 73 and b"tmpfs" in done.stderr and CLOUD not in done.stderr
        assert list(folder.iterdir()) == []
    finally:
        shutil.rmtree(folder)


def test_output_that_cannot_be_written_leaves_nothing(disk: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        (Path(folder) / "key").mkdir()
        done = run(disk, "secret", "get", "cloud", "--output", f"{folder}/key")
        assert done.returncode in (73, 74) and os.listdir(folder) == ["key"]
        assert run(disk, "secret", "get", "nothing", "--output", f"{folder}/none").returncode == 64
        assert run(disk, "secret", "get", "cloud", "--output", f"{folder}/no/folder").returncode == 74
        assert os.listdir(folder) == ["key"]


def test_real_socket_activation_starts_the_service_and_the_request_waits(disk: Path, tmp_path: Path) -> None:
    """systemd's own systemd-socket-activate passes the socket, by the protocol that units use."""
    path = tmp_path / "s"
    command = ["systemd-socket-activate", "-l", str(path), sys.executable, "-m", "mpagent", "--root", str(disk)]
    process = subprocess.Popen([*command, "credentials", "serve"], stderr=subprocess.PIPE, cwd=Path.cwd())
    try:
        while not path.exists():
            time.sleep(0.02)
        assert ask(path, ASKED) == CLOUD
        assert ask(path, ASKED) == CLOUD
    finally:
        process.terminate()
        process.communicate()


def test_service_that_is_given_no_socket_or_two_says_so(disk: Path, tmp_path: Path) -> None:
    lonely = run(disk, "credentials", "serve")
    assert lonely.returncode == 64 and b"--listen" in lonely.stderr
    for words, what in (
        (["-l", str(tmp_path / "a"), "-l", str(tmp_path / "b")], b"2 sockets"),
        (["--seqpacket", "-l", str(tmp_path / "c")], b"ListenStream="),
    ):
        process = subprocess.Popen(
            [
                "systemd-socket-activate",
                *words,
                sys.executable,
                "-m",
                "mpagent",
                "--root",
                str(disk),
                "credentials",
                "serve",
            ],
            stderr=subprocess.PIPE,
        )
        path = Path(words[-1])
        while not path.exists():
            time.sleep(0.02)
        kind = socket.SOCK_SEQPACKET if "--seqpacket" in words else socket.SOCK_STREAM
        with socket.socket(socket.AF_UNIX, kind) as line:
            line.connect(str(path))
            told = process.communicate(timeout=60)[1]
        assert process.returncode == 78 and what in told


def test_real_systemd_cryptsetup_is_served_the_key_file_of_its_volume(disk: Path, tmp_path: Path) -> None:
    """systemd's own program binds its own name and reads from our socket; strace shows what it read.

    No device is made: there need not be a device mapper here, and the key comes before it.
    """
    (tmp_path / "device").write_bytes(bytes(1024 * 1024))
    trace = tmp_path / "trace"
    with serving(disk, tmp_path / "run") as running:
        for volume in ("data", "other"):
            words = ["attach", volume, str(tmp_path / "device"), str(running.path), "plain,headless=1,tries=1"]
            watched = ["strace", "-f", "-xx", "-s", "4096", "-e", "trace=read", "-A", "-o", str(trace), CRYPTSETUP]
            subprocess.run([*watched, *words], capture_output=True, timeout=100, check=False)
            assert ("".join(f"\\x{one:02x}" for one in DISK) in trace.read_text()) == (volume == "data")
            trace.unlink()
        assert running.told.count("served slot 'disk'") == 1 and "/cryptsetup/other'" in running.told
