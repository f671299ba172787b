"""P7 for receipts of boards without a line: cut at any statement, each file is in the ledger whole or not at all."""

import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mpserver.bundlekeeping import expand_of
from mpserver.intake import Intake
from mpserver.receiving import Reception
from mpserver.state import open_state
from mpserver.store.audit import verify_ledger
from mpserver.store.decisions import check_decisions
from tests.mpserver.desk import Desk
from tests.mpserver.lots import Lot, make_board, say
from tests.power.plug import Cut, Plug
from tests.power.test_ledger_cuts import PluggedConnection, read_state, write_state

FILES = 2
BOARDS = 3
"""Of each file."""


def test_cut_at_any_statement_leaves_whole_files_and_the_same_command_finishes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """T-721 Cut: power fails while receipts are taken in, two files in one transaction."""
    lot = Lot(Desk(tmp_path, capsys))
    bundle = lot.print_bundle()
    files = [lot.write(f"{one}.receipts", *(say(make_board(), bundle) for _ in range(BOARDS))) for one in range(FILES)]
    for pull_at in count(1):
        directory = tmp_path / f"try-{pull_at}"
        shutil.copytree(lot.desk.state, directory)
        finished = take(directory, files, pull_at)
        assert look(directory) in (0, FILES * BOARDS)
        assert take(directory, files, None)
        assert look(directory) == FILES * BOARDS
        shutil.rmtree(directory)
        if finished:
            break
    assert pull_at > 10


def take(directory: Path, files: list[str], pull_at: int | None) -> bool:
    """One import; False when the power was cut. What was on disk at that moment is the disk."""
    left: list[dict[str, bytes]] = []
    state = open_state(directory)
    plugged: Any = PluggedConnection(state.connection, Plug(pull_at, lambda: left.append(read_state(directory))))
    try:
        cut = replace(state, connection=plugged)
        intake = Intake(cut, Reception(state.connection, expand_of(state), {"camera": "closed"}))
        intake.take([intake.read(Path(one)) for one in files])
    except Cut:
        pass
    finally:
        state.close()
    if left:
        write_state(directory, left[0])
    return not left


def look(directory: Path) -> int:
    """Receipts kept; the ledger holds, and each transaction has its audit row."""
    state = open_state(directory)
    try:
        roots = (state.authority.public_key("trust"),)
        check_decisions(state.connection, verify_ledger(state.connection, roots, "lab", state.last_head.read()).decided)
        kept = state.connection.execute("SELECT count(*) FROM bundle_receipts").fetchone()[0]
        told = state.connection.execute("SELECT count(*) FROM audit WHERE action = 'receipts import'").fetchone()[0]
        assert told * BOARDS == kept
        return int(kept)
    finally:
        state.close()
