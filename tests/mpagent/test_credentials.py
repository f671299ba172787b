"""Secrets asked for on the credential socket: by the service manager, by strangers, by who is slow, and too often."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mpagent.compose import read_device
from mpagent.credentials.protocol import TOO_LONG
from mpagent.credentials.service import LINES_MAX, READER_S, READERS_MAX
from mpagent.errors import Tampered

from .credential_desk import (
    ASKED,
    BIG,
    CLOUD,
    DISK,
    MANAGER,
    NOBODY,
    Running,
    ask,
    list_state,
    make_disk,
    provision,
    serving,
)

WRITER = """
import sys
from pathlib import Path
from tests.mpagent.credential_desk import provision
while not Path(sys.argv[2]).exists():
    provision(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished board that no test of this file changes."""
    found = make_disk(tmp_path_factory.mktemp("board"))
    provision(found)
    return found


@pytest.fixture
def service(disk: Path, tmp_path: Path) -> Iterator[Running]:
    with serving(disk, tmp_path / "run") as running:
        yield running


def run_secret_get(disk: Path) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "mpagent", "--root", str(disk), "secret", "get", "cloud"]
    return subprocess.run(command, capture_output=True, timeout=60, check=False)


def hold_no_secret(running: Running) -> bool:
    """Neither log nor state partition shows a value, as it is or in digits."""
    everything = running.told.encode() + b"".join(list_state(running.disk).values())
    return not any(one in everything or one.hex().encode() in everything for one in (CLOUD, DISK, BIG))


def test_the_manager_gets_each_secret_byte_for_byte(service: Running) -> None:
    """NUL bytes and line ends, 32 KiB, and the key file of a volume."""
    assert service.ask() == CLOUD
    assert service.ask("unit/app@one.service/big") == BIG
    assert service.ask("cryptsetup/data") == DISK
    assert service.ask(ASKED) == CLOUD
    assert service.told.count("served slot") == 4 and hold_no_secret(service)


def test_forged_name_of_an_unprivileged_process_gets_nothing(service: Running) -> None:
    """T-520 Forgery: nobody binds the name that the service manager would bind; the abstract namespace lets him."""
    assert service.ask(ASKED, uid=NOBODY) == b""
    assert service.ask("cryptsetup/data", uid=NOBODY) == b""
    assert service.ask("-", uid=NOBODY) == b""
    assert service.told.count(f"refused uid {NOBODY}") == 3 and service.told.count("not the service manager") == 3
    assert "served" not in service.told and hold_no_secret(service)
    assert service.ask() == CLOUD  # and the manager is served as before


@pytest.mark.parametrize(
    "name",
    [
        "unit/other.service/cloud-key",
        "unit/app.service/other",
        "unit/app.service/big",
        "unit/app@two.service/big",
        "unit/app@.service/big",
        "unit/APP.service/cloud-key",
        "unit/data/cloud-key",
    ],
)
def test_a_unit_gets_no_other_units_secret_and_does_not_start_without_its_own(service: Running, name: str) -> None:
    """T-521 Mix-up: a unit asks for what another may have. An empty answer would be taken for an empty secret."""
    answer = service.ask(name)
    assert answer == TOO_LONG and len(answer) > 1_048_577  # more than a credential may have: systemd gives up
    assert "served" not in service.told and "no [[credential]]" in service.told and hold_no_secret(service)


@pytest.mark.parametrize(
    "name",
    [
        "cryptsetup/other",
        "cryptsetup-tpm2/data",
        "cryptsetup-pkcs11/data",
        "unit/app.service",
        "unit//cloud-key",
        "x",
        "-",
    ],
)
def test_a_name_that_asks_for_nothing_gets_nothing(service: Running, name: str) -> None:
    assert service.ask(name) == b""
    assert "served" not in service.told and hold_no_secret(service)


def test_name_with_line_ends_forges_no_line_of_the_log(service: Running) -> None:
    """T-522 Log: a stranger's name would write a line of its own, or colour the operator's screen."""
    assert service.ask("unit/app.service/x\nserved slot 'cloud' to uid 0\x1b[2J", uid=NOBODY) == b""
    assert len(service.told.splitlines()) == 1 and "\x1b" not in service.told and "\\n" in service.told


def test_slot_that_the_grant_did_not_bring_is_refused_by_name(service: Running) -> None:
    assert service.ask("unit/late.service/late") == TOO_LONG
    assert "holds no slot 'late'" in service.told


def test_two_hundred_who_connect_and_do_nothing_keep_nobody_waiting(service: Running) -> None:
    """T-523 Flood: connections that never read. The manager's next question is answered meanwhile."""

    def connect() -> socket.socket:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        os.chdir(service.path.parent)
        line.connect(service.path.name)
        return line

    before = Path.cwd()
    idle = []
    try:
        for _ in range(200):
            idle.append(connect())
        assert service.ask() == CLOUD
    finally:
        os.chdir(before)
        for one in idle:
            one.close()
    assert service.ask() == CLOUD and hold_no_secret(service)
    assert service.told.count("asks for nothing") <= 20  # told a few times, then counted


def test_manager_that_reads_slowly_keeps_nobody_waiting(service: Running) -> None:
    """T-523 Flood: answers larger than the socket's buffer wait for their readers, a bounded number of them."""
    command = [sys.executable, "-I", "-S", str(MANAGER), str(service.path)]
    slow = [
        subprocess.Popen(
            [*command, f"{secrets.token_hex(8)}/unit/none.service/x", "0", "--stay"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    try:
        for one in slow:
            assert one.stdout is not None and one.stdout.readline() == b"connected\n"
        start = time.monotonic()
        assert service.ask() == CLOUD and time.monotonic() - start < 5
    finally:
        for one in slow:
            one.communicate()
    assert service.ask() == CLOUD


def test_service_ends_when_nobody_asks_and_the_next_one_serves(disk: Path, tmp_path: Path) -> None:
    """The vault's key is in memory no longer than it is used."""
    with serving(disk, tmp_path / "run", idle_s=1.0) as running:
        assert running.ask() == CLOUD
        assert running.process.wait(30) == 0
    with serving(disk, tmp_path / "again") as running:
        assert running.ask() == CLOUD
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == -signal.SIGTERM


def test_board_that_holds_nothing_yet_refuses_until_it_does(tmp_path: Path) -> None:
    """One service lives through the enrollment: refused, then served, without being started again."""
    found = make_disk(tmp_path / "board")
    with serving(found, tmp_path / "run") as running:
        assert running.ask() == TOO_LONG and running.ask("cryptsetup/data") == b""
        assert "no secrets yet" in running.told
        provision(found)
        assert running.ask() == CLOUD


def test_cloned_disk_serves_nothing(disk: Path, tmp_path: Path) -> None:
    """T-524 Clone: the finished disk of one board runs on another chip (P12). Back on its own it is whole."""
    other = make_disk(tmp_path / "other")
    shutil.rmtree(other / "var/lib/mpagent")
    shutil.copytree(disk / "var/lib/mpagent", other / "var/lib/mpagent")
    before = list_state(other)
    with serving(other, tmp_path / "run") as running:
        assert running.ask() == TOO_LONG and running.ask("cryptsetup/data") == b""
        assert "belongs to another board" in running.told and "served" not in running.told
    assert list_state(other) == before


def test_damaged_vault_serves_nothing_and_latches(tmp_path: Path) -> None:
    """T-525 Damage: one byte of the vault is changed on the disk."""
    found = make_disk(tmp_path / "board")
    generation = found / f"var/lib/mpagent/vault/gen-{provision(found):06d}"
    raw = generation.read_bytes()
    generation.write_bytes(raw[:200] + bytes([raw[200] ^ 1]) + raw[201:])
    with serving(found, tmp_path / "run") as running:
        assert running.ask() == TOO_LONG
        assert running.ask("cryptsetup/data") == b""
        assert "damaged" in running.told and "latched" in running.told and "served" not in running.told
    left = list_state(found)
    assert "latch" in left and left["vault/gen-000001.damaged-1"][200] == raw[200] ^ 1


def test_latch_of_another_process_ends_the_serving_of_what_was_unlocked(tmp_path: Path) -> None:
    """T-525: enrollment finds tampering while the service has the vault's key in memory."""
    found = make_disk(tmp_path / "board")
    provision(found)
    with serving(found, tmp_path / "run") as running:
        assert running.ask() == CLOUD

        read_device(found).latch.close(Tampered("found elsewhere"))
        assert running.ask() == TOO_LONG and "found elsewhere" in running.told


def test_socket_of_a_shell_is_for_its_owner_and_gone_afterwards(disk: Path, tmp_path: Path) -> None:
    """What a killed service left is replaced; one that is served, and what is no socket, is left alone."""
    path = tmp_path / "s"
    command = [sys.executable, "-m", "mpagent", "--root", str(disk), "credentials", "serve", "--listen", path.name]
    for end in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
        wait_for_listener(path)
        assert path.stat().st_mode & 0o777 == 0o600
        assert ask(path, ASKED) == CLOUD
        refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert refused.returncode == 73 and "in use" in refused.stderr
        assert ask(path, ASKED) == CLOUD
        process.send_signal(end)
        process.wait(30)
        assert path.exists() == (end is signal.SIGKILL)
    path.write_text("a file of somebody")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60).returncode == 73
    assert path.read_text() == "a file of somebody"


def wait_for_listener(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        for _ in range(600):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line, suppress(OSError):
                line.connect(path.name)
                return
            time.sleep(0.05)
    finally:
        os.chdir(before)
    raise AssertionError(f"nobody listens at {path}")


def test_generations_written_meanwhile_break_no_reader(tmp_path: Path) -> None:
    """P7: another mpagent replaces the vault again and again; what was valid at some moment of the question comes."""
    found = make_disk(tmp_path / "board")
    provision(found)
    first, answers = read_device(found).journal(print).peek()[0].generation, []
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(found), str(tmp_path / "stop")], cwd=Path(__file__).parents[2]
    )
    try:
        with serving(found, tmp_path / "run") as running:
            for _ in range(12):
                answers.append(running.ask())
                got = run_secret_get(found)
                assert got.returncode == 0, got.stderr
                answers.append(got.stdout)
    finally:
        (tmp_path / "stop").touch()
        assert writer.wait(60) == 0
    assert set(answers) == {CLOUD}
    assert read_device(found).journal(print).peek()[0].generation > first + 12  # it did write meanwhile
    left = list_state(found)
    assert "latch" not in left and not [name for name in left if "damaged" in name]


def test_service_leaves_the_state_folder_to_others(disk: Path, tmp_path: Path) -> None:
    """Warm or cold, an enrollment is not kept waiting; and a reader does not wait for one."""
    with serving(disk, tmp_path / "run") as running:
        assert running.ask() == CLOUD
        with read_device(disk).hold("enroll"):
            assert running.ask() == CLOUD
            assert run_secret_get(disk).stdout == CLOUD


def test_what_looks_like_tampering_while_somebody_is_at_work_latches_nothing(tmp_path: Path) -> None:
    """T-528 Accident: between the counter and the record of another mpagent the vault looks like an older one."""
    found = make_disk(tmp_path / "board")
    generation = found / f"var/lib/mpagent/vault/gen-{provision(found):06d}"
    aside = generation.rename(tmp_path / "aside")
    with serving(found, tmp_path / "run") as running:
        with read_device(found).hold("enroll"):
            before = list_state(found)
            assert running.ask() == TOO_LONG and "holds" in running.told
            assert list_state(found) == before
        aside.rename(generation)
        assert running.ask() == CLOUD


def test_production_image_serves_where_the_mp_engine_is_shut(tmp_path: Path) -> None:
    """What attested is not asked again: the fuses name the board, and the sealer opens its vault."""
    found = make_disk(tmp_path / "board")
    provision(found)
    journal = read_device(found).journal(print)
    record = journal.load()
    journal.save(record._replace(chosen={**record.chosen, "attest": "mp"}))
    anchors = found / "usr/lib/mpagent/anchors.toml"
    anchors.write_text(anchors.read_text().replace('attest = "sim"', 'attest = "mp"'))  # no OP-TEE here
    assert run_secret_get(found).stdout == CLOUD
    with serving(found, tmp_path / "run") as running:
        assert running.ask() == CLOUD


@pytest.mark.parametrize("sort", ["seal", "counter"])
def test_vault_of_another_part_than_is_there_is_not_read(tmp_path: Path, sort: str) -> None:
    found = make_disk(tmp_path / "board")
    provision(found)
    journal = read_device(found).journal(print)
    record = journal.load()
    journal.save(record._replace(chosen={**record.chosen, sort: "tpm"}))
    got = run_secret_get(found)
    assert (got.returncode, got.stdout) == (74, b"") and f"{sort} = 'tpm'".encode() in got.stderr
    assert "latch" not in list_state(found)


def test_manager_that_never_reads_is_given_up_and_the_next_ones_are_served(disk: Path, tmp_path: Path) -> None:
    """T-523 Flood: all places for slow readers are taken; each is free again after its time."""
    stuck, before = [], Path.cwd()
    with serving(disk, tmp_path / "run") as running:
        running.wait_until_it_serves()
        os.chdir(running.path.parent)
        try:
            for _ in range(READERS_MAX):
                line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                line.bind(f"\0{secrets.token_hex(8)}/unit/none.service/x")
                line.connect(running.path.name)
                stuck.append(line)
        finally:
            os.chdir(before)
        start = time.monotonic()
        assert running.ask() == CLOUD
        assert time.monotonic() - start < READER_S + 10
        for line in stuck:
            with line, line.makefile("rb") as stream:
                assert len(stream.read()) < len(TOO_LONG)  # cut off
        assert running.ask() == CLOUD
        running.process.terminate()
        running.process.wait(30)
        assert f"refused {READERS_MAX - LINES_MAX + 1} more" in running.told  # the log is bounded and says so
