"""The small file that says how a run stands: what it may be believed, and what it may never cost."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mpagent.standing import STANDING_MAX_BYTES, Standing, StandingFile, State, read_boot

from .test_cli import Counter, counter, list_state  # noqa: F401  # the fixture

NOW = Standing(State.PASS, stage="done", text="4 slots unsealed in this boot", boot=read_boot(), process=os.getpid())


def read(disk: Path) -> Standing:
    found = StandingFile(disk / "run/mpagent").read()
    assert found is not None
    return found


def test_standing_comes_back_as_it_was_and_everybody_may_read_it(tmp_path: Path) -> None:
    file = StandingFile(tmp_path / "run/mpagent")
    before = os.umask(0o077)
    try:
        file.write(NOW)
        file.write(NOW._replace(run="00" * 8))
    finally:
        os.umask(before)
    assert file.read() == NOW._replace(run="00" * 8)
    (path,) = (tmp_path / "run/mpagent").iterdir()
    assert path.stat().st_mode & 0o777 == 0o644


def test_pass_of_an_earlier_boot_is_not_shown(tmp_path: Path) -> None:
    """T-501 Cloned disk: PASS in a file that was copied, or kept where /run is no memory, is of another boot (P12)."""
    file = StandingFile(tmp_path)
    file.write(NOW._replace(boot="00000000-0000-0000-0000-000000000000"))
    assert file.read() is None


@pytest.mark.parametrize("state", [State.WORKING, State.WAITING])
def test_run_that_was_killed_reads_as_stopped(tmp_path: Path, state: State) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    file = StandingFile(tmp_path)
    file.write(NOW._replace(state=state, process=gone.pid))
    found = file.read()
    assert found is not None and (found.state, found.text) == (State.STOPPED, "mpagent ended without a word")
    file.write(NOW._replace(state=state, process=1))  # of somebody else
    assert file.read() == NOW._replace(state=state, process=1)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"state": "pass"}',
        b"[" * 10_000,
        b" " * (STANDING_MAX_BYTES + 1) + json.dumps(NOW._asdict()).encode(),
        json.dumps({**NOW._asdict(), "state": "passed"}).encode(),
        json.dumps({**NOW._asdict(), "since_s": True}).encode(),
        json.dumps({**NOW._asdict(), "text": ["PASS"]}).encode(),
        json.dumps({**NOW._asdict(), "more": 1}).encode(),
    ],
)
def test_nonsense_is_no_standing(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "standing").write_bytes(raw)
    assert StandingFile(tmp_path).read() is None


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_is_no_file_is_no_standing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run" / "standing"
    path.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        StandingFile(tmp_path).write(NOW)
        path.symlink_to(tmp_path / "standing")
    assert StandingFile(path.parent).read() is None


def test_writing_goes_through_no_link_that_somebody_laid(tmp_path: Path) -> None:
    """T-504 Link: the folder belongs to the agent's user; root who enrolls by hand must not write where that points."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    for name in ("standing", f".standing.{os.getpid()}"):
        (tmp_path / name).symlink_to(victim)
    StandingFile(tmp_path).write(NOW)
    assert victim.read_text() == "untouched"
    assert StandingFile(tmp_path).read() == NOW


def test_every_end_of_a_run_can_be_read_afterwards(counter: Counter, tmp_path: Path) -> None:  # noqa: F811
    disk = counter.make_board(tmp_path / "b1")
    result = counter.enroll(disk)
    done = read(disk)
    assert (done.state, done.stage, done.ueid, done.product) == (State.PASS, "done", result["ueid"], "camera")
    assert len(bytes.fromhex(done.run)) == 8 and done.exit_code == 0
    counted = json.loads(counter.run(disk, "status", "--json").stdout)["last_run"]
    assert (counted["state"], counted["run"]) == ("pass", done.run)

    refused = counter.make_board(tmp_path / "b2", closed=False)
    counter.run(refused, "enroll", "--once")
    failed = read(refused)
    assert (failed.state, failed.stage, failed.check, failed.exit_code) == (State.FAIL, "proven", "NotClosed", 77) or (
        failed.check == "life-cycle"
    )
    assert failed.next == "close the part, reboot it, and enroll again"
    shown = counter.run(refused, "status").stdout.decode()
    assert f"last run      fail: {failed.check} {failed.text}. Next: {failed.next}\n" in shown

    (refused / "etc/mpagent/mpagent.toml").write_text("verify = false\n")
    assert counter.run(refused, "enroll", "--once").returncode == 78
    assert (read(refused).check, read(refused).exit_code) == ("ConfigWrong", 78)


def test_stopped_run_says_so(counter: Counter, tmp_path: Path) -> None:  # noqa: F811
    disk = counter.make_board(tmp_path / "b1")
    (disk / "etc/mpagent/mpagent.toml").write_text('server = "https://127.0.0.1:1"\n')
    command = [sys.executable, "-m", "mpagent", "--root", str(disk), "enroll"]
    for number, text in ((signal.SIGTERM, "mpagent was stopped"), (signal.SIGKILL, "mpagent ended without a word")):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.stderr is not None
        while b"trying again" not in process.stderr.readline():
            assert process.poll() is None
        waiting = read(disk)
        assert (waiting.state, waiting.check, waiting.stage) == (State.WAITING, "NoServer", "greeted")
        assert waiting.next == "wait; if it lasts, bring the line up and run enroll again; nothing is lost"
        process.send_signal(number)
        process.communicate(timeout=10)
        assert (read(disk).state, read(disk).text) == (State.STOPPED, text)


def test_no_secret_is_in_the_standing(counter: Counter, tmp_path: Path) -> None:  # noqa: F811
    disk = counter.make_board(tmp_path / "b1")
    counter.enroll(disk)
    left = b"".join(one.read_bytes() for one in (disk / "run").rglob("*") if one.is_file())
    secrets = [counter.run(disk, "secret", "get", name).stdout for name in ("disk", "cloud", "licence")]
    assert left and not [one for one in secrets if one in left or one.hex().encode() in left]


def test_place_that_takes_no_standing_costs_one_line_and_no_enrollment(
    counter: Counter,  # noqa: F811
    tmp_path: Path,
) -> None:
    disk = counter.make_board(tmp_path / "b1")
    (disk / "run").write_text("not a folder")
    done = counter.run(disk, "enroll", "--once")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.count(b"nobody will see how this run stands") == 1
    assert list_state(disk)


def test_texts_of_any_length_fit(tmp_path: Path) -> None:
    file = StandingFile(tmp_path)
    long: dict[str, Any] = {name: "\u2603" * 100_000 for name in ("text", "next", "check", "product")}
    file.write(NOW._replace(**long))
    found = file.read()
    assert found is not None and len(found.text) == 1_024
