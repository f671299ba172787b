"""From a bench board to the line: its record, a list signed off line, a server that takes it, and secrets."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mpserver.server import Running, run_tool, running, set_up
from tests.mpsim.tee_bench import tee_of_board
from tests.story.test_mp_over_optee import Line

REFUSED = 77
PRODUCT = """
name = "meter"
attesters = ["optee"]
grades = ["K"]
life_cycle = "any"
optee_keys = ["imported"]
optee_measurements = ["{measurement}"]

[[slot]]
name = "token"
kind = "random"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    (tmp_path / "office").mkdir()
    with running(tmp_path / "office", set_up(tmp_path / "office")) as one:
        yield one


@pytest.fixture
def line(server: Running, tmp_path: Path) -> Iterator[Line]:
    with tee_of_board(tmp_path / "board") as tee:
        tee.change(built_in=("attestation",))
        yield Line(server, tee, tmp_path / "board/disk")


def office(server: Running, *words: str) -> Any:
    told = run_tool("mpserver", "--dir", str(server.state), *words, "--json")
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


def write_image(line: Line) -> None:
    """Where the board's attester is already known, and its product is not."""
    line.write_image("gateway", '"optee"')
    anchors = line.disk / "usr/lib/mpagent/anchors.toml"
    anchors.write_text(anchors.read_text().replace('"gateway"', '"meter"'))


def test_a_board_is_registered_by_a_signed_list_of_what_it_printed(line: Line, tmp_path: Path) -> None:
    """T-370 Stranger: even the OEM's own board counts only once a signer whom the server trusts says so."""
    write_image(line)
    said = line.run("evidence", "--json")
    assert said.returncode == 0, said.stderr
    shown = json.loads(said.stdout)
    assert shown["record"].keys() == {"kind", "public_key", "origin"} and shown["record"]["origin"] == "silicon"
    (tmp_path / "meter.toml").write_text(PRODUCT.format(measurement=shown["measurement"]))
    (tmp_path / "list.json").write_text(line.run("evidence").stdout.splitlines()[-1])
    office(line.server, "product", "add", str(tmp_path / "meter.toml"))
    office(line.server, "job", "create", "meters", "--product", "meter", "--quota", "2")
    office(line.server, "job", "approve", "meters")
    line.write_image("meter", '"optee"')

    refused = line.run("enroll", "--once")
    assert refused.returncode == REFUSED and "attester-key" in refused.stderr
    assert line.devices() == []

    signer = office(line.server, "key", "new-signer", "--out", str(tmp_path / "signer.pem"))
    signed = ("--key", str(tmp_path / "signer.pem"), "--sequence", "1", "--out", str(tmp_path / "list"))
    office(line.server, "key", "sign-list", str(tmp_path / "list.json"), *signed)
    office(line.server, "key", "trust-signer", signer["point"], "--confirm", signer["thumbprint"])
    taken = office(line.server, "key", "import", str(tmp_path / "list"))
    assert taken["keys"] == [shown["attester_id"]]

    enrolled = line.run("enroll", "--once")
    assert enrolled.returncode == 0 and "PASS" in enrolled.stdout, enrolled.stderr
    assert [(one["attester"], one["grade"]) for one in line.devices()] == [("optee", "K")]
    assert office(line.server, "ledger", "verify")["verified"]


def test_the_doctor_prints_the_same_record_and_measurement(line: Line) -> None:
    write_image(line)
    shown = json.loads(line.run("evidence", "--json").stdout)
    lines = {one["ability"]: one["cause"] for one in json.loads(line.run("doctor", "--json").stdout)}
    assert json.loads(lines["record optee"]) == shown["record"]
    assert lines["attest optee"].endswith(f"OP-TEE's memory {shown['measurement']}")
