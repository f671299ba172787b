"""The story with manufacturing protection through OP-TEE, every part a process of its own.

`mpagent enroll` opens /dev/tee0 and speaks its ioctls, a preloaded library plays the kernel and OP-TEE (section 11 of
docs/hardware.md), and a real `mpserver run` that knows the simulated class key answers over TLS. Sealing and fuses are
the simulated chip's: the same chip, whose OP-TEE this is.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mpsim import fuses
from mpsim.optee.attestation import hash_of_build
from mpsim.optee.bench import EmulatedTee
from mpsim.silicon import class_public_key
from tests.mpserver.server import ENVIRONMENT, Running, run_tool, running, set_up
from tests.mpsim.raw_tee import MP_SIGN
from tests.mpsim.tee_bench import tee_of_board

NO_SERVER, HARDWARE_FAILED, REFUSED = 69, 74, 77
ENROLL_MAX_S = 60


class Line:
    """One server, and one board with an OP-TEE."""

    def __init__(self, server: Running, tee: EmulatedTee, disk: Path) -> None:
        self.server, self.tee, self.disk = server, tee, disk

    def write_image(self, product: str = "gateway", attest: str = '"mp"', relays: str = "") -> None:
        """anchors.toml as the server prints it, for a board whose attester is behind OP-TEE; the last two in TOML."""
        told = run_tool(
            *("mpserver", "--dir", str(self.server.state), "product", "anchors", product),
            *("--sim-chip", str(self.tee.chip), "--swname", "provisioning", "--swversion", "1.0"),
        )
        assert told.returncode == 0, told.stderr
        before, board = told.stdout.split("[board]\n")
        text = "\n".join(line for line in board.split("\n") if not line.startswith("attest = "))
        given = f'optee_node = "/dev/tee0"\nattest = {attest}\nrelay_tas = [{relays}]\n'
        (self.disk / "usr/lib/mpagent/anchors.toml").write_text(f"{before}[board]\n{given}{text}")
        (self.disk / "etc/mpagent/mpagent.toml").write_text(f'server = "{self.server.url}"\n')

    def leave_without_server(self) -> None:
        """From now on nobody listens where the board would speak: who stops for another reason had not begun to."""
        (self.disk / "etc/mpagent/mpagent.toml").write_text('server = "https://127.0.0.1:1"\n')

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """`mpagent` on the board."""
        command = [sys.executable, "-m", "mpagent", "--root", str(self.disk), *words]
        environment = {**ENVIRONMENT, **self.tee.environment()}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=ENROLL_MAX_S, check=False
        )

    def devices(self) -> Any:
        """What the server counts."""
        told = run_tool("mpserver", "--dir", str(self.server.state), "device", "list", "--json")
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("office")
    with running(folder, set_up(folder)) as one:
        yield one


@pytest.fixture
def line(server: Running, tmp_path: Path) -> Iterator[Line]:
    with ExitStack() as stack:
        tee = stack.enter_context(tee_of_board(tmp_path / "board"))
        made = Line(server, tee, tmp_path / "board/disk")
        made.write_image()
        yield made


def test_a_board_enrolls_over_its_op_tee_and_unseals_after_a_power_cut(line: Line) -> None:
    before = line.devices()
    enrolled = line.run("enroll", "--once")
    assert enrolled.returncode == 0, enrolled.stderr
    assert "PASS" in enrolled.stdout
    assert len(line.tee.server.answered("invoke")) >= 2  # its key and a signature, by ioctl
    (device,) = [one for one in line.devices() if one not in before]
    assert device["attester"] == "mp" and device["state"] == "provisioned"

    line.tee.power_cycle()
    again = line.run("enroll", "--once")
    assert again.returncode == 0 and "PASS" in again.stdout
    assert line.devices() == [*before, device]


def test_the_class_key_lies_nowhere_on_the_disk_and_is_not_printed(line: Line) -> None:
    """Under mp_use `secret` it is one; the agent learns it from its OP-TEE and keeps it to itself."""
    key = class_public_key("imx8mm", fuses.srk_hash_of("lab"))
    said = line.run("enroll", "--once")
    assert said.returncode == 0, said.stderr
    files = [path for path in (line.disk / "var").rglob("*") if path.is_file()]
    assert files and [path for path in files if key in path.read_bytes()] == []
    assert key.hex() not in (said.stdout + said.stderr).lower()


@pytest.mark.parametrize(
    ("scenario", "text"),
    [
        ({"mpmr_locked": "sizes"}, "MPMR"),
        ({"mpmr_locked": "bytes"}, "MPMR"),
        ({"key": "off-curve"}, "not a point of P-256"),
        ({"curve": "P-521"}, "P-521"),
        ({"access_control": True}, "CFG_NXP_CAAM_MP_NO_ACCESS_CTRL"),
        ({"open_errno": "EACCES"}, "no permission"),
        ({"open_errno": "ENOENT"}, "no OP-TEE here"),
        ({"impl_id": 2}, "another TEE"),
        ({"built_in": ()}, "no manufacturing-protection pseudo-TA"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_an_op_tee_that_cannot_attest_stops_the_board_before_it_says_a_word(
    line: Line, scenario: dict[str, Any], text: str
) -> None:
    """T-342 Accident: zeros, a false key or a refusal of OP-TEE are sent as evidence, or pass for a bad line."""
    line.leave_without_server()
    line.tee.change(**scenario)
    stopped = line.run("enroll", "--once")
    assert stopped.returncode == HARDWARE_FAILED, stopped.stderr
    assert text in stopped.stderr
    assert "PASS" not in stopped.stdout


def test_a_board_that_can_attest_misses_the_server_where_there_is_none(line: Line) -> None:
    """What the test above would show of a board that spoke."""
    line.leave_without_server()
    assert line.run("enroll", "--once").returncode == NO_SERVER


def test_a_board_behind_access_control_enrolls_through_a_relay_ta(line: Line) -> None:
    line.tee.change(access_control=True, applications={str(MP_SIGN): "mp_sign"})
    line.write_image(relays=f'"{MP_SIGN}"')
    before = line.devices()
    enrolled = line.run("enroll", "--once")
    assert enrolled.returncode == 0 and "PASS" in enrolled.stdout, enrolled.stderr
    assert [one["attester"] for one in line.devices() if one not in before] == ["mp"]


def test_a_part_without_its_key_is_told_about_its_boot_image(server: Running, tmp_path: Path) -> None:
    with tee_of_board(tmp_path / "board", unlock_mfg=False) as tee:
        line = Line(server, tee, tmp_path / "board/disk")
        line.write_image()
        stopped = line.run("enroll", "--once")
    assert stopped.returncode == HARDWARE_FAILED
    assert "Unlock MFG" in stopped.stderr and "CSF" in stopped.stderr


def test_an_op_tee_that_waits_for_ever_stops_the_board_and_leaves_no_process(line: Line) -> None:
    """T-340 Hang: neither MP nor tee-supplicant is there, and the kernel waits without a timeout."""
    line.tee.change(built_in=(), supplicant=False)
    stopped = line.run("enroll", "--once")
    assert stopped.returncode == HARDWARE_FAILED, stopped.stderr
    ends = time.monotonic() + 5
    while line.tee.server.kernel.contexts:  # one for each process that still holds the device open
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert line.tee.server.answered("open") == []


KNOWN_BY_ITS_KEY = f"""
name = "sensor"
attesters = ["optee"]
grades = ["L"]
optee_keys = ["first-use"]
optee_measurements = ["{hash_of_build("4.10.0").hex()}"]

