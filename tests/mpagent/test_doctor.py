"""`mpagent doctor`: what it says of boards that are whole, half dead or not there, and that it changes nothing."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from mpagent.checkup import Finding, State, find_worst
from mpagent.hal.tpm import open_tpm
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from tests.line import NOW, class_point

from .doctor_bench import set_board
from .test_cli import Counter, counter, list_state

__all__ = ["counter"]  # a fixture

SHIM = Path(__file__).parents[2] / "out" / "shim"
MP_SIGN = "8aaaf200-2450-11e4-abe2-0002a5d5c51c"


# The board as an operator meets it


def test_a_whole_board_has_a_line_for_each_ability(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    before = list_state(disk)
    done = counter.run(disk, "doctor", "--json")
    found = {one["ability"]: one for one in json.loads(done.stdout)}
    assert {name for name, one in found.items() if one["state"] == "broken"} == set(), done.stdout
    wanted = {"image", "state folder", "latch", "vault", "clock", "memory lock", "core dump", "part", "device tree"}
    wanted |= {"OP-TEE", "MP", "soc sim", "attest sim", "seal sim", "keys sealed", "choice", "life cycle", "server"}
    assert wanted <= found.keys()
    assert found["OP-TEE"]["state"] == found["part"]["state"] == "missing"
    assert done.returncode == 0  # what the image does not ask for may be missing
    assert set(found["image"]) == {"ability", "state", "cause", "next", "exit_code"}
    assert counter.peer.bodies == []  # it says nothing to the server
    assert list_state(disk) == before
    assert class_point()[1:33].hex().encode() not in done.stdout


def test_the_worst_failure_is_the_exit_code(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    counter.peer.close()
    line_down = counter.run(disk, "doctor")
    assert line_down.returncode == 69
    assert b"BROKEN   server" in line_down.stdout and b"Next: " in line_down.stdout
    shutil.rmtree(tmp_path / "b1/chip")
    chip_gone = counter.run(disk, "doctor")
    assert chip_gone.returncode == 74
    assert re.search(rb"(MISSING|BROKEN) +choice", chip_gone.stdout) and b"BROKEN   server" in chip_gone.stdout


@pytest.mark.parametrize(
    ("codes", "worst"),
    [((0, 0), 0), ((69, 74), 74), ((74, 77, 69), 77), ((77, 78), 78), ((78, 70), 70), ((70, 65, 69), 65),
     ((75, 69), 69), ((9,), 9)],
)  # fmt: skip
def test_codes_are_ordered_by_what_they_cost(codes: tuple[int, ...], worst: int) -> None:
    assert find_worst(Finding("x", State.BROKEN, "y", "", code) for code in codes) == worst


def test_doctor_asks_for_the_proof_of_closed_that_enroll_will_want(counter: Counter, tmp_path: Path) -> None:
    closed, opened = counter.make_board(tmp_path / "b1"), counter.make_board(tmp_path / "b2", closed=False)
    pinned = counter.run(closed, "doctor").stdout
    anchors = closed / "usr/lib/mpagent/anchors.toml"
    anchors.write_text(re.sub(r"(?m)^mp_key_ids = .*$", "mp_key_ids = []", anchors.read_text()))

    assert b"closed, shown in this boot by mp-key" in pinned
    assert b"closed, shown in this boot by secure-world" in counter.run(closed, "doctor").stdout
    refused = counter.run(opened, "doctor")
    assert refused.returncode == 77 and b"BROKEN   life cycle     the part is not closed" in refused.stdout
    shown = opened / "usr/lib/mpagent/anchors.toml"
    shown.write_text("allow_open = true\n" + shown.read_text())
    assert b"note     life cycle     open; this product takes open parts" in counter.run(opened, "doctor").stdout


def test_a_clock_that_is_wrong_is_a_note_and_no_failure(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    for clock, said in (("1980-01-01", b"before the image was built"), ("2099-01-01", b"over ten years after")):
        done = counter.run(disk, "doctor", clock=clock)
        assert said in done.stdout and done.returncode == 0
    good = time.strftime("%Y-%m-%d", time.gmtime(NOW))
    assert b"OK       clock" in counter.run(disk, "doctor", clock=good).stdout


def test_a_preferred_part_that_is_missing_costs_nothing_while_another_is_there(
    counter: Counter, tmp_path: Path
) -> None:
    disk = counter.make_board(tmp_path / "b1")
    tcti = f'tpm_tcti = "swtpm:path={tmp_path}/none"'
    set_board(disk, 'attest = ["tpm", "sim"]', 'seal = ["tpm", "sim"]', 'keys = ["tpm", "sealed"]', 'soc = "sim"', tcti,
              'sim_chip = "../chip"')  # fmt: skip
    done = counter.run(disk, "doctor")
    assert b"MISSING  seal tpm       as TPM" in done.stdout
    assert b"OK       choice         soc sim, attest sim, seal sim, keys sealed" in done.stdout
    assert done.returncode == 0
    set_board(disk, 'attest = "sim"', 'seal = "tpm"', 'keys = "sealed"', 'soc = "sim"', tcti, 'sim_chip = "../chip"')
    assert counter.run(disk, "doctor").returncode == 74


# Half dead


def test_a_board_with_nothing_is_examined_to_the_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mpagent", "--root", str(tmp_path), "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    found = {one["ability"]: one for one in json.loads(done.stdout)}
    assert (found["image"]["state"], found["image"]["exit_code"], done.returncode) == ("broken", 78, 78)
    assert {found[name]["state"] for name in ("part", "device tree", "OP-TEE", "OP-TEE build", "MP")} == {"missing"}
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_configuration_does_not_hide_the_hardware(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    (disk / "etc/mpagent/mpagent.toml").write_text("server = 3\n")
    done = counter.run(disk, "doctor")
    assert done.returncode == 78
    assert b"mpagent.toml" in done.stdout and b"OP-TEE" in done.stdout


class Asked(NamedTuple):
    """What became of one question, in a process without threads of its own."""

    findings: list[Finding]
    took_s: float
    left_behind: int
    """Processes that outlived the answer."""


def ask_alone(name: str, deadline_s: float = 5.0, *, needed: bool = True, asked: bool = True) -> Asked:
    """The question of that name in dying_questions."""
    words = [name, str(deadline_s), str(int(needed)), str(int(asked))]
    command = [sys.executable, "-m", "tests.mpagent.dying_questions", *words]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, timeout=60, check=True)
    told, took_s, left_behind = json.loads(done.stdout)
    return Asked([Finding(one[0], State(one[1]), *one[2:]) for one in told], took_s, left_behind)


@pytest.mark.parametrize(
    ("name", "cause", "exit_code"),
    [
        ("hang", "no answer within 0.5 s", 74),
        ("hang_deaf", "no answer within 0.5 s", 74),
        ("crash", "wait status 6", 74),
        ("leave", "the process that asked died", 74),
        ("stumble", "a bug in mpagent: ValueError at dying_questions.py", 70),
        ("gone", "it smokes", 74),
    ],
)
def test_a_question_that_dies_takes_nothing_with_it(name: str, cause: str, exit_code: int) -> None:
    asked = ask_alone(name, 0.5)
    (found,) = asked.findings
    assert (found.ability, found.state, found.exit_code) == ("thing", State.BROKEN, exit_code)
    assert cause in found.cause and "secret" not in found.cause
    assert asked.took_s < 5 and asked.left_behind == 0


def test_what_was_found_before_a_failure_is_told() -> None:
    first, then = ask_alone("some_then_gone").findings
    assert (first.ability, first.cause, then.cause) == ("first", "fine", "it smokes")
    assert then.next == "check that part and its driver"  # not "mpagent doctor tries each one"


def test_what_the_image_can_do_without_ends_no_command() -> None:
    asked, unasked = (ask_alone("absent", needed=False, asked=asked).findings[0] for asked in (True, False))
    assert (asked.state, asked.next, asked.exit_code) == (State.MISSING, "buy one", 0)
    assert unasked.next == "" and "does not ask for it" in unasked.cause
    assert ask_alone("absent").findings[0].exit_code == 74
    for name, code in (("tampered", 65), ("gone", 74), ("hang", 74)):
        # Named, and broken: an enrollment would stop at it.
        assert ask_alone(name, 0.2, needed=False).findings[0].exit_code == code
        assert ask_alone(name, 0.2, needed=False, asked=False).findings[0].exit_code == 0


def test_doctor_changes_nothing_and_leaves_damage_where_it_is(counter: Counter, tmp_path: Path) -> None:
    """T-305 A look at the board must not be the accident: a key made or set aside by it would be another board's."""
    disk = counter.make_board(tmp_path / "b1")
    with SoftTpm(tmp_path / "tpm") as tpm:
        set_board(disk, 'attest = "tpm"', 'seal = "tpm"', 'keys = "tpm"', 'soc = "none"', f'tpm_tcti = "{tpm.tcti}"')
        fresh = counter.run(disk, "doctor")
        assert b"its key is made when the board enrolls" in fresh.stdout and b"OK       seal tpm" in fresh.stdout
        assert b"OK       TPM            answers; 0 of " in fresh.stdout
        assert list_state(disk) == {}
        assert not (disk / "var/lib/mpagent/lock").exists()

        (disk / "var/lib/mpagent/shelf").mkdir()
        (disk / "var/lib/mpagent/shelf/tpm-ak").write_bytes(b"worn flash")
        damaged = counter.run(disk, "doctor")
        assert damaged.returncode == 65 and b"BROKEN   attest tpm     device key tpm-ak" in damaged.stdout
        assert list_state(disk) == {"shelf/tpm-ak": b"worn flash"}


