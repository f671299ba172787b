"""The packages that `make deb` just built, and a clean Debian 13 for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deb.layer import Layer
from tests.deb.trees import find_builder, find_clean
from tests.walls.rooms import ROOT

BUILT = ROOT / "out" / "deb"
INSTALL = "apt-get -q --yes --no-download --no-install-recommends install"


def find_package(name: str) -> Path:
    """The package as it was built; there is one of each name."""
    (package,) = BUILT.glob(f"{name}_*.deb")
    return package


@pytest.fixture
def clean(tmp_path: Path) -> Iterator[Layer]:
    """Essential packages and apt, the archives of what ours depend on, and our packages in /packages."""
    yield from _lay(find_clean(), tmp_path / "clean")


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Layer]:
    """Where packages are built and judged, with ours in /packages."""
    yield from _lay(find_builder(), tmp_path / "builder")


def _lay(tree: Path, folder: Path) -> Iterator[Layer]:
    layer = Layer(tree, folder)
    layer.put("packages", find_package("mpagent"), find_package("mpagent-server"))
    yield layer
    layer.remove()
