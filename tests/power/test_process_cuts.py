"""P7 on real processes: `mpagent enroll` and `mpserver run`, killed at system calls of every kind that matters."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from mpsim.swtpm import SoftTpm
from tests.power.processes import KILLED, BoardRun, Mpserver, axe, list_calls, open_books, watch
from tests.power.test_tpm_cuts import list_leftovers, read_ek, read_lockout_counter

NO_SERVER = 69
"""EX_UNAVAILABLE: nobody answered, or the line broke before an answer was whole."""
SOCKET = "<TCP:"


def finish(board: BoardRun) -> None:
    """The next start has to do it."""
    done = board.enroll()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PASS ")
    board.check()


@pytest.mark.parametrize("call", ["fdatasync", "rename"])
def test_agent_killed_at_any_durable_step_is_finished_by_the_next_start(
    server: Mpserver, tmp_path: Path, call: str
) -> None:
    for number in count(1):
        board = BoardRun(tmp_path / f"board{number}", server)
        cut = board.enroll(*axe(call, number))
        finish(board)
        if cut.returncode == 0:
            break
        assert cut.returncode == KILLED and "PASS" not in cut.stdout
    assert number > 9, "nine files are written in one enrollment"


@pytest.mark.parametrize("call", ["poll", "write"])
def test_agent_killed_at_any_step_on_the_line_is_finished_by_the_next_start(
    server: Mpserver, tmp_path: Path, call: str
) -> None:
    """poll comes before each request, while its answer is awaited, and once it was read; write is what TLS sends."""
    log = tmp_path / "calls"
    watched = BoardRun(tmp_path / "watched", server)
    assert watched.enroll(*watch(call, log)).returncode == 0
    ordinals = list_calls(log, SOCKET)
    assert len(ordinals) >= 8

    killed = 0
    for number in ordinals:
        board = BoardRun(tmp_path / f"board{number}", server)
        killed += board.enroll(*axe(call, number)).returncode == KILLED
        finish(board)
    assert killed >= len(ordinals) - 1  # a poll may be saved where an answer came at once


@pytest.fixture
def frail(tmp_path: Path) -> Iterator[Mpserver]:
    """A server that is killed and started again."""
    made = Mpserver(tmp_path / "oem")
    yield made
    made.stop()


SERVER_CALLS = [
    ("fdatasync", (1, 2, 3, 4)),
    ("pwrite64", (4, 9, 20, 28, 34, 38)),
    ("writev", (1, 2, 3, 4, 5)),
    ("sendto", (2, 5)),
]
"""Threads count their calls alone: the first to reach the number is struck. The first pwrite64 are of the start."""


@pytest.mark.parametrize(("call", "numbers"), SERVER_CALLS, ids=[call for call, _ in SERVER_CALLS])
def test_server_killed_while_a_board_enrolls_goes_on_where_it_was(
    frail: Mpserver, tmp_path: Path, call: str, numbers: tuple[int, ...]
) -> None:
    """The board hears nothing, or an answer that will be said again; the ledger has the board once."""
    frail.start()
    frail.stop()
    killed = 0
    for number in numbers:
        board = BoardRun(tmp_path / f"board{number}", frail)
        frail.start(*axe(call, number))
        tried = board.enroll()
        assert tried.returncode in (0, NO_SERVER), tried.stderr
        killed += not frail.is_up
        frail.stop()
        frail.start()
        finish(board)
        frail.stop()
    assert killed >= len(numbers) - 1
    with open_books(frail) as books:
        assert books.granted() == books.count("units") == books.count("grants") == len(numbers)


def test_both_killed_again_and_again_end_with_one_board(frail: Mpserver, tmp_path: Path) -> None:
    """One board, one server; each start of either is struck a step later than the one before."""
    frail.start()
    frail.stop()
    board = BoardRun(tmp_path / "board", frail)
    for number in range(1, 6):
        frail.start(*axe("fdatasync", number))
        board.enroll(*axe("fdatasync", number))
        frail.stop()
    frail.start()
    finish(board)
    with open_books(frail) as books:
        assert books.granted() == books.count("units") == books.count("grants") == 1


TPM_STRIKES = (6, 18, 30, 42, 54, 66)
"""Each TPM command is a write; an enrollment makes some 56 of them, beside those to files, line and screen."""


def test_agent_killed_between_tpm_commands_is_finished_and_leaves_the_tpm_free(tmp_path: Path) -> None:
    """The TPM keeps its power and what the dead agent had loaded; the next start clears it away."""
    with SoftTpm(tmp_path / "tpm") as tpm:
        server = Mpserver(tmp_path / "oem", eks=(read_ek(tpm),))
        server.anchors = server.print_anchors(
            "--attest", "tpm", "--seal", "tpm", "--keys", "tpm", "--tpm-tcti", tpm.tcti
        )
        server.start()
        try:
            board = BoardRun(tmp_path / "board", server)
            killed = [board.enroll(*axe("write", number)).returncode == KILLED for number in TPM_STRIKES]
            assert sum(killed) >= 3
            finish(board)
            assert list_leftovers(tpm) == [] and read_lockout_counter(tpm) == 0
        finally:
            server.stop()
