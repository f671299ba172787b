"""The program as an operator starts it: a real process, a real TLS line, a real issuer behind it, a simulated chip."""

import fcntl
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mpagent.journal import FILES
from mpagent.version import VERSION
from mpsim.board import BoardPlan, make_board
from mpwire import mp
from tests.line import NOW, STATIC_HEX, Oem, class_point

from .conftest import AS_ROOT, Authority, Peer, mounted
from .test_link import CBOR, http

MakePeer = Callable[..., Peer]
STATE = "var/lib/mpagent"


class Counter:
    """A place where boards enroll: an issuer behind TLS, answered by the thread of the test."""

    def __init__(self, oem: Oem, make_peer: MakePeer, authority: Authority) -> None:
        self.oem, self.authority = oem, authority
        self.asked: queue.Queue[tuple[socket.socket, bytes]] = queue.Queue()
        self.peer = make_peer(lambda line, body: self.asked.put((line, body)), authority.issue())
        self.answer = oem.hear

    def make_board(self, folder: Path, closed: bool = True) -> Path:
        """A board with this installation's image on its disk; returns the disk."""
        make_board(folder, BoardPlan(closed=closed))
        disk = folder / "disk"
        slots = "".join(f'[[slot]]\nname = "{one.name}"\nkind = "{one.kind}"\n' for one in self.oem.image.slots)
        (disk / "usr/lib/mpagent/anchors.toml").write_text(
            f'realm = "lab"\nproduct = "camera"\nbuild_time = {NOW - 86_400}\nswname = "provisioning"\n'
            f'swversion = "1.2.3"\nroots = ["{self.oem.image.roots[0].hex()}"]\n'
            f'mp_key_ids = ["{mp.key_id(class_point()).hex()}"]\n'
            f'tls_roots = ["""\n{self.authority.pem}"""]\n'
            '[board]\nattest = "sim"\nseal = "sim"\nkeys = "sealed"\nsoc = "sim"\nsim_chip = "../chip"\n' + slots
        )
        (disk / "etc/mpagent/mpagent.toml").write_text(f'server = "{self.peer.address}"\n')
        return disk

    def run(
        self, disk: Path, *words: str, clock: str | None = None, prefix: Sequence[str] = ()
    ) -> "subprocess.CompletedProcess[bytes]":
        """One mpagent, from start to end."""
        before = ["faketime", clock] if clock else []
        command = [*prefix, *before, sys.executable, "-m", "mpagent", "--root", str(disk), *words]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        limit = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < limit:
            try:
                line, body = self.asked.get(timeout=0.02)
            except queue.Empty:
                continue
            try:
                line.sendall(http(b"200 OK", CBOR, self.answer(body)))
            except OSError:
                continue
        out, error = process.communicate(timeout=10)
        return subprocess.CompletedProcess(command, process.returncode, out, error)

    def enroll(self, disk: Path) -> dict[str, object]:
        """`enroll --once --json` that passes."""
        done = self.run(disk, "enroll", "--once", "--json")
        assert done.returncode == 0, done.stderr.decode()
        result = json.loads(done.stdout)
        assert result["result"] == "PASS"
        return dict(result)


@pytest.fixture
def counter(tmp_path: Path, make_peer: MakePeer, authority: Authority) -> Iterator[Counter]:
    oem = Oem(tmp_path / "oem")
    yield Counter(oem, make_peer, authority)
    oem.stop()


def list_state(disk: Path) -> dict[str, bytes]:
    folder = disk / STATE
    return {
        str(one.relative_to(folder)): one.read_bytes()
        for one in folder.rglob("*")
        if one.is_file() and one.name != "lock"
    }


