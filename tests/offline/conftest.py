"""A maker of bundles, and boards that have met none yet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.offline.bench import Site
from tests.offline.maker import Maker

MakeSite = Callable[..., Site]


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def make_site(tmp_path: Path, maker: Maker) -> MakeSite:
    made: list[Site] = []

    def make(**how: Any) -> Site:
        made.append(Site(tmp_path / f"board{len(made)}", maker, **how))
        return made[-1]

    return make


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    """One closed board."""
    return make_site()
