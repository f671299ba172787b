"""Full disks, read-only disks, two agents at once, logs that nobody can keep: one clear line, nothing half-written."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.power.processes import READY_MAX_S, BoardRun, Mpserver, open_books, strike

CANNOT_CREATE = 73
TRY_LATER = 75
OPERATOR = 77
DISK_BYTES = 64 * 1024
PAGE_BYTES = 4_096
FILLER = "filler"


@contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[None]:
    """A file system of its own at `path`, for as long as the block runs. Needs root, as `make setup` does."""
    path.mkdir(parents=True, exist_ok=True)
    owner = f"uid={os.getuid()},gid={os.getgid()}"
    become_root("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700,{owner}", "tmpfs", str(path))
    try:
        yield
    finally:
        become_root("umount", str(path))


def become_root(*command: str) -> None:
    """Run it as root."""
    subprocess.run([*(() if os.geteuid() == 0 else ("sudo", "-n")), *command], check=True)


def fill(folder: Path, leave_bytes: int) -> None:
    """All free space but this much."""
    free = os.statvfs(folder)
    (folder / FILLER).write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - leave_bytes)))


def list_unfinished(folder: Path) -> list[str]:
    """Temporary files of a write that did not come to its end."""
    return [path.name for path in folder.rglob("*") if path.is_file() and path.name.startswith(".")]


def check_one_clear_line(tried: subprocess.CompletedProcess[str], *words: str) -> None:
    """What failed, why and what to do, once; and no traceback."""
    lines = [line for line in tried.stderr.split("\n") if line and not line.startswith("mpagent: [")]
    assert len(lines) == 1, tried.stderr
    assert all(word in lines[0] for word in words), lines[0]


@pytest.mark.parametrize("pages", [0, 1, 2, 4, 6, 8])
def test_full_state_partition_is_reported_and_finished_once_there_is_room(
    server: Mpserver, tmp_path: Path, pages: int
) -> None:
    """The disk fills up at another file each time; what stood before stands, and no secret is lost."""
    board = BoardRun(tmp_path / "board", server)
    with small_disk(board.state, DISK_BYTES):
        fill(board.state, pages * PAGE_BYTES)

        tried = board.enroll()

        assert tried.returncode == CANNOT_CREATE, tried.stderr
        check_one_clear_line(tried, "No space left on device", str(board.state), "make room")
        assert list_unfinished(board.state) == []
        again = board.enroll()
        assert again.returncode == CANNOT_CREATE and list_unfinished(board.state) == []
        (board.state / FILLER).unlink()
        assert board.enroll().returncode == 0
        board.check()
        fill(board.state, 0)
        assert board.enroll().returncode == 0, "a finished board needs no room to show that it is"


def test_read_only_state_partition_is_reported_and_finished_once_it_is_writable(
    server: Mpserver, tmp_path: Path
) -> None:
    board = BoardRun(tmp_path / "board", server)
    with small_disk(board.state, DISK_BYTES):
        become_root("mount", "-o", "remount,ro", str(board.state))

        tried = board.enroll()

        assert tried.returncode == CANNOT_CREATE, tried.stderr
        check_one_clear_line(tried, "Read-only file system", str(board.state))
        assert list(board.state.iterdir()) == []
        become_root("mount", "-o", "remount,rw", str(board.state))
        assert board.enroll().returncode == 0
        board.check()


def test_second_agent_says_who_holds_the_board_and_the_first_goes_on(server: Mpserver, tmp_path: Path) -> None:
    """The first stands still in the middle of its exchange, the lock in its hands."""
    board = BoardRun(tmp_path / "board", server)
    log = tmp_path / "strace.log"
    first = subprocess.Popen(
        board.command(*strike("poll", 5, "SIGSTOP", log)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        holder = wait_stopped(log)
        before = {path.name: path.read_bytes() for path in board.state.iterdir() if path.is_file()}

        second = board.enroll()

        assert second.returncode == TRY_LATER
        check_one_clear_line(second, f"process {holder} (mpagent enroll) holds", str(board.state))
        assert {path.name: path.read_bytes() for path in board.state.iterdir() if path.is_file()} == before
        os.kill(holder, signal.SIGCONT)
        output, errors = first.communicate(timeout=READY_MAX_S)
        assert first.returncode == 0 and output.startswith("PASS "), errors
        board.check()
    finally:
        first.kill()
        first.communicate()


def wait_stopped(log: Path) -> int:
    """Process id of the agent below strace, once strace says that it stands still."""
    deadline = time.monotonic() + READY_MAX_S
    while time.monotonic() < deadline:
        told = log.read_text() if log.exists() else ""
        stopped = [line.split()[0] for line in told.splitlines() if line.endswith("--- stopped by SIGSTOP ---")]
        if stopped:
            return int(stopped[0])
        time.sleep(0.01)
    raise AssertionError("the agent never stopped")


SERVER_DISK_BYTES = 2 * 1024 * 1024


@pytest.mark.parametrize("pages", [0, 5, 18])
def test_full_disk_of_the_server_says_later_and_goes_on_once_there_is_room(tmp_path: Path, pages: int) -> None:
    """Full at the first page of a transaction or in the middle of it: no unit, no grant; and no restart is needed."""
    disk = tmp_path / "disk"
    with small_disk(disk, SERVER_DISK_BYTES):
        server = Mpserver(tmp_path / "oem", disk / "server")
        server.start()
        try:
            board = BoardRun(tmp_path / "board", server)
            fill(disk, pages * PAGE_BYTES)

            tried = board.enroll()

            assert tried.returncode == TRY_LATER, tried.stderr
            check_one_clear_line(tried, "the server asks us to come again")
            (disk / FILLER).unlink()
            with open_books(server) as books:
                standing = [books.count(table) for table in ("units", "grants", "slot_values")]
                assert standing in ([0, 0, 0], [1, 1, 3]), "half of a grant stands"
                assert books.granted() == standing[0]
            assert board.enroll().returncode == 0
            board.check()
        finally:
            server.stop()


def test_server_whose_log_cannot_be_kept_serves_all_the_same(tmp_path: Path) -> None:
    """A full disk under the log is no reason to stop a line."""
    server = Mpserver(tmp_path / "oem", quota=1)
    server.log_to = Path("/dev/full")
    server.start()
    try:
        one, more = BoardRun(tmp_path / "one", server), BoardRun(tmp_path / "more", server)
        assert one.enroll().returncode == 0
        one.check()
        refused = more.enroll()  # a refusal is what it wants to write down
        assert refused.returncode == OPERATOR and "quota" in refused.stdout, refused.stderr
        assert server.is_up
    finally:
        server.stop()


def test_agent_whose_progress_nobody_can_read_enrolls_all_the_same(server: Mpserver, tmp_path: Path) -> None:
    board = BoardRun(tmp_path / "board", server)
    with open("/dev/full", "w") as full:
        done = subprocess.run(board.command(), stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("PASS ")
    board.check()
