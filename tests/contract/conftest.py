"""Every suite here runs against every kind of board."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.contract.rigs import Rig, make_rig

KINDS = ("sim", "tpm", "tpm-with-sealed-keys")


@pytest.fixture
def make_board_of(tmp_path: Path) -> Iterator[Callable[[str], Rig]]:
    """Makes boards by kind; all are switched off at the end."""
    with ExitStack() as stack:
        made: list[Rig] = []

        def make(kind: str) -> Rig:
            made.append(stack.enter_context(make_rig(kind, tmp_path / f"board{len(made)}")))
            return made[-1]

        yield make


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of board under contract."""
    return str(request.param)


@pytest.fixture
def rig(kind: str, make_board_of: Callable[[str], Rig]) -> Rig:
    """The board under contract."""
    return make_board_of(kind)


@pytest.fixture
def stranger(kind: str, make_board_of: Callable[[str], Rig]) -> Rig:
    """Another board of the same kind."""
    return make_board_of(kind)
