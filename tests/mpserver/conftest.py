"""One ledger a test; one running server for tests of the face."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mpserver.shop import Shop, make_shop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """An issuer with one open job of four boards."""
    made = make_shop(tmp_path / "oem")
    yield made
    made.close()
