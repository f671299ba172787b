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
from pathlib import Path
from typing import Any

import pytest

from tests.walls.rooms import ROOT

OUT = ROOT / "out" / "demo"
SLOTS = ["disk", "cloud", "licence", "identity"]
REFUSED = {
    "open-board": "life-cycle",
    "replayed-proof": "stored Closed, no Grant; new challenge: nonce",
    "clone": "clone",
    "over-quota": "quota",
    "wrong-server-ca": "certificate is not under the roots of this image",
    "tampered-grant": "grant-signature",
    "cloned-disk": "this disk belongs to another board",
}
SET_UP_DONE = b" ok job"
"""The demo's first line after which server and TPM run."""


def test_the_demo_comes_out_as_said_and_leaves_neither_process_nor_secret_behind() -> None:
    """One test, so that parallel workers run it once."""
    done = subprocess.run(["make", "-s", "demo"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    left_over = processes_of(OUT)

    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    assert left_over == []
    report = json.loads((OUT / "report.json").read_text(encoding="utf-8"))
    check_report(report)
    check_lines(printed, report)
    check_no_secret_is_shown(printed)


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


def check_report(report: dict[str, Any]) -> None:
    """Four boards, seven refusals, an intact ledger, and nothing else."""
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


def check_lines(printed: str, report: dict[str, Any]) -> None:
    """Every board and every attack has its line, without control codes where nobody sits at a terminal."""
    lines = printed.splitlines()
    assert "\x1b" not in printed
    for attack, reason in REFUSED.items():
        assert f" ok {attack:<16}  refused: {reason}" in lines
    head = next(number for number, line in enumerate(lines) if line.split()[:3] == ["device", "attester", "sealer"])
    for number, row in enumerate(report["provisioned"]):
        cells = lines[head + 2 + number].split()
        assert cells[0] == f"board-{number + 1}"
        assert cells[-4:-2] == [str(len(SLOTS)), str(row["ledger_index"])]
        assert f"{row['attester']}, grade {row['grade']}" in lines[head + 2 + number]


def check_no_secret_is_shown(printed: str) -> None:
    """Neither on the screen nor in a log nor in the report, as bytes or in hexadecimal."""
    logs = b"".join(path.read_bytes() for path in sorted((OUT / "logs").iterdir()))
    assert b"board-1" in logs
    shown = logs + printed.encode() + (OUT / "report.json").read_bytes()
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
