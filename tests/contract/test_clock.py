"""mpissuer.ports.Clock: the machine's clock, and the one that tests put where they want it."""

import pytest

from mpissuer.ports import Clock
from mpserver.clock import SystemClock
from mpsim.clock import SetClock

FIRST_RELEASE = 1_750_000_000
LAST_TIME = 2**40
"""What an issuer says has to fit every reader's bound for a time, anchors.toml's too."""


@pytest.fixture(params=[SystemClock, lambda: SetClock(1_800_000_000)], ids=["system", "set"])
def clock(request: pytest.FixtureRequest) -> Clock:
    """The clock under contract."""
    made: Clock = request.param()
    return made


def test_time_is_whole_seconds_since_1970(clock: Clock) -> None:
    assert type(clock.now()) is int
    assert FIRST_RELEASE < clock.now() < LAST_TIME


def test_time_does_not_run_back(clock: Clock) -> None:
    told = [clock.now() for _ in range(1_000)]
    assert told == sorted(told)
