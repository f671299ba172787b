"""Hostile bytes: whatever arrives or lies on disk, a reader takes it as it stands or says so by an MpError."""

from collections.abc import Callable
from random import Random
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.ceiling
"""The samples are signed repeatably, which the floor's library cannot."""

DECODERS = ("codec", "cose", "messages", "evidence", "trust", "tpm2", "stored", "inspection", "config", "acceptance")
FRAMED = ("cose", "messages", "evidence", "tpm2", "stored", "inspection")


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    """Imported late: its samples are made on import."""
    from tests.fuzz import decoders

    return decoders


@pytest.fixture(scope="module")
def doors_of(fuzz: ModuleType) -> Callable[[str], list]:
    made = {name: list(make().items()) for name, make in fuzz.WIRE.items()}
    assert set(made) == set(DECODERS)
    return made.__getitem__


@pytest.mark.parametrize("decoder", DECODERS)
def test_valid_bytes_are_taken_so_that_bent_ones_reach_deep(decoder: str, doors_of: Callable[[str], list]) -> None:
    for _, door in doors_of(decoder):
        door.feed(door.sample)


@pytest.mark.parametrize("decoder", DECODERS)
@settings(max_examples=500)
@given(choice=st.integers(0, 63), seed=st.integers(0, 2**32 - 1))
def test_bent_bytes_are_refused_by_name_or_taken_whole(
    decoder: str, doors_of: Callable[[str], list], fuzz: ModuleType, choice: int, seed: int
) -> None:
    doors = doors_of(decoder)
    _, door = doors[choice % len(doors)]
    fuzz.knock(door, door.mutate(door.sample, Random(seed)))


@pytest.mark.parametrize("decoder", [name for name in DECODERS if name != "config"])
def test_a_message_that_lost_or_gained_a_byte_is_refused(
    decoder: str, doors_of: Callable[[str], list], fuzz: ModuleType
) -> None:
    for name, door in doors_of(decoder):
        ends = range(0, len(door.sample), max(1, len(door.sample) // 60))
        cuts = [door.sample[:end] for end in ends] + [door.sample[:-1], door.sample + b"\x00"]
        assert [cut.hex() for cut in cuts if fuzz.knock(door, cut)] == [], name


@settings(max_examples=200)
@given(raw=st.binary(max_size=80))
def test_noise_is_refused_by_name(doors_of: Callable[[str], list], fuzz: ModuleType, raw: bytes) -> None:
    for decoder in FRAMED:
        for _, door in doors_of(decoder):
            fuzz.knock(door, raw)


@pytest.mark.timeout(5)
def test_a_long_line_costs_a_reader_of_configuration_no_more_than_its_length(
    doors_of: Callable[[str], list], fuzz: ModuleType
) -> None:
    for start in (b"x = [\n[", b"x = [\n[[a", b'x = """\n', b"x = [\n'a', [a", b"a"):
        for _, door in doors_of("config"):
            assert not fuzz.knock(door, start + b" " * 200_000 + b"\n]]")
