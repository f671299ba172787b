"""A board that was provisioned one way, under an image of the other."""

import os
from pathlib import Path

import pytest

from mpagent.durable import Disk
from mpagent.hal.choose import BoardChoice, open_board
from mpagent.journal import Journal
from mpagent.record import Stage
from mpagent.shelf import DiskShelf
from mpagent.vault import Vault
from tests.offline.bench import ITEMS
from tests.offline.maker import Maker
from tests.offline.shell import STATE, Shell

CHOICE = BoardChoice(("sim",), ("sim",), ("sealed",), ("sim",), mp_secret=True)


@pytest.mark.parametrize("stage", [Stage.DONE, Stage.APPLIED])
def test_board_of_a_line_is_told_that_its_image_is_of_bundles(tmp_path: Path, maker: Maker, stage: Stage) -> None:
    """No command finds facts of bundles in that vault, and whatever the record was edited to, none falls over it."""
    shell = Shell(tmp_path / "board", maker)
    shell.run("offline", "apply", str(shell.put(maker.make(ITEMS))))
    disk = Disk(shell.disk / STATE)
    with open_board(CHOICE._replace(sim_chip=shell.folder / "chip"), shell.disk, DiskShelf(disk)) as board:
        vault, journal = Vault(disk, board.sealer, None, os.urandom), Journal(disk, lambda _text: None)
        record = journal.load()
        assert record.ueid is not None
        number = vault.write(record.ueid, vault.read(record.ueid, record.generation), record.generation)
        journal.save(record._replace(stage=stage, generation=number))
    for words in (("offline", "status"), ("offline", "status", "--json"), ("enroll", "--once")):
        ended = shell.run(*words)
        assert ended.returncode == 78 and b"over a line" in ended.stderr and b"Traceback" not in ended.stderr
