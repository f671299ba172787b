"""ports.Counter: what every counter promises."""

from collections.abc import Callable

import pytest

from mpagent.hal.ports import Counter
from mpsim.counter import SoftCounter

COUNTERS = (SoftCounter,)


@pytest.fixture(params=COUNTERS)
def counter(request: pytest.FixtureRequest) -> Counter:
    """The counter under contract."""
    make: Callable[[], Counter] = request.param
    return make()


def test_counter_rises_and_stays(counter: Counter) -> None:
    before = counter.read()
    counter.raise_to(before + 3)
    assert counter.read() == before + 3 == counter.read()


def test_counter_never_falls(counter: Counter) -> None:
    """Whoever restores an old disk has it say a lower number."""
    before = counter.read()
    counter.raise_to(before + 3)
    for lower in (before + 3, before + 1, 0):
        counter.raise_to(lower)
        assert counter.read() == before + 3


def test_receipts_know_the_counter_by_a_name_that_fits(counter: Counter) -> None:
    assert 1 <= len(counter.kind.encode()) <= 16 and counter.kind != "none"
