"""A maker of bundles, and boards that have met none yet."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.offline.bench import API_KEY, MODEL, OEM, OWNER, Site, find_leaks, list_hidden
from tests.offline.maker import JOB_SECRET, Maker

MakeSite = Callable[..., Site]


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def make_site(tmp_path: Path, maker: Maker) -> Iterator[MakeSite]:
    """At the end each board's disk, receipts and words are searched for what none of them may hold."""
    made: list[Site] = []

    def make(**how: Any) -> Site:
        made.append(Site(tmp_path / f"board{len(made)}", maker, **how))
        return made[-1]

    yield make
    hidden = (*list_hidden(maker, (JOB_SECRET, OEM.key, OWNER.key)), API_KEY, MODEL[:32])
    for site in made:
        shown = b"".join(site.kept().values()) + "\n".join(site.said).encode()
        shown += b"".join((site.receipts / name).read_bytes() for name in site.exported())
        assert find_leaks(shown, *hidden) == [], site.folder


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    """One closed board."""
    return make_site()
