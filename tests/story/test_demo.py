"""The demo as a stranger runs it, what it leaves behind, and how it ends when it is stopped or disappointed.

No other test runs it.
"""

import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.walls.rooms import ROOT

OUT = ROOT / "out" / "demo"
SLOTS = ["disk", "cloud", "licence", "identity"]
REFUSED = {
    "open-board": "life-cycle",
    "replayed-proof": "no Grant, the stored Closed; around a new challenge: nonce",
    "clone": "clone",
    "over-quota": "quota",
    "wrong-server-ca": "the server's certificate is not under the roots of this image",
    "tampered-grant": "grant-signature",
    "cloned-disk": "this disk belongs to another board",
}
SET_UP_DONE = b" ok job"
"""The demo's first line after which server and TPM run."""


@dataclass(frozen=True)
class Finished:
    """One whole run."""

    code: int
    printed: str
    report: dict[str, Any]
    left_over: list[str]


@pytest.fixture(scope="module")
def finished() -> Finished:
    """`make demo`, once for all tests of this file."""
    done = subprocess.run(["make", "-s", "demo"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((OUT / "report.json").read_text(encoding="utf-8"))
    return Finished(done.returncode, done.stdout + done.stderr, report, processes_of(OUT))


def processes_of(folder: Path) -> list[str]:
    """Command lines of all processes that name this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"{folder}/" in line:
            found.append(f"{path.parent.name} {line}")
    return found


def test_the_report_says_four_boards_seven_refusals_and_an_intact_ledger(finished: Finished) -> None:
    report = finished.report
    assert list(report) == ["provisioned", "refused", "unsealed_after_restart", "ledger_verified", "seconds"]
    assert report["refused"] == [{"attack": attack, "reason": reason} for attack, reason in REFUSED.items()]
    assert report["unsealed_after_restart"] is True and report["ledger_verified"] is True
    assert 0 < report["seconds"] < 60

    rows = report["provisioned"]
    keys = ["ueid", "attester", "grade", "sealer", "slots", "ledger_index", "seconds"]
    assert [list(row) for row in rows] == [keys] * 4
    assert [(row["attester"], row["grade"], row["sealer"]) for row in rows] == [("mp", "L", "sim")] * 3 + [
        ("tpm", "L", "tpm")
    ]
    assert all(row["slots"] == SLOTS and 0 < row["seconds"] < 60 for row in rows)
    assert all(len(bytes.fromhex(row["ueid"])) == 33 and row["ueid"].startswith("01") for row in rows)
    assert len({row["ueid"] for row in rows}) == 4
    indexes = [row["ledger_index"] for row in rows]
    assert indexes == sorted(set(indexes))


def test_every_board_and_every_attack_has_its_line_on_a_plain_terminal(finished: Finished) -> None:
    lines = finished.printed.splitlines()
    assert "\x1b" not in finished.printed
    for attack, reason in REFUSED.items():
        assert f" ok {attack:<16}  refused: {reason}" in lines
    head = next(number for number, line in enumerate(lines) if line.split()[:3] == ["device", "attester", "sealer"])
    for number, row in enumerate(finished.report["provisioned"]):
        cells = lines[head + 2 + number].split()
        assert cells[0] == f"board-{number + 1}"
        assert cells[-4:-2] == [str(len(SLOTS)), str(row["ledger_index"])]
        assert f"{row['attester']}, grade {row['grade']}" in lines[head + 2 + number]


def test_no_process_outlives_the_demo(finished: Finished) -> None:
    assert finished.left_over == []


def test_no_secret_is_printed_or_logged(finished: Finished) -> None:
    logs = b"".join(path.read_bytes() for path in sorted((OUT / "logs").iterdir()))
    assert b"board-1" in logs
    shown = logs + finished.printed.encode() + (OUT / "report.json").read_bytes()
    values = {}
    for name in ("disk", "cloud", "licence"):
        command = [Path(sys.executable).with_name("mpagent"), "--root", OUT / "board-1" / "disk", "secret", "get", name]
        values[name] = subprocess.run(command, capture_output=True, check=True).stdout
        assert len(values[name]) >= 24
        assert values[name] not in shown
        assert values[name].hex().encode() not in shown.lower()
    slots = {slot["name"]: slot for slot in tomllib.loads((OUT / "product.toml").read_text())["slot"]}
    assert values["licence"].hex() == slots["licence"]["value_hex"]


@contextmanager
def started(out: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A demo whose server and TPM run; in a group of its own, as a shell starts one."""
    command = [sys.executable, "-m", "mpsim.demo", "--out", str(out)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, cwd=ROOT
    ) as demo:
        assert demo.stdout is not None
        try:
            for line in demo.stdout:
                if line.startswith(SET_UP_DONE):
                    break
            else:
                pytest.fail("the demo ended before its server was set up")
            yield demo
        finally:
            demo.kill()


@pytest.mark.parametrize(
    ("number", "whole_group", "code"),
    [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143)],
    ids=["control-c", "terminated"],
)
def test_a_demo_that_is_stopped_leaves_no_process_and_no_report(
    tmp_path: Path, number: signal.Signals, whole_group: bool, code: int
) -> None:
    out = tmp_path / "demo"
    with started(out) as demo:
        running = "\n".join(processes_of(out))
        assert "mpserver" in running and "swtpm" in running
        if whole_group:
            os.killpg(demo.pid, number)
        else:
            demo.send_signal(number)
        printed, _ = demo.communicate(timeout=30)
    assert demo.returncode == code
    assert f"stopped by {number.name}".encode() in printed
    assert processes_of(out) == []
    assert not (out / "report.json").exists()


def test_a_demo_whose_server_dies_says_which_line_failed_and_where_to_look(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    with started(out) as demo:
        server = next(line for line in processes_of(out) if "mpserver" in line and " run " in line)
        os.kill(int(server.split()[0]), signal.SIGKILL)
        printed, _ = demo.communicate(timeout=60)
    assert demo.returncode == 70
    tail = printed.decode()[printed.decode().index("FAIL ") :].splitlines()
    assert tail[0].startswith("FAIL board-1 enrolls")
    assert [line.split()[0] for line in tail[1:4]] == ["expected", "came", "log"]
    assert "exit code 69" in tail[2]
    assert f"{out}/logs/board-1.log" in tail[3]
    assert processes_of(out) == []
    assert not (out / "report.json").exists()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    command = [sys.executable, "-m", "mpsim.demo", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 64
    assert "something else" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
