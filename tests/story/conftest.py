"""One line a test."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.line import Factory, Oem


@pytest.fixture
def oem(tmp_path: Path) -> Iterator[Oem]:
    """An issuer with one product, one open job of four boards."""
    made = Oem(tmp_path / "oem")
    yield made
    made.stop()


@pytest.fixture
def factory(tmp_path: Path, oem: Oem) -> Iterator[Factory]:
    """Makes boards on that line."""
    with ExitStack() as stack:
        yield Factory(tmp_path, oem, stack)
