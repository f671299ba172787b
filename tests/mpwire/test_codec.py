"""The decoder under hostile bytes: one spelling for every item, and nothing but Malformed ever comes out."""

import time
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpwire import codec
from mpwire.codec import Tag, decode, encode
from mpwire.errors import Malformed
from mpwire.limits import DEPTH_MAX

REFUSED = [
    ("truncated", ""),
    ("truncated", "18"),
    ("truncated", "1901"),
    ("truncated", "1b00000000000000"),
    ("truncated", "4261"),
    ("truncated", "5820"),
    ("truncated", "5bffffffffffffffff"),
    ("truncated", "7affffffff"),
    ("truncated", "8118"),
    ("truncated", "a201016261"),
    ("truncated", "a1781861"),
    ("truncated", "d2"),
    ("trailing-bytes", "0000"),
    ("trailing-bytes", "a000"),
    ("not-shortest", "1817"),
    ("not-shortest", "1900ff"),
    ("not-shortest", "1a0000ffff"),
    ("not-shortest", "1b00000000ffffffff"),
    ("not-shortest", "3817"),
    ("not-shortest", "581700"),
    ("not-shortest", "5900ff"),
    ("not-shortest", "780161"),
    ("not-shortest", "9800"),
    ("not-shortest", "b80101"),
    ("not-shortest", "a1180101"),
    ("not-shortest", "a178016101"),
    ("not-shortest", "d81200"),
    ("indefinite-length", "5f41004100ff"),
    ("indefinite-length", "7f6161ff"),
    ("indefinite-length", "9fff"),
    ("indefinite-length", "bfff"),
    ("indefinite-length", "ff"),
    ("indefinite-length", "81ff"),
    ("reserved-length", "1c"),
    ("reserved-length", "3d"),
    ("reserved-length", "5e"),
    ("reserved-length", "9c"),
    ("reserved-length", "fc"),
    ("reserved-length", "a11c00"),
    ("count", "81"),
    ("count", "9affffffff00"),
    ("count", "9bffffffffffffffff"),
    ("count", "a100"),
    ("count", "bb7fffffffffffffff0000"),
    ("depth", "81" * (DEPTH_MAX + 1) + "00"),
    ("depth", "d2" * (DEPTH_MAX + 1) + "00"),
    ("depth", "a100" * (DEPTH_MAX + 1) + "00"),
    ("map-key-type", "a1410000"),
    ("map-key-type", "a1f500"),
    ("map-key-type", "a1f600"),
    ("map-key-type", "a18000"),
    ("map-key-type", "a1a000"),
    ("map-key-type", "a1d20000"),
    ("map-key-type", "a1f93c0000"),
    ("map-key-order", "a201000000"),
    ("map-key-order", "a220000100"),
    ("map-key-order", "a2616200616100"),
    ("map-key-order", "a2626161006100"),
    ("map-key-order", "a2200018ff00"),
    ("map-key-duplicate", "a200000000"),
    ("map-key-duplicate", "a2616100616100"),
    ("map-key-duplicate", "a100a201000100"),
    ("tag", "c000"),
    ("tag", "d100"),
    ("tag", "d9d9f700"),
    ("float", "f90000"),
    ("float", "fa00000000"),
    ("float", "fb3ff0000000000000"),
    ("float", "f97e00"),
    ("simple-value", "f7"),
    ("simple-value", "e0"),
    ("simple-value", "f3"),
    ("simple-value", "f8ff"),
    ("utf-8", "61ff"),
    ("utf-8", "62c080"),
    ("utf-8", "63eda080"),
    ("utf-8", "a161ff00"),
]

SPELLED: list[tuple[Any, str]] = [
    (0, "00"),
    (23, "17"),
    (24, "1818"),
    (255, "18ff"),
    (256, "190100"),
    (65535, "19ffff"),
    (65536, "1a00010000"),
    (2**32 - 1, "1affffffff"),
    (2**32, "1b0000000100000000"),
    (2**64 - 1, "1bffffffffffffffff"),
    (-1, "20"),
    (-24, "37"),
    (-25, "3818"),
    (-70001, "3a00011170"),
    (-(2**64), "3bffffffffffffffff"),
    (b"", "40"),
    ("", "60"),
    ("ü", "62c3bc"),
    ([], "80"),
    ({}, "a0"),
    (False, "f4"),
    (True, "f5"),
    (None, "f6"),
    (Tag(18, [b"", {}, b"p", b"s"]), "d28440a041704173"),
    ({10: 1, 100: 2, -1: 3, "z": 4, "aa": 5}, "a50a011864022003617a0462616105"),
    ([[], {0: {}}, [[1]]], "8380a100a0818101"),
]


@pytest.mark.parametrize(("rule", "spelled"), REFUSED)
def test_second_spelling_is_refused_by_its_own_rule(rule: str, spelled: str) -> None:
    """T Malleability: if two byte strings meant one thing, a digest would not name a message."""
    with pytest.raises(Malformed) as caught:
        decode(bytes.fromhex(spelled))
    assert str(caught.value) == rule


def test_every_rule_has_a_refused_spelling() -> None:
    assert {rule for rule, _ in REFUSED} == set(codec.RULES)


