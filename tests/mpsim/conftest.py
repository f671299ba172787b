"""Boards to break."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mpsim.board import BoardPlan, make_board

MakeChip = Callable[..., Path]


@pytest.fixture
def make_chip(tmp_path: Path) -> MakeChip:
    """Makes a board by name and plan; gives its chip folder."""

    def make(name: str = "board", **plan: object) -> Path:
        make_board(tmp_path / name, BoardPlan(**plan))  # type: ignore[arg-type]  # tests name the fields
        return tmp_path / name / "chip"

    return make
