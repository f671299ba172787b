"""Tests on a real kernel: scripts/qemu.sh runs them, and `make test` does not."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.qemu.factory import Line
from tests.qemu.guest import Machine
from tests.qemu.office import Office

CUTS = 10
"""Two in each phase of a first boot, one of them with the disk's cache."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many power cuts; `make qemu-cuts N=`."""
    parser.addoption("--cuts", type=int, default=CUTS, help="power cuts of a board before PASS")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each cut is a test."""
    if "cut_number" in metafunc.fixturenames:
        metafunc.parametrize("cut_number", range(metafunc.config.getoption("--cuts")))


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine with an empty TPM, in a folder that goes with it."""
    with tempfile.TemporaryDirectory(prefix="mpguest-") as folder:
        yield Machine(Path(folder))


@pytest.fixture
def other_machine() -> Iterator[Machine]:
    """Another one, with a TPM of its own."""
    with tempfile.TemporaryDirectory(prefix="mpguest-") as folder:
        yield Machine(Path(folder))


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    """A server that runs, and an image for it."""
    with tempfile.TemporaryDirectory(prefix="mpline-") as folder:
        office = Office(Path(folder) / "office", quota=1000)
        with office.serve() as server:
            yield Line(Path(folder), office, server)
