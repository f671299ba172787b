"""What systemd hears: over real sockets, in the words of sd_notify(3) and of the journal's native protocol."""

import json
import os
import shutil
from pathlib import Path

import pytest

from mpagent.notify import NAP_MAX_S, STEP_LIMIT_S, ServiceManager, SystemdJournal
from mpagent.standing import StandingFile, State
from tests.walls.rooms import ROOT

from .ears import listening, make_addresses, read_entry
from .test_cli import STATE, Counter, counter  # noqa: F401  # the fixture

ALIVE = f"EXTEND_TIMEOUT_USEC={STEP_LIMIT_S}000000"


@pytest.mark.parametrize("kind", [0, 1], ids=["path", "abstract"])
def test_service_manager_hears_words_and_signs_of_life(tmp_path: Path, kind: int) -> None:
    with listening(make_addresses(tmp_path)[kind]) as ear:
        manager = ServiceManager(ear.address)
        manager.say("sealing 4 slots")
        manager.live()
        manager.ready("PASS: 4 slots")
        assert ear.words() == [["STATUS=sealing 4 slots", ALIVE], [ALIVE], ["STATUS=PASS: 4 slots", "READY=1"]]


def test_a_stranger_on_the_line_cannot_say_ready(tmp_path: Path) -> None:
    """T-502 Forged PASS: what a server says is part of a text, and a line end in it would begin READY=1."""
    with listening(make_addresses(tmp_path)[0]) as ear:
        ServiceManager(ear.address).say("the server refused: x\nREADY=1\x00\u2028STATUS=all is well")
        (words,) = ear.words()
    assert words[1:] == [ALIVE] and words[0].startswith("STATUS=the server refused: x READY=1 ")


@pytest.mark.parametrize("address", ["", "gone", "@mpagent-nobody-listens", "x" * 200, "vsock:2:1"])
def test_nobody_who_listens_costs_nothing(tmp_path: Path, address: str) -> None:
    manager = ServiceManager(address if address.startswith("@") else address and str(tmp_path / address))
    manager.say("working")
    manager.ready("PASS")
    assert list(tmp_path.iterdir()) == []


def test_one_who_does_not_read_holds_up_nobody(tmp_path: Path) -> None:
    """The kernel's queue fills up; the board goes on."""
    with listening(make_addresses(tmp_path)[0]) as ear:
        manager = ServiceManager(ear.address)
        for _ in range(2_000):
            manager.say("x" * 4_000)
        assert len(ear.heard()) < 2_000


def test_journal_takes_fields_and_no_value_begins_another(tmp_path: Path) -> None:
    """T-503 Forged log: a check's name with a line end in it, as the journal's filters would read it."""
    with listening(str(tmp_path / "journal")) as ear:
        journal = SystemdJournal(Path(ear.address))
        evil = "life-cycle\nMP_RUN=0000\nPRIORITY=7"
        assert journal.write("the server refused", 3, {"MP_REASON": evil, "MP_STAGE": "proven"})
        (entry,) = ear.heard()
    assert read_entry(entry) == [
        ("MESSAGE", "the server refused"),
        ("PRIORITY", "3"),
        ("SYSLOG_IDENTIFIER", "mpagent"),
        ("MP_REASON", evil),
        ("MP_STAGE", "proven"),
    ]


def test_journal_is_used_only_where_standard_error_leads_to_it(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    path.touch()
    with open(path, "rb") as file:
        here = os.fstat(file.fileno())
        named = f"{here.st_dev}:{here.st_ino}"
        assert SystemdJournal.behind(file.fileno(), named) is not None
        for other in (None, "", f"{here.st_dev}:{here.st_ino + 1}", "nonsense"):
            assert SystemdJournal.behind(file.fileno(), other) is None
        gone = os.dup(file.fileno())
    os.close(gone)
    assert SystemdJournal.behind(gone, named) is None


def test_journal_that_is_gone_says_so(tmp_path: Path) -> None:
    assert not SystemdJournal(tmp_path / "gone").write("text", 6, {})


def test_unit_waits_for_a_sign_of_life_as_long_as_the_agent_may_be_silent() -> None:
    unit = (ROOT / "systemd/mpagent.service").read_text()
    assert f"\nTimeoutStartSec={STEP_LIMIT_S}\n" in unit and "\nWatchdogSec" not in unit
    assert NAP_MAX_S * 3 < STEP_LIMIT_S


def test_ready_is_the_last_word_of_a_pass_and_of_nothing_else(counter: Counter, tmp_path: Path) -> None:  # noqa: F811
    """T-502 Forged PASS, P12: who waits for the board goes on after a live unseal in this boot, each time anew."""
    disk = counter.make_board(tmp_path / "b1")
    with listening(str(tmp_path / "notify")) as ear:
        for stage in ("sealing 4 slots", "provisioned; 4 slots unsealed just now"):
            done = counter.run(disk, "enroll", prefix=("env", f"NOTIFY_SOCKET={ear.address}"))
            assert done.returncode == 0, done.stderr.decode()
            words = ear.words()
            assert words[-1][0].startswith("STATUS=PASS: 4 slots") and words[-1][1] == "READY=1"
            assert all("READY=1" not in one and ALIVE in one for one in words[:-1])
            assert f"STATUS={stage}" in [one[0] for one in words]
        clone = counter.make_board(tmp_path / "b2")
        shutil.rmtree(clone / STATE)
        shutil.copytree(disk / STATE, clone / STATE)
        done = counter.run(clone, "enroll", prefix=("env", f"NOTIFY_SOCKET={ear.address}"))
        assert done.returncode == 65
        words = ear.words()
        assert words and not [one for one in words if "READY=1" in one]
        assert words[-1][0].startswith("STATUS=FAIL: ")


def test_pass_that_nobody_could_read_is_not_ready(counter: Counter, tmp_path: Path) -> None:  # noqa: F811
    disk = counter.make_board(tmp_path / "b1")
    with listening(str(tmp_path / "notify")) as ear:
        prefix = ("env", f"NOTIFY_SOCKET={ear.address}", "sh", "-c", 'exec "$@" >/dev/full', "sh")
        assert counter.run(disk, "enroll", prefix=prefix).returncode == 73
        standing = StandingFile(disk / "run/mpagent").read()
        assert standing is not None and (standing.state, standing.exit_code) == (State.FAIL, 73)
        assert not [one for one in ear.words() if "READY=1" in one]


def test_waiting_for_a_server_is_a_sign_of_life_and_no_failure(counter: Counter, tmp_path: Path) -> None:  # noqa: F811
    disk = counter.make_board(tmp_path / "b1")
    (disk / "etc/mpagent/mpagent.toml").write_text('server = "https://127.0.0.1:1"\nwait_limit_s = 3\n')
    with listening(str(tmp_path / "notify")) as ear:
        done = counter.run(disk, "enroll", "--wait", "--json", prefix=("env", f"NOTIFY_SOCKET={ear.address}"))
        words = ear.words()
    assert done.returncode == 69 and json.loads(done.stdout)["error"]["check"] == "NoServer"
    assert [one for one in words if "trying again in" in one[0]] and [one for one in words if one == [ALIVE]]
    assert not [one for one in words if "READY=1" in one]
