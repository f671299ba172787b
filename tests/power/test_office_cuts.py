"""P7 for the operator: each act of the office is one transaction; cut anywhere, the same command finishes it."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mpserver.errors import NeedsPerson
from mpserver.office import JobPlan, Office
from mpserver.state import State, open_state
from mpserver.store.audit import verify_ledger
from tests.line import PRODUCT, fill_product
from tests.power.plug import Cut, Plug
from tests.power.processes import Mpserver
from tests.power.test_ledger_cuts import PluggedConnection, read_state, write_state

SECOND = fill_product(PRODUCT).replace('minimum_software = "1.2"', 'minimum_software = "1.3"')
Act = Callable[[Office], Any]
ACTS: dict[str, Act] = {
    "product add": lambda office: office.add_product(SECOND),
    "job create": lambda office: office.create_job(JobPlan("job-2", "camera", 3)),
    "job approve": lambda office: office.approve_job("draft"),
    "job end": lambda office: office.end_job("job-1"),
}
DONE = {
    "product add": ("SELECT count(*) FROM products WHERE version = 2", 1),
    "job create": ("SELECT count(*) FROM jobs WHERE name = 'job-2' AND state = 'draft'", 1),
    "job approve": ("SELECT count(*) FROM jobs WHERE name = 'draft' AND state = 'open'", 1),
    "job end": ("SELECT count(*) FROM jobs WHERE name = 'job-1' AND state = 'ended'", 1),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server with an open job and a draft."""
    server = Mpserver(tmp_path_factory.mktemp("office") / "oem")
    server.command("job", "create", "draft", "--product", "camera", "--quota", "2")
    return server.directory


@pytest.mark.parametrize("name", ACTS)
def test_operator_repeats_a_command_that_was_cut(template: Path, tmp_path: Path, name: str) -> None:
    """Done once and told once in the ledger, whether or not the first try had come through."""
    for pull_at in count(1):
        directory = tmp_path / f"{pull_at}"
        shutil.copytree(template, directory)
        finished = act_once(directory, ACTS[name], pull_at)
        repeat(directory, name)
        check(directory, name)
        if finished:
            break
    assert pull_at > 10


def act_once(directory: Path, act: Act, pull_at: int) -> bool:
    """One command; False when the power was cut. What was on disk at that moment is the disk."""
    left: list[dict[str, bytes]] = []
    state = open_state(directory)
    plugged: Any = PluggedConnection(state.connection, Plug(pull_at, lambda: left.append(read_state(directory))))
    try:
        act(Office(replace(state, connection=plugged)))
    except Cut:
        pass
    finally:
        state.close()
    if left:
        write_state(directory, left[0])
    return not left


def repeat(directory: Path, name: str) -> None:
    """The operator looks whether it was done, and does it otherwise; ending a job may always be said again."""
    state = open_state(directory)
    try:
        if name == "job end" or not is_done(state, name):
            ACTS[name](Office(state))
        elif name != "product add":
            with pytest.raises(NeedsPerson):
                ACTS[name](Office(state))
    finally:
        state.close()


def is_done(state: State, name: str) -> bool:
    sql, rows = DONE[name]
    return bool(state.connection.execute(sql).fetchone()[0] == rows)


def check(directory: Path, name: str) -> None:
    """Once in the tables, once in the audit, and the tree holds; an ended job's key is gone, an open one's is there."""
    state = open_state(directory)
    try:
        assert is_done(state, name)
        told = state.connection.execute("SELECT count(*) FROM audit WHERE action = ?", (name,)).fetchone()[0]
        before = {"product add": 1, "job create": 2, "job approve": 1, "job end": 0}[name]
        assert told == before + 1
        verify_ledger(state.connection, (state.authority.public_key("trust"),), "lab", state.last_head.read())
        jobs = state.connection.execute("SELECT count(*) FROM jobs WHERE state = 'open'").fetchone()[0]
        assert len(list((directory / "keys/jobs").iterdir())) == jobs
    finally:
        state.close()
