"""Hostile bytes at the issuer: a no by name, nothing signed, nothing wrapped, nothing written (promise P5)."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpissuer.enrollment import answer
from mpwire.errors import MpError
from tests.fuzz.appraisal import ISSUER, feed_stranger
from tests.fuzz.decoders import MP, Door, knock
from tests.fuzz.issuer import FreeAuthority, Reached, make_issuer

DOORS = {f"{decoder}-{name}": door for decoder, make in ISSUER.items() for name, door in make().items()}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_valid_bytes_are_taken_so_that_bent_ones_reach_deep(door: Door) -> None:
    door.feed(door.sample)


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@settings(max_examples=150)
@given(seed=st.integers(0, 2**32 - 1))
def test_bent_bytes_cost_the_issuer_nothing(door: Door, seed: int) -> None:
    knock(door, door.mutate(door.sample, Random(seed)))


@settings(max_examples=300)
@given(raw=st.binary(max_size=200))
def test_noise_costs_the_issuer_nothing(raw: bytes) -> None:
    for start in (b"", b"\xd2", b"\xa7\x00\x01", b"\xa7\x00\x03"):
        try:
            feed_stranger(start + raw)
        except MpError:
            continue


def test_every_cut_of_a_proof_is_refused() -> None:
    for end in range(0, len(MP.proof), 7):
        with pytest.raises(MpError):
            answer(MP.proof[:end], make_issuer())


def test_a_signature_asked_of_these_ports_would_be_noticed() -> None:
    with pytest.raises(Reached):
        FreeAuthority().sign("grant", b"")
