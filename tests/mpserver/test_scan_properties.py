"""mpserver.scan on bent images of every kind: a walk ends, and says what it did not see."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpserver.scan.findings import Kind
from tests.fuzz.decoders import Door
from tests.fuzz.images import image_doors
from tests.mpserver.plants import walk_bytes

DOORS = image_doors()


@pytest.mark.parametrize("name", DOORS)
def test_what_is_planted_in_a_sample_is_found(name: str) -> None:
    kinds = {one.kind for one in walk_bytes(DOORS[name].sample)}
    assert kinds >= {Kind.MP_SIGNATURE if name in ("evidence", "log") else Kind.MP_KEY}
    assert Kind.UNSEEN not in kinds


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_bent_image_is_walked_to_its_end(door: Door, seed: int) -> None:
    door.feed(door.mutate(door.sample, Random(seed)))
