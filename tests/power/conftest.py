"""A line with room for many boards: every cut point gets a board of its own."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.line import Factory, Oem
from tests.power.processes import Mpserver


@pytest.fixture
def oem(tmp_path: Path) -> Iterator[Oem]:
    """An issuer with one open job of a thousand boards."""
    made = Oem(tmp_path / "oem", quota=1_000)
    yield made
    made.stop()


@pytest.fixture
def factory(tmp_path: Path, oem: Oem) -> Iterator[Factory]:
    """Makes boards on that line."""
    with ExitStack() as stack:
        yield Factory(tmp_path, oem, stack)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mpserver]:
    """A server process that stays up while boards are killed."""
    made = Mpserver(tmp_path_factory.mktemp("line") / "oem")
    made.start()
    yield made
    made.stop()
