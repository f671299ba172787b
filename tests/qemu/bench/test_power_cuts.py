"""The plug is pulled between power-on and PASS: the next boot finishes the same enrollment. And the controls."""

import json
import random
import time
from collections.abc import Iterator

import pytest

from tests.qemu.board import Board, Partition, scrap
from tests.qemu.cuts import PHASES, Cut, cut, measure_phases
from tests.qemu.factory import END_MAX_S, PASS_MAX_S, Line, find_secrets, status, told
from tests.qemu.guest import Machine, Outcome
from tests.walls.rooms import ROOT

REPORT = ROOT / "out" / "qemu" / "cuts.json"
WRITE_S = 0.5
"""How long the writer of the controls counts before the cut."""
NUMBERS_MIN = 20


@pytest.fixture(scope="module")
def phases(line: Line) -> dict[str, float]:
    """Measured once, on this machine under its present load."""
    return measure_phases(line, line.make_board())


def start_again(board: Board) -> Outcome:
    """The next boot, to PASS; its power is cut again when the job is done, to save the time of an orderly end."""
    with board.boot("provision") as guest:
        guest.wait_for("BENCH-PROVISIONED", PASS_MAX_S)
        ended = guest.wait_for("BENCH-END", END_MAX_S)
        output = (board.work / "output").read_text(errors="replace")
    return Outcome(int(ended.split()[-1]), output)


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest, phases: dict[str, float]) -> Iterator[list[Cut]]:
    """Every cut of this run, written down whatever comes of it."""
    made: list[Cut] = []
    yield made
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps({"phases_s": phases, "cuts": [one._asdict() for one in made]}, indent=1) + "\n")


def test_power_cut_anywhere_before_pass_is_finished_by_the_next_boot(
    cut_number: int, line: Line, phases: dict[str, float], report: list[Cut]
) -> None:
    """T-581 Accident: a cut in each phase, with the disk's cache or without. One count, nothing in the clear."""
    board = line.make_board(partition=Partition.VOLATILE if cut_number // len(PHASES) % 2 else Partition.FILE)
    before = line.office.counted()
    made = cut(cut_number, line, board, phases, random.Random(cut_number))
    report.append(made)
    assert find_secrets(line, board) == [], made
    outcome = start_again(board)
    said = told(outcome)
    assert (said["target"], said["lockout"]) == ("active", "0x0"), f"{made}\n{outcome.output}"
    assert status(outcome)["stage"] == "done" and line.office.counted() == before + 1, made
    units = line.office.ask("device", "list")
    assert [one["state"] for one in units if one["ueid"] == status(outcome)["ueid"]] == ["provisioned"], made
    assert find_secrets(line, board) == [], made
    scrap(board)


def test_control_a_secret_left_on_a_disk_is_found(line: Line) -> None:
    """Somebody wrote one on the state partition and one on the root, and deleted both."""
    board = line.make_board()
    with board.boot("plant") as guest:
        outcome = guest.finish(PASS_MAX_S)
    assert outcome.status == 0, outcome.output
    assert find_secrets(line, board) == ["state.raw", "root.qcow2"]


def count_and_cut(board: Machine, job: str) -> tuple[int, int]:
    """(the last number on the console when the power went, the number on the disk in the next boot)."""
    with board.boot(job, bare=True) as guest:
        guest.wait_for(f"BENCH-NUMBER {NUMBERS_MIN}", PASS_MAX_S)
        time.sleep(WRITE_S)
        guest.cut_power()
        last = [line for line in guest.console().splitlines() if "BENCH-NUMBER" in line][-2]
    read = board.run("read_written", bare=True, limit_s=PASS_MAX_S)
    assert read.status == 0, read.output
    return int(last.split()[-1]), int(read.output.split()[-1])


@pytest.mark.parametrize("partition", [Partition.FILE, Partition.VOLATILE])
def test_what_was_synced_outlives_the_cut(line: Line, partition: Partition) -> None:
    """The bench itself loses nothing that a program synced, not even with the disk's cache."""
    said, kept = count_and_cut(line.make_board(partition=partition), "write_synced")
    assert kept >= said


def test_control_a_writer_without_sync_loses_what_it_said(line: Line) -> None:
    """Were this not so, the cuts above would miss a forgotten fsync."""
    said, kept = count_and_cut(line.make_board(), "write_loose")
    assert kept < said


def test_control_a_disk_that_drops_flushes_loses_what_was_synced(line: Line) -> None:
    """Were this not so, the cuts above would miss a flush that never reached the disk."""
    said, kept = count_and_cut(line.make_board(partition=Partition.LYING), "write_synced")
    assert kept < said
