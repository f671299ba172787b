"""Hostile media: what lies where a bundle or a receipts file is looked for is refused by name, or is the real one."""

from random import Random
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.ceiling
"""The samples are signed repeatably, which the floor's library cannot."""


@pytest.fixture(scope="module")
def bundling() -> ModuleType:
    """Imported late: its samples are made on import."""
    from tests.fuzz import bundling

    return bundling


def test_valid_bytes_are_taken_so_that_bent_ones_reach_deep(bundling: ModuleType) -> None:
    for door in bundling.bundle_doors().values():
        door.feed(door.sample)


@settings(max_examples=400, deadline=None)
@given(choice=st.integers(0, 7), seed=st.integers(0, 2**32 - 1))
def test_bent_bundles_are_refused_by_name_or_are_the_signed_one(bundling: ModuleType, choice: int, seed: int) -> None:
    from tests.fuzz.decoders import knock

    door = list(bundling.bundle_doors().values())[choice]
    knock(door, door.mutate(door.sample, Random(seed)))