def test_board_enrolls_shows_its_secrets_and_stays_enrolled(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    result = counter.enroll(disk)
    assert (result["stage"], result["job"], result["product"], result["ledger_index"] is not None) == (
        "done",
        "job-1",
        "camera",
        True,
    )
    assert result["sealer"] == "sim"
    assert {one["name"] for one in result["slots"]} == {"disk", "cloud", "licence", "identity"}  # type: ignore[attr-defined]
    assert counter.oem.granted() == 1

    assert counter.run(disk, "secret", "get", "licence").stdout == bytes.fromhex(STATIC_HEX)
    assert counter.run(disk, "secret", "get", "--hex", "licence").stdout == STATIC_HEX.encode() + b"\n"
    listed = counter.run(disk, "secret", "list").stdout.decode()
    assert "licence" in listed and STATIC_HEX not in listed
    status = json.loads(counter.run(disk, "status", "--json").stdout)
    assert (status["stage"], status["latched"], status["ueid"]) == ("done", None, result["ueid"])

    counter.peer.close()  # a provisioned board needs no server
    again = counter.run(disk, "enroll", "--once")
    assert again.returncode == 0
    assert again.stdout.startswith(b"PASS ")
    assert b"4 slots unsealed just now" in again.stderr
    assert counter.oem.granted() == 1


def test_no_secret_is_in_what_enroll_prints_or_leaves(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    done = counter.run(disk, "--debug", "enroll", "--once")
    assert done.returncode == 0
    everything = done.stdout + done.stderr + b"".join(list_state(disk).values())
    secrets = [counter.run(disk, "secret", "get", name).stdout for name in ("disk", "cloud", "licence")]
    assert all(len(one) >= 24 for one in secrets)
    assert not [one for one in secrets if one in everything or one.hex().encode() in everything]


@pytest.mark.parametrize("clock", ["1970-01-02 00:00:00", "2100-01-01 00:00:00"])
def test_clock_far_off_changes_nothing(counter: Counter, tmp_path: Path, clock: str) -> None:
    disk = counter.make_board(tmp_path / "b1")
    done = counter.run(disk, "enroll", "--once", clock=clock)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Warning" not in done.stderr


def test_cloned_disk_does_not_pass_and_stays_whole(counter: Counter, tmp_path: Path) -> None:
    """P12: the finished disk of one board on another chip."""
    disk = counter.make_board(tmp_path / "b1")
    counter.enroll(disk)
    clone = counter.make_board(tmp_path / "b2")
    shutil.rmtree(clone / STATE)
    shutil.copytree(disk / STATE, clone / STATE)
    before = list_state(clone)

    done = counter.run(clone, "enroll", "--once", "--json")
    assert done.returncode == 65
    error = json.loads(done.stdout)["error"]
    assert (error["check"], error["retry"]) == ("ForeignDisk", "never")
    assert counter.run(clone, "secret", "get", "licence").returncode == 65
    assert counter.run(clone, "secret", "get", "licence").stdout == b""
    assert list_state(clone) == before
    assert counter.oem.granted() == 1


def test_damaged_vault_latches_and_every_later_start_says_so(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    counter.enroll(disk)
    (vault,) = (disk / STATE / "vault").iterdir()
    vault.write_bytes(vault.read_bytes()[:-40])

    first = counter.run(disk, "enroll", "--once")
    assert first.returncode == 65
    assert b"set aside as gen-000001.damaged-1" in first.stderr
    assert (disk / STATE / "latch").exists()
    again = counter.run(disk, "enroll", "--once")
    assert (again.returncode, b"latched by an earlier run" in again.stderr) == (65, True)
    assert counter.run(disk, "secret", "get", "licence").returncode == 65
    assert "vault generation 1" in json.loads(counter.run(disk, "status", "--json").stdout)["latched"]


@pytest.mark.parametrize("both", [False, True])
def test_damaged_journal_is_reported_and_recovered(counter: Counter, tmp_path: Path, both: bool) -> None:
    """P3, P7: one damaged file costs a step, two cost the whole way; never the secrets, never a count."""
    disk = counter.make_board(tmp_path / "b1")
    counter.enroll(disk)
    secret = counter.run(disk, "secret", "get", "disk").stdout
    files = [disk / STATE / name for name in FILES]
    newest = max(files, key=lambda one: one.read_bytes()[:8])
    for one in files if both else [newest]:
        one.write_bytes(b"worn out")

    done = counter.run(disk, "enroll", "--once")
    assert done.returncode == 0, done.stderr.decode()
    assert b"set aside as" in done.stderr
    assert len(list((disk / STATE).glob("record-*.damaged-1"))) == (2 if both else 1)
    assert counter.run(disk, "secret", "get", "disk").stdout == secret
    assert counter.oem.granted() == 1


def test_full_disk_stops_before_a_receipt_and_goes_on_with_room(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    state = disk / STATE
    with mounted(state, "size=96k"):
        (state / "ballast").write_bytes(bytes(96 * 1024 - 4 * 4096))
        done = counter.run(disk, "enroll", "--once")
        assert done.returncode == 73, done.stderr.decode()
        assert b"No space left" in done.stderr
        assert not [one for one in list_state(disk) if one.endswith(".new")]
        assert counter.oem.rows("SELECT * FROM units WHERE state = 'provisioned'") == []
        (state / "ballast").unlink()
        counter.enroll(disk)
    assert counter.oem.granted() == 1


def test_read_only_disk_says_so(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    with mounted(disk / STATE, "ro"):
        done = counter.run(disk, "enroll", "--once")
    assert done.returncode == 73
    assert b"Read-only file system" in done.stderr
    assert counter.peer.bodies == []


def test_finished_board_shows_its_secrets_on_a_partition_that_became_read_only(
    counter: Counter, tmp_path: Path
) -> None:
    """A kernel remounts a failing flash so; a factory may do it on purpose once the board is done."""
    disk = counter.make_board(tmp_path / "b1")
    with mounted(disk / STATE, "size=96k"):
        counter.enroll(disk)
        (disk / STATE / ".record-a.new").write_bytes(b"half")  # left by a cut just before
        asked = len(counter.peer.bodies)
        subprocess.run([*AS_ROOT, "mount", "-o", "remount,ro", disk / STATE], check=True)
        counter.enroll(disk)
        checked = counter.run(disk, "doctor").stdout
        assert b"OK       state folder   read-only, which is enough for a finished board" in checked
        assert b"OK       vault          generation 1, " in checked
    assert len(counter.peer.bodies) == asked


@pytest.mark.parametrize("accident", ["damaged", "gone"])
def test_status_and_doctor_name_a_broken_vault_before_enroll_latches_it(
    counter: Counter, tmp_path: Path, accident: str
) -> None:
    disk = counter.make_board(tmp_path / "b1")
    counter.enroll(disk)
    vault = disk / STATE / "vault/gen-000001"
    vault.write_bytes(vault.read_bytes() + b"x") if accident == "damaged" else vault.unlink()
    before = list_state(disk)

    status = json.loads(counter.run(disk, "status", "--json").stdout)
    assert len(status["damaged"]) == 1 and accident in status["damaged"][0]
    listed, checked = counter.run(disk, "secret", "list"), counter.run(disk, "doctor")
    assert (listed.returncode, listed.stdout) == (65, b"") and accident.encode() in listed.stderr
    assert checked.returncode == 65 and b"BROKEN   vault " in checked.stdout
    assert list_state(disk) == before

    assert counter.run(disk, "enroll", "--once").returncode == 65
    assert (disk / STATE / "latch").exists()


@pytest.mark.parametrize("thing", ["lock", "folder"])
def test_what_is_no_file_in_the_state_folder_is_named(counter: Counter, tmp_path: Path, thing: str) -> None:
    disk = counter.make_board(tmp_path / "b1")
    if thing == "lock":
        (disk / STATE / "lock").mkdir()
    else:
        (disk / STATE).rmdir()
        (disk / STATE).touch()
        assert b"BROKEN   state folder " in counter.run(disk, "doctor").stdout
    done = counter.run(disk, "enroll", "--once")
    assert done.returncode == 74 and b"nothing but what mpagent made belongs there" in done.stderr
    assert counter.peer.bodies == []


def test_nothing_is_written_into_a_file_that_took_the_number_of_a_closed_output(
    counter: Counter, tmp_path: Path
) -> None:
    """Started without standard output or error, the next files opened get their numbers."""
    disk = counter.make_board(tmp_path / "b1")
    silent = counter.run(disk, "enroll", "--once", prefix=("sh", "-c", 'exec "$@" >&- 2>&-', "sh"))
    assert silent.returncode == 73, "nobody could read the result"
    lost = counter.run(disk, "secret", "get", "disk", prefix=("sh", "-c", 'exec "$@" >&-', "sh"))
    assert (lost.returncode, b"standard output is closed" in lost.stderr) == (73, True)
    secret = counter.run(disk, "secret", "get", "disk").stdout
    assert len(secret) == 32 and not [name for name, content in list_state(disk).items() if secret in content]
    assert (disk / STATE / "lock").read_bytes().startswith(b"process ")


def test_two_at_once_the_second_names_the_first(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    with open(disk / STATE / "lock", "w", encoding="ascii") as file:
        file.write("process 4711 (mpagent enroll)")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        done = counter.run(disk, "enroll", "--once")
        assert done.returncode == 75
        assert b"process 4711 (mpagent enroll) holds" in done.stderr
        assert counter.run(disk, "status").returncode == 0  # needs no lock
    assert counter.peer.bodies == []
    counter.enroll(disk)


def test_refusal_names_the_check_and_leaves_the_board_retryable(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1", closed=False)
    done = counter.run(disk, "enroll", "--once", "--json")
    assert done.returncode == 77
    result = json.loads(done.stdout)
    assert (result["result"], result["stage"], result["error"]["exit_code"]) == ("FAIL", "proven", 77)
    assert not (disk / STATE / "latch").exists()


def test_nonsense_of_the_server_is_a_protocol_failure(counter: Counter, tmp_path: Path) -> None:
    counter.answer = lambda raw: b"\xff"
    disk = counter.make_board(tmp_path / "b1")
    done = counter.run(disk, "enroll", "--once")
    assert done.returncode == 76
    assert done.stdout.startswith(b"FAIL ")


@pytest.mark.parametrize(("number", "shell_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_while_waiting_ends_by_the_signal_and_goes_on_later(
    counter: Counter, tmp_path: Path, number: signal.Signals, shell_code: int
) -> None:
    disk = counter.make_board(tmp_path / "b1")
    settings = disk / "etc/mpagent/mpagent.toml"
    before = settings.read_text()
    settings.write_text('server = "https://127.0.0.1:1"\n')
    process = subprocess.Popen(
        [sys.executable, "-m", "mpagent", "--root", str(disk), "enroll"], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stderr is not None
    while b"trying again" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=10)
    assert process.returncode == -number == 128 - shell_code
    settings.write_text(before)
    counter.enroll(disk)


def test_waiting_ends_at_its_limit(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    (disk / "etc/mpagent/mpagent.toml").write_text('server = "https://127.0.0.1:1"\nwait_limit_s = 3\n')
    done = counter.run(disk, "enroll", "--wait")
    assert done.returncode == 69
    assert b"trying again in" in done.stderr


@pytest.mark.parametrize(
    "words",
    [[], ["enrol"], ["enroll", "--onse"], ["enroll", "--once", "--wait"], ["secret"], ["secret", "get"], ["inspect"]],
)
def test_usage_error_is_one_line_and_64(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "mpagent", *words], capture_output=True, timeout=20)
    assert (done.returncode, done.stderr.count(b"\n"), done.stdout) == (64, 1, b"")


def test_secret_goes_to_no_terminal_and_to_no_full_disk(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    counter.enroll(disk)
    master, slave = os.openpty()
    command = [sys.executable, "-m", "mpagent", "--root", str(disk), "secret", "get", "licence"]
    done = subprocess.run(command, stdout=slave, stderr=subprocess.PIPE, timeout=20)
    os.set_blocking(master, False)
    with pytest.raises(BlockingIOError):
        os.read(master, 100)
    assert (done.returncode, b"--hex" in done.stderr) == (64, True)
    with open("/dev/full", "wb") as full:
        assert subprocess.run(command, stdout=full, stderr=subprocess.DEVNULL, timeout=20).returncode == 73
    missing = counter.run(disk, "secret", "get", "nothing")
    assert (missing.returncode, b"no secret 'nothing'" in missing.stderr, missing.stdout) == (64, True, b"")


def test_evidence_tells_ids_and_who_vouches_but_no_key(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    done = counter.run(disk, "evidence", "--json")
    found = json.loads(done.stdout)
    assert found["attester_id"] == mp.key_id(class_point()).hex()
    assert found["facts"]["life_cycle"]["value"] == "closed"
    assert class_point()[1:33].hex().encode() not in done.stdout
    assert list_state(disk) == {}


def test_inspect_prints_what_went_over_the_line(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    counter.enroll(disk)
    message = tmp_path / "hello.cbor"
    message.write_bytes(counter.peer.bodies[0])
    assert b"camera" in counter.run(disk, "inspect", str(message)).stdout
    message.write_bytes(b"\xff")
    assert counter.run(disk, "inspect", str(message)).returncode == 76
    assert counter.run(disk, "inspect", str(tmp_path / "missing")).returncode == 64


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell: str) -> None:
    done = subprocess.run([sys.executable, "-m", "mpagent", "completion", shell], capture_output=True, timeout=20)
    words = done.stdout.decode()
    assert all(name in words for name in ("enroll", "status", "doctor", "secret", "evidence", "inspect", "--once"))
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, check=True, timeout=20)


LIST_MODULES = """
import sys
from mpagent.cli import main
try:
    main(sys.argv[1:])
finally:
    print(*sorted(sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (["--version"], ("requests", "cryptography", "tpm2_pytss", "ssl", "json", "mpwire.codec", "mpsim")),
        (["status"], ("requests", "cryptography.x509", "tpm2_pytss", "ssl", "mpsim")),
    ],
)
def test_nothing_heavy_is_imported_at_start(
    counter: Counter, tmp_path: Path, words: list[str], heavy: tuple[str, ...]
) -> None:
    disk = counter.make_board(tmp_path / "b1")
    command = [sys.executable, "-c", LIST_MODULES, "--root", str(disk), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    loaded = set(done.stderr.split())
    assert done.returncode == 0 and "mpagent.cli" in loaded
    assert loaded & set(heavy) == set()


def test_version_is_the_wheels() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION


ASK_KERNEL = """
import resource
from mpwire.guard import guard
found = guard()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(found.memory_lock, found.core_dump, resource.getrlimit(resource.RLIMIT_CORE), status["VmLck"].split()[0])
"""


def test_memory_is_locked_and_no_core_is_written() -> None:
    """P8. Without the right to lock, the reason is told and nothing breaks."""
    done = subprocess.run([sys.executable, "-c", ASK_KERNEL], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    *lock, core, low, high, locked = done.stdout.split()
    assert (core, low, high) == ("None", "(0,", "0)")
    assert int(locked) > 0 if lock == ["None"] else "LimitMEMLOCK" in " ".join(lock)


def test_machine_without_the_right_to_lock_still_runs() -> None:
    """An allocation after a half-granted lock must not kill an enrollment."""
    without = ["setpriv", "--bounding-set", "-ipc_lock"] if os.geteuid() == 0 else []
    code = ASK_KERNEL + "\nbig = bytes(50_000_000)"
    command = ["bash", "-c", 'ulimit -l 64; exec "$@"', "-", *without, sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert "LimitMEMLOCK" in done.stdout
