"""mp_use `secret` over OP-TEE: the key is read, and no signing command is sent, whatever fails and whoever asks."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpagent.errors import ConfigWrong
from mpagent.hal.choose import ATTESTERS, BoardChoice, open_bench
from mpagent.hal.mp import MpClassKey, causes
from mpagent.hal.mp.door import PTA, Door
from mpagent.hal.mp.examination import XTEST_MP_SIGN
from mpagent.hal.ports import SocFacts
from mpsim.optee.bench import EmulatedTee
from mpsim.shelf import MemoryShelf
from mpwire import hkdf, mp
from mpwire.bundlekeys import make_mpk_id
from mpwire.mpk import HiddenMpKey
from tests.mpagent.tee_program import DEADLINE_S, NODE, Failed, Start, class_point, starting

from .doctor_bench import ask, imx_board, set_board
from .test_cli import Counter, counter

__all__ = ["counter"]  # a fixture

RELAY = "a9aa0a91-e1a4-4d27-9bd0-8ae3a1bd2d4e"
SHOWN = (class_point(), class_point()[1:], mp.key_id(class_point()), HiddenMpKey(class_point()[1:]).extract().reveal())
"""What nobody may see under mp_use secret: the key, its SHA-256, and the PRK."""
NAME = make_mpk_id(lambda info: hkdf.expand(HiddenMpKey(class_point()[1:]).extract(), info)).hex()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with starting(tmp_path / "board") as make:
        yield make


def test_signature_that_somebody_asks_for_is_refused_before_the_chip(start: Start) -> None:
    """T-676 Deliberate: the one call that would sign, made on purpose, through the very door that reads the key."""
    tee, program = start()
    program.call("open_class_key", DEADLINE_S)
    with pytest.raises(Failed, match="nothing was signed") as caught:
        program.call("sign_anyway", b"a message")
    assert caught.value.cause == causes.SIGNING_FORBIDDEN.name
    assert len(program.call("extract")) == 32
    assert tee.count_signatures() == 0


@pytest.mark.parametrize(
    ("scenario", "fault", "cause"),
    [
        ({}, "NOT_SUPPORTED", causes.CSF_WITHOUT_UNLOCK),
        ({}, "GENERIC", causes.JOB_FAILED),
        ({}, "BAD_PARAMETERS", causes.FORMAT_ERROR),
        ({}, "TARGET_DEAD", causes.CRASHED),
        ({"abi": "old"}, None, causes.OLD_ABI),
        ({"curve": "P-521"}, None, causes.CURVE_P521),
        ({"key": "off-curve"}, None, causes.KEY_OFF_CURVE),
        ({"key": "zero"}, None, causes.MPMR_LOCKED),
        ({"sizes": {"key": 96}}, None, causes.SIZE_UNKNOWN),
    ],
)
def test_key_that_cannot_be_read_is_explained_without_a_signature(
    start: Start, scenario: dict[str, Any], fault: str | None, cause: causes.Cause
) -> None:
    """T-676 Curiosity: under mp_use sign the agent signs a probe to tell causes apart; here it must not."""
    tee, program = start(**scenario)
    program.call("open_class_key", DEADLINE_S)
    if fault is not None:
        tee.break_next(fault, command=1, times=None)
    with pytest.raises(Failed) as caught:
        program.call("extract")
    assert caught.value.cause == cause.name
    assert tee.count_signatures() == 0


def test_probe_is_what_the_same_failures_cost_under_mp_use_sign(start: Start) -> None:
    """The count above can see a signature: here it sees several."""
    tee, program = start()
    tee.break_next("NOT_SUPPORTED", command=1, times=None)
    program.open()
    with pytest.raises(Failed):
        program.describe()
    assert tee.count_signatures() == 1
    program.examine()
    assert tee.count_signatures() > 1


@pytest.mark.parametrize("scenario", [{}, {"access_control": True}, {"abi": "old"}, {"applications": "xtest"}])
def test_examination_reads_and_does_not_sign(start: Start, scenario: dict[str, Any]) -> None:
    if scenario.get("applications") == "xtest":
        scenario = {"access_control": True, "applications": {str(XTEST_MP_SIGN): "mp_sign"}}
    tee, program = start(**scenario)
    tee.break_next("NOT_SUPPORTED", command=1, times=None)
    program.examine(may_sign=False)
    tee.change(faults=())
    found = program.examine(may_sign=False)
    assert found.key_readable is ("access_control" not in scenario or "applications" in scenario)
    assert tee.count_signatures() == 0


def test_key_behind_a_relay_is_read_through_it(start: Start) -> None:
    from uuid import UUID

    tee, program = start(access_control=True, applications={RELAY: "mp_sign"})
    program.call("open_class_key", DEADLINE_S, (UUID(RELAY),))
    assert program.call("extract") == SHOWN[3]
    assert tee.count_signatures() == 0


def test_door_that_signs_is_no_way_to_a_secret_key() -> None:
    with pytest.raises(ValueError, match="gives the key away"):
        MpClassKey(Door(NODE, PTA, causes.UNKNOWN_PART, DEADLINE_S))


@pytest.mark.parametrize("name", ["mp", "sim"])
def test_attester_asked_for_by_its_name_is_not_opened(tmp_path: Path, name: str) -> None:
    """T-676 The closed list itself refuses: a caller that goes past the board finds no attester either."""
    choice = BoardChoice((name,), ("sim",), ("sealed",), ("sim",), sim_chip=tmp_path, mp_secret=True)
    with open_bench(choice, tmp_path, MemoryShelf()) as bench, pytest.raises(ConfigWrong, match="mp_use = secret"):
        ATTESTERS[name](bench)


def keep_secret(disk: Path, attest: str = "mp") -> None:
    """The image of a product whose MP public key is a secret."""
    set_board(disk, f'attest = "{attest}"', 'seal = "sim"', 'keys = "sealed"', 'soc = "imx"', 'sim_chip = "../chip"')
    anchors = disk / "usr/lib/mpagent/anchors.toml"
    text = re.sub(r"(?m)^mp_key_ids = .*$", 'mp_use = "secret"', anchors.read_text())
    anchors.write_text(text.replace('[[slot]]\nname = "identity"\nkind = "certificate"\n', ""))


def run(disk: Path, tee: EmulatedTee, *words: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "mpagent", "--root", str(disk), *words]
    return subprocess.run(command, env={**os.environ, **tee.environment()}, capture_output=True, timeout=120)


def test_commands_name_the_key_as_the_vault_does_and_sign_nothing(counter: Counter, tmp_path: Path) -> None:
    """T-677 Print: doctor and evidence of a board whose key is a secret show neither the key nor its SHA-256."""
    with imx_board(counter, tmp_path / "board") as (disk, tee):
        keep_secret(disk)
        code, found = ask(disk, tee)
        assert found["MP"]["state"] == found["MP key"]["state"] == found["attest mp"]["state"] == "ok", (code, found)
        assert f"mpk-{NAME}" in found["MP key"]["cause"] and f"mpk-{NAME}" in found["attest mp"]["cause"]
        assert "MPMR" not in found
        _, production = ask(disk, tee, "--production")
        assert production["MP is shut"]["state"] == "broken"
        shown = run(disk, tee, "evidence", "--json")
        assert shown.returncode == 0, shown.stderr
        assert json.loads(shown.stdout)["attester_id"] is None
        text = json.dumps([found, production]).encode() + shown.stdout + shown.stderr
        assert [one for one in SHOWN if one.hex().encode() in text.lower()] == []
        assert tee.count_signatures() == 0


@pytest.mark.parametrize("attest", ["mp", "sim"])
def test_production_image_that_reads_the_class_key_fails(counter: Counter, tmp_path: Path, attest: str) -> None:
    """T-734 Open door: whatever way there is, found by taking it; the search for an OP-TEE knows of one alone."""
    with imx_board(counter, tmp_path / "board") as (disk, tee):
        keep_secret(disk, attest)
        _, found = ask(disk, tee)
        assert found[f"attest {attest}"]["state"] == "ok"
        _, found = ask(disk, tee, "--production")
        assert (found[f"attest {attest}"]["exit_code"], found[f"attest {attest}"]["state"]) == (77, "broken")
        assert tee.count_signatures() == 0


def test_production_image_that_opens_the_engine_fails_though_nobody_signed(counter: Counter, tmp_path: Path) -> None:
    """An engine without a key to give may sign all the same; under mp_use secret nobody tries."""
    with imx_board(counter, tmp_path / "board") as (disk, tee):
        keep_secret(disk)
        tee.break_next("NOT_SUPPORTED", command=1, times=None)
        _, found = ask(disk, tee, "--production")
        assert (found["MP is shut"]["exit_code"], found["MP is shut"]["state"]) == (77, "broken")
        tee.change(access_control=True, faults=())
        _, found = ask(disk, tee, "--production")
        assert found["MP is shut"]["state"] == "ok"
        assert tee.count_signatures() == 0


def test_facts_of_the_soc_are_read_without_a_signature(counter: Counter, tmp_path: Path) -> None:
    """The witness that signs with a pinned key is not asked: closed by fuse, and nothing shows that this boot is."""
    with imx_board(counter, tmp_path / "board") as (disk, tee):
        keep_secret(disk)
        _, found = ask(disk, tee)
        assert "mp-key" not in json.dumps(found)
        assert (found["life cycle"]["state"], "fuse" in found["life cycle"]["cause"]) == ("ok", True)
        assert SocFacts("imx8mm", None, None, None).closed_by == "" and tee.count_signatures() == 0
