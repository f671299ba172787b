"""What the units let a process ask of the kernel holds all that the agent asks: seen by strace over whole runs."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.mpagent.conftest import authority, make_peer  # noqa: F401  # of that one
from tests.mpagent.test_cli import Counter, counter  # noqa: F401  # the fixture
from tests.offline.bench import ITEMS
from tests.offline.maker import Maker
from tests.offline.shell import Shell

from .test_units import Unit

CALL: Final = re.compile(r"^(?:\d+ +)?(\w+)\(", re.MULTILINE)
OF_HARDWARE: Final = {
    "add_key",
    "keyctl",
    "mlockall",
    "prctl",
    "ioctl",
    "bind",
    "setsockopt",
    "sendmsg",
    "kill",
    "prlimit64",
}
"""What only a board with that hardware asks: kernel keys, OP-TEE, AF_ALG, PC/SC. Sources: mpagent/hal/caam/keyctl.py,
mpagent/hal/caam/af_alg.py, mpagent/hal/optee/calls.py, mpwire/guard.py."""


@cache
def expand(name: str) -> frozenset[str]:
    """The calls of a set, as the systemd that is installed here has it."""
    if not name.startswith("@"):
        return frozenset({name})
    shown = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", name],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stdout
    names = [line.strip() for line in shown.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return frozenset().union(*(expand(one) for one in names))


def allowed(unit: str) -> frozenset[str]:
    """First what is let through, then what is taken out of that again."""
    words = Unit(unit).words("Service", "SystemCallFilter")
    first = next(place for place, word in enumerate(words) if word.startswith("~"))
    taken = [word.lstrip("~") for word in words[first:]]
    return frozenset().union(*map(expand, words[:first])) - frozenset().union(*map(expand, taken))


def trace(path: Path, command: list[str]) -> list[str]:
    return ["strace", "-f", "-qq", "-e", "signal=none", "-o", str(path), *command]


def test_whole_enrollment_asks_for_nothing_that_the_unit_refuses(counter: Counter, tmp_path: Path) -> None:  # noqa: F811
    disk = counter.make_board(tmp_path / "b1")
    for turn in ("first", "again"):
        log = tmp_path / turn
        done = counter.run(disk, "enroll", "--wait", prefix=trace(log, []))
        assert done.returncode == 0, done.stderr.decode()
        called = set(CALL.findall(log.read_text()))
        assert {"mlockall", "openat", "connect"} & called
        assert called - allowed("mpagent.service") == set()


def test_taking_a_bundle_asks_for_nothing_that_the_unit_refuses(tmp_path: Path) -> None:
    """Wiped as well, from a file: discarding a partition is one more ioctl."""
    maker = Maker()
    shell = Shell(tmp_path / "b1", maker, more="[offline]\nwipe = true\n\n")
    shell.put(maker.make(ITEMS))
    for turn in ("first", "again"):
        log = tmp_path / turn
        done = shell.run("enroll", "--wait", prefix=trace(log, []))
        assert done.returncode == 0, done.stderr.decode()
        called = set(CALL.findall(log.read_text()))
        assert "openat" in called and called - allowed("mpagent.service") == set()


def test_face_asks_for_nothing_that_its_unit_refuses(tmp_path: Path) -> None:
    log = tmp_path / "face"
    command = [sys.executable, "-m", "mpagent", "--root", str(tmp_path), "face", "--once"]
    assert subprocess.run(trace(log, command), stdout=subprocess.DEVNULL, timeout=60).returncode == 0
    called = set(CALL.findall(log.read_text()))
    assert "openat" in called and called - allowed("mpagent-face@.service") == set()


@pytest.mark.parametrize("unit", ["mpagent.service", "mpagent-credentials.service", "mpagent-finish.service"])
def test_calls_of_hardware_that_no_test_has_are_let_through(unit: str) -> None:
    assert OF_HARDWARE - allowed(unit) == set()


@pytest.mark.parametrize(
    "call", ["mount", "init_module", "reboot", "ptrace", "bpf", "setuid", "swapon", "clock_settime"]
)
def test_what_an_intruder_would_ask_for_is_refused(call: str) -> None:
    assert call not in allowed("mpagent.service") and call not in allowed("mpagent-credentials.service")
