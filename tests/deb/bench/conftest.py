"""The packages that `make deb` just built, and a Debian 13 for each test that none before it has touched."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deb.layer import Layer
from tests.deb.trees import find_builder, find_clean
from tests.walls.rooms import ROOT

BUILT = ROOT / "out" / "deb"
INSTALL = "apt-get -q --yes --no-install-recommends install"
"""There is no network: apt takes what lies in the tree."""


def find_package(name: str) -> Path:
    """The package as it was built; there is one of each name."""
    (package,) = BUILT.glob(f"{name}_*.deb")
    return package


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Layer]:
    """Where packages are built and judged, with ours in /packages."""
    yield from lay(find_builder(), tmp_path / "builder")


def install(name: str, folder: Path) -> Iterator[Layer]:
    """One package in a tree of essential packages and apt: whatever else it needs, it has to depend on.

    Nothing may run in it but in layers over it.
    """
    for layer in lay(find_clean(), folder):
        (layer.path("packages") / "said").write_text(layer.shell(f"{INSTALL} /packages/{name}_*.deb"))
        yield layer


def lay(below: Path | Layer, folder: Path) -> Iterator[Layer]:
    """A layer with our packages in /packages, and its removal."""
    layer = Layer(below, folder)
    layer.put("packages", find_package("mpagent"), find_package("mpagent-server"))
    yield layer
    layer.remove()
