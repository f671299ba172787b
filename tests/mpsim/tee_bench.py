"""A board with an emulated TEE, and a program on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpsim.board import BoardPlan, make_board
from mpsim.optee.bench import EmulatedTee
from tests.mpsim.raw_tee import RawTee

SHIM = Path(__file__).parents[2] / "out" / "shim"


@contextmanager
def tee_of_board(folder: Path, **plan: Any) -> Iterator[EmulatedTee]:
    """A new board, closed unless the plan says otherwise."""
    make_board(folder, BoardPlan(**{"closed": True, **plan}))
    with EmulatedTee(folder, SHIM) as tee:
        yield tee


@contextmanager
def program_on(tee: EmulatedTee, area_bytes: int = 8192) -> Iterator[RawTee]:
    """A process that has opened the device and holds one area."""
    with RawTee(tee.environment()) as raw:
        assert raw.open_node() == 0
        assert raw.allocate(area_bytes) == 0
        yield raw
