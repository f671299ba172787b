"""Tests on a real kernel: scripts/qemu.sh runs them, and `make test` does not."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.qemu.guest import Machine


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