@pytest.mark.parametrize(("item", "spelled"), SPELLED)
def test_each_item_has_the_spelling_of_rfc_8949(item: Any, spelled: str) -> None:
    assert encode(item).hex() == spelled
    assert decode(bytes.fromhex(spelled)) == item


def test_depth_of_the_bound_is_read_and_written() -> None:
    deep: Any = 7
    for _ in range(DEPTH_MAX):
        deep = [deep]
    assert decode(encode(deep)) == deep
    with pytest.raises(ValueError, match="DEPTH_MAX"):
        encode([deep])


@pytest.mark.parametrize("head", [b"\x81", b"\xa1\x00", b"\xd2", b"\x9a\x00\x00\xf0\x00", b"\x82\x00"])
def test_depth_bomb_of_64_kib_costs_nothing(head: bytes) -> None:
    """T Resource exhaustion: a stranger's 64 KiB of nesting is refused at the seventeenth container."""
    bomb = (head * 65536)[:65536]
    start = time.process_time()
    for _ in range(100):
        with pytest.raises(Malformed):
            decode(bomb)
    assert time.process_time() - start < 0.5


def test_counts_beyond_the_bytes_left_take_no_memory() -> None:
    """T Resource exhaustion: 2**63 promised items in nine bytes."""
    for head in ("9b8000000000000000", "bb8000000000000000", "5b8000000000000000"):
        with pytest.raises(Malformed):
            decode(bytes.fromhex(head))


def test_long_text_keys_of_a_stranger_are_not_kept() -> None:
    """T Resource exhaustion: the cache of keys holds short spellings only."""
    long_key = encode({"k" * 24: 0})
    before = codec._read_short_key.cache_info().currsize
    for number in range(50):
        decode(long_key.replace(b"kk", bytes([97 + number // 26, 97 + number % 26])))
    assert codec._read_short_key.cache_info().currsize <= before + 1  # only the head byte that says "long"


def test_what_cannot_be_spelled_is_our_own_bug() -> None:
    for item in (1.5, bytearray(b"x"), {b"k": 1}, {True: 1}, {None: 1}, {1, 2}, object()):
        with pytest.raises(TypeError):
            encode(item)
    for number in (2**64, -(2**64) - 1, [Tag(17, 0)], {2**64: 0}, "\ud800"):
        with pytest.raises(ValueError):
            encode(number)


def test_key_one_does_not_lend_its_spelling_to_true() -> None:
    """1 == True in Python: a kept spelling must not let a bool in as a key."""
    assert encode({1: 0}) == b"\xa1\x01\x00"
    with pytest.raises(TypeError):
        encode({True: 0})
    assert encode([1, True, 0, False]) == b"\x84\x01\xf5\x00\xf4"


def test_enumerations_and_tuples_are_written_as_their_values() -> None:
    class Colour(IntEnum):
        RED = 1

    assert encode({Colour.RED: (Colour.RED, "a")}) == encode({1: [1, "a"]})


SCALARS = st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=300) | st.text(max_size=40) | st.booleans() | st.none()
KEYS = st.integers(-(2**64), 2**64 - 1) | st.integers(-30, 300) | st.text(max_size=30)
ITEMS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=6) | inner.map(lambda value: Tag(18, value))
    ),
    max_leaves=20,
)


def from_cbor2(item: Any) -> Any:
    """cbor2's reading in our types; inside a tag it gives tuples and frozen maps."""
    if isinstance(item, cbor2.CBORTag):
        return Tag(item.tag, from_cbor2(item.value))
    if isinstance(item, list | tuple):
        return [from_cbor2(member) for member in item]
    if isinstance(item, Mapping):
        return {key: from_cbor2(value) for key, value in item.items()}
    return item


@settings(max_examples=300, deadline=None)
@given(ITEMS)
def test_what_was_written_is_read_back(item: Any) -> None:
    raw = encode(item)
    back = decode(raw)
    assert back == item
    assert encode(back) == raw
    assert repr(from_cbor2(cbor2.loads(raw))) == repr(back)


@settings(max_examples=600, deadline=None)
@given(st.binary(max_size=60))
@example(bytes.fromhex("a2613000613100"))
def test_garbage_is_malformed_or_the_only_spelling(raw: bytes) -> None:
    check_invariant(raw)


@settings(max_examples=600, deadline=None)
@given(ITEMS, st.data())
def test_flipped_and_cut_bytes_are_malformed_or_the_only_spelling(item: Any, data: st.DataObject) -> None:
    raw = bytearray(encode(item))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    check_invariant(bytes(raw))
    cut = data.draw(st.integers(0, len(raw)))
    check_invariant(bytes(raw[:cut]))
    check_invariant(bytes(raw) + b"\x00")


def check_invariant(raw: bytes) -> None:
    try:
        item = decode(raw)
    except Malformed as refusal:
        assert str(refusal) in codec.RULES
        return
    assert encode(item) == raw
    assert repr(from_cbor2(cbor2.loads(raw))) == repr(item)  # repr: equal in type too, True is not 1


@settings(max_examples=300, deadline=None)
@given(ITEMS)
def test_every_proper_prefix_is_refused(item: Any) -> None:
    """T Truncation: a message cut anywhere never reads as a shorter message."""
    raw = encode(item)
    for end in range(min(len(raw), 80)):
        with pytest.raises(Malformed):
            decode(raw[:end])