# The terminal


def read_terminal(command: list[str], columns: int) -> list[str]:
    """What a program writes to a terminal of this width."""
    terminal, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs)
    os.close(theirs)
    content = b""
    with contextlib.suppress(OSError):  # EIO: the program has ended
        while part := os.read(terminal, 4096):
            content += part
    os.close(terminal)
    process.wait(timeout=20)
    return content.decode().splitlines()


@pytest.mark.parametrize("columns", [80, 48])
def test_lines_fit_the_terminal_and_stand_in_columns(tmp_path: Path, columns: int) -> None:
    command = [sys.executable, "-m", "mpagent", "--root", str(tmp_path), "doctor"]
    lines = read_terminal(command, columns)
    assert lines and max(map(len, lines)) <= columns
    assert all(line[:24].strip() == "" or line[23] == " " for line in lines)
    assert any(line.startswith(" " * 24 + "Next: ") for line in lines)


def test_a_pipe_gets_one_line_for_each_finding(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mpagent", "--root", str(tmp_path), "doctor"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    as_json = subprocess.run([*command, "--json"], capture_output=True, timeout=60)
    assert len(done.stdout.splitlines()) == len(json.loads(as_json.stdout))
    assert b". Next: flash an image that holds it" in done.stdout.splitlines()[0]


def test_a_counter_is_not_made_by_looking(counter: Counter, tmp_path: Path) -> None:
    """T-305 A TPM counter comes into being when it is first read."""
    disk = counter.make_board(tmp_path / "b1")
    with SoftTpm(tmp_path / "tpm") as tpm:
        set_board(disk, 'attest = "sim"', 'seal = "sim"', 'keys = "sealed"', 'soc = "sim"', 'sim_chip = "../chip"',
                  'counter = "tpm"', f'tpm_tcti = "{tpm.tcti}"')  # fmt: skip
        done = counter.run(disk, "doctor")
        assert b"OK       anti-rollback  tpm-nv, counts from the first enrollment on" in done.stdout
        with open_tpm(tpm.tcti, MemoryShelf()) as parts:
            tss = parts.chip.tss
            _, nv = parts.chip.run("listing", lambda esapi: esapi.get_capability(tss.TPM2_CAP.HANDLES, 0x01800000, 8))
            assert 0x01804D50 not in [int(one) for one in nv.data.handles]
        counter.enroll(disk)
        assert re.search(rb"OK +anti-rollback +tpm-nv, at [0-9]+", counter.run(disk, "doctor").stdout)


def test_a_cause_is_told_once(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    set_board(disk, 'attest = "tpm"', 'seal = "tpm"', 'keys = "tpm"', 'soc = "none"',
              f'tpm_tcti = "swtpm:path={tmp_path}/none"')  # fmt: skip
    done = counter.run(disk, "doctor").stdout
    assert done.count(b"no TPM answers at") == 1
    assert b"MISSING  choice         as TPM\n" in done