[[slot]]
name = "disk"
kind = "local"

[[slot]]
name = "token"
kind = "random"
"""
"""A part without manufacturing protection: realm lab takes its attestation key at the first meeting."""


@pytest.fixture
def sensor(server: Running, line: Line, tmp_path: Path) -> Line:
    """The same board, known by its attestation key to a product that takes such."""
    state = ("mpserver", "--dir", str(server.state))
    (tmp_path / "sensor.toml").write_text(KNOWN_BY_ITS_KEY)
    if "sensor" not in run_tool(*state, "product", "show").stdout:
        for words in (
            ("product", "add", str(tmp_path / "sensor.toml")),
            ("job", "create", "sensors", "--product", "sensor", "--quota", "3"),
            ("job", "approve", "sensors"),
        ):
            told = run_tool(*state, *words)
            assert told.returncode == 0, told.stderr
    line.write_image("sensor", '["mp", "optee"]')
    return line


def test_a_board_without_mp_enrolls_by_op_tees_attestation_key(sensor: Line) -> None:
    """The image would take MP first, and this OP-TEE was built without."""
    sensor.tee.change(built_in=("attestation",))
    before = sensor.devices()
    enrolled = sensor.run("enroll", "--once")
    assert enrolled.returncode == 0, enrolled.stderr
    assert "PASS" in enrolled.stdout
    (device,) = [one for one in sensor.devices() if one not in before]
    assert (device["attester"], device["grade"], device["state"]) == ("optee", "L", "provisioned")

    sensor.tee.power_cycle()
    again = sensor.run("enroll", "--once")
    assert again.returncode == 0 and "PASS" in again.stdout
    assert sensor.devices() == [*before, device]


def test_an_op_tee_of_another_build_is_refused_by_its_measurement(sensor: Line) -> None:
    """Another OP-TEE, with the right key, was booted below the provisioning image."""
    before = sensor.devices()
    sensor.tee.change(built_in=("attestation",), build="4.11.0-other")
    refused = sensor.run("enroll", "--once")
    assert refused.returncode == REFUSED, refused.stderr
    assert "measurement" in refused.stderr
    assert sensor.devices() == before


def test_mp_that_is_there_and_broken_is_not_passed_over(sensor: Line) -> None:
    """T-344 Downgrade: the better attester of the image is made to fail, so that the weaker one is taken."""
    before = sensor.devices()
    sensor.tee.change(mpmr_locked="sizes")
    stopped = sensor.run("enroll", "--once")
    assert stopped.returncode == HARDWARE_FAILED, stopped.stderr
    assert "MPMR" in stopped.stderr
    assert sensor.devices() == before
