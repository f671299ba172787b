"""Shapes: what is read is what would be written, and a table cannot say two things of one key."""

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpwire.codec import decode, encode
from mpwire.errors import Malformed
from mpwire.shape import Field, Integer, ListOf, MapOf, Octets, OneOf, Row, TableOf, Text
from tests.vectors.format import PAYLOADS, load, read_bytes

GOLDEN = {vector["name"]: read_bytes(vector["bytes"]) for vector in load("golden.json")}


class Pair(NamedTuple):
    left: int
    right: str | None = None


class Outer(NamedTuple):
    pairs: tuple[Pair, ...]


PAIR = MapOf(
    "pair", Pair, Field(1, "left", Integer(9), "a digit"), Field(2, "right", Text(4), "a word", required=False)
)


@pytest.mark.parametrize("name", PAYLOADS)
def test_what_is_read_is_written_back_byte_for_byte(name: str) -> None:
    _, shape, high, enveloped = PAYLOADS[name]
    item: Any = decode(GOLDEN[name])
    raw: bytes = item.value[2] if enveloped else GOLDEN[name]
    assert shape.encode(shape.decode(raw, high)) == raw


def test_a_table_that_uses_a_key_twice_is_refused_at_import() -> None:
    """One field would silently overwrite the other, on the wire and under the signature."""
    with pytest.raises(ValueError, match="twice"):
        MapOf("pair", Pair, Field(1, "left", Integer(), "a"), constants={1: 1})
    with pytest.raises(ValueError, match="twice"):
        MapOf("pair", Pair, Field(1, "left", Integer(), "a"), Field(1, "right", Text(4), "b"))


def test_an_absent_optional_key_is_none_and_stays_absent() -> None:
    assert PAIR.read({1: 3}) == Pair(3, None)
    assert PAIR.write(Pair(3)) == encode({1: 3})


def test_null_is_not_absence() -> None:
    with pytest.raises(Malformed, match=r"pair\.right: not a printable text"):
        PAIR.read({1: 3, 2: None})


def test_a_strangers_key_is_not_repeated_in_the_error() -> None:
    with pytest.raises(Malformed) as caught:
        PAIR.read({1: 3, "\x1b[2J" + "x" * 100_000: 0})
    assert str(caught.value) == "pair: key of text is not known"


OUTER = MapOf("outer", Outer, Field(1, "pairs", ListOf(PAIR, 2), "pairs"), constants={0: 5})


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({0: 5, 1: [{1: 3}, {1: 10}]}, "outer.pairs.left: not an integer of 0 to 9"),
        ({0: 5, 1: [{}]}, "outer.pairs: key 1 is missing"),
        ({0: 5, 1: [{2: "a"}]}, "outer.pairs: key 1 is missing"),
        ({0: 5, 1: [{2: "a", 3: 0}]}, "outer.pairs: key 1 is missing"),
        ({0: 5, 1: [{1: 3, 3: 0}]}, "outer.pairs: key 3 is not known"),
        ({0: 5, 1: [0]}, "outer.pairs: not a map"),
        ({1: []}, "outer: key 0 is missing"),
        ({1: [], 2: 0}, "outer: key 0 is missing"),
        ({0: 6, 1: []}, "outer: key 0 is not 5"),
        ({0: True, 1: []}, "outer: key 0 is not 5"),
    ],
)
def test_the_error_names_the_place_and_a_missing_key_is_not_made_up_for(item: Any, told: str) -> None:
    """As many keys as a message has, but not its keys, is not that message."""
    with pytest.raises(Malformed) as caught:
        OUTER.read(item)
    assert str(caught.value) == told


def test_what_was_read_cannot_be_changed_after_it_was_checked() -> None:
    found = PAIR.read({1: 3, 2: "a"})
    with pytest.raises(AttributeError):
        found.left = 4  # type: ignore[misc]  # that is the test
    assert type(found) is Pair and found == Pair(3, "a") and hash(found) == hash(Pair(3, "a"))


def test_a_table_that_leaves_a_field_out_is_refused_at_import() -> None:
    """The field would be filled by a default that nobody sent."""
    with pytest.raises(ValueError, match="different fields"):
        MapOf("pair", Pair, Field(1, "left", Integer(), "a"))


def test_truth_values_are_no_integers() -> None:
    for shape in (Integer(5), OneOf(0, 1)):
        with pytest.raises(Malformed):
            shape.read(True, "x")


@given(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.binary(max_size=9), st.text(max_size=9), st.lists(st.integers())
    )
)
def test_any_item_is_read_or_malformed(item: Any) -> None:
    shapes = (Octets(1, 4), Text(4), Integer(9), OneOf("a", "b"), ListOf(Integer(9), 2), Row(Integer(9)), PAIR)
    for shape in (*shapes, TableOf(Text(4), Integer(9), 2)):
        try:
            value = shape.read(item, "x")
        except Malformed as error:
            assert str(error).startswith("x")
        else:
            assert shape.write(value) == encode(item)
