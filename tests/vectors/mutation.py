"""Every way to break one shape, made from the tables of mpwire: missing, unknown, wrong type, too much, too little.

A mutation is an item that the shape must refuse, and the start of the error text that must name the place.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from mpwire.keys import PublicKey
from mpwire.shape import Converted, Integer, ListOf, MapOf, Octets, OneOf, Row, Shape, TableOf, Text

Mutation: TypeAlias = tuple[str, str, Any]
"""(what was done, start of the error text, item)."""


def break_map(shape: MapOf[Any], item: dict[int, Any], where: str) -> Iterator[Mutation]:
    """Every mutation of a map that `shape` accepts."""
    for key in [*shape.constants, *(one.key for one in shape.fields if one.required)]:
        rest = {other: one for other, one in item.items() if other != key}
        yield f"without key {key}", f"{where}: key {key} is missing", rest
    yield "with key 99", f"{where}: key 99 is not known", {**item, 99: 0}
    yield "with a text key", f"{where}: key of text is not known", {**item, "x": 0}
    for key, value in shape.constants.items():
        yield f"key {key} of another value", f"{where}: key {key} is not {value}", {**item, key: value + 1}
        yield f"key {key} of another type", f"{where}: key {key} is not {value}", {**item, key: str(value)}
    for field in shape.fields:
        if field.key in item:
            for what, rule, one in break_item(field.shape, item[field.key], f"{where}.{field.name}"):
                yield f"{field.name} {what}", rule, {**item, field.key: one}


def break_item(shape: Shape, item: Any, where: str) -> Iterator[Mutation]:
    """Every mutation of an item that `shape` accepts."""
    for kind, breaker in _BREAKERS.items():
        if isinstance(shape, kind):
            yield from breaker(shape, item, where)
            return
    raise TypeError(f"no mutation for {type(shape).__name__}")


def _break_octets(shape: Octets, item: Any, where: str) -> Iterator[Mutation]:
    rule = f"{where}: not a byte string"
    yield "as a text", rule, "x" * shape.low or "x"
    yield "one byte too long", rule, bytes(shape.high + 1)
    if shape.low:
        yield "one byte too short", rule, bytes(shape.low - 1)


def _break_text(shape: Text, item: Any, where: str) -> Iterator[Mutation]:
    rule = f"{where}: not a printable text"
    yield "as a byte string", rule, b"x"
    yield "one byte too long", rule, "x" * (shape.high + 1)
    yield "empty", rule, ""


def _break_integer(shape: Integer, item: Any, where: str) -> Iterator[Mutation]:
    rule = f"{where}: not an integer"
    yield "as a text", rule, "1"
    yield "as a truth value", rule, True
    yield "above its range", rule, shape.high + 1
    yield "below its range", rule, shape.low - 1


def _break_choice(shape: OneOf, item: Any, where: str) -> Iterator[Mutation]:
    rule = f"{where}: not one of"
    of_text = isinstance(shape.allowed[0], str)
    yield "outside its list", rule, "no-such" if of_text else max(shape.allowed) + 1
    yield "of another type", rule, 1 if of_text else str(shape.allowed[0])


def _break_list(shape: ListOf, item: Any, where: str) -> Iterator[Mutation]:
    rule = f"{where}: not an array"
    yield "as a map", rule, {}
    member = item[0] if item else _sample(shape.of)
    yield "one member too many", rule, [member] * (shape.high + 1)
    if shape.low:
        yield "one member too few", rule, [member] * (shape.low - 1)
    if item:
        for what, inner, one in break_item(shape.of, item[0], where):
            yield f"[0] {what}", inner, [one, *item[1:]]


def _break_row(shape: Row, item: Any, where: str) -> Iterator[Mutation]:
    rule = f"{where}: not an array"
    yield "as a byte string", rule, b""
    yield "one place too many", rule, [*item, item[-1]]
    yield "one place too few", rule, item[:-1]
    for place, (of, one) in enumerate(zip(shape.places, item, strict=True)):
        for what, inner, broken in break_item(of, one, where):
            yield f"[{place}] {what}", inner, [*item[:place], broken, *item[place + 1 :]]


def _break_table(shape: TableOf, item: Any, where: str) -> Iterator[Mutation]:
    yield "as an array", f"{where}: not a map", []
    value = next(iter(item.values())) if item else _sample(shape.of)
    if not isinstance(shape.key, OneOf):
        text = isinstance(shape.key, Text)
        many = {(f"k{count:02}" if text else count): value for count in range(shape.high + 1)}
        yield "one entry too many", f"{where}: not a map", many
    key: Any = "x" if isinstance(shape.key, Integer) else 1
    yield "with a key of another type", f"{where}: not ", {**item, key: value}
    for first, one in list(item.items())[:1]:
        for what, inner, broken in break_item(shape.of, one, where):
            yield f"value {what}", inner, {**item, first: broken}


def _break_key(shape: PublicKey, item: Any, where: str) -> Iterator[Mutation]:
    yield "as a byte string", "cose-key", b"\x04" + item[-2] + item[-3]
    for key in (1, -1, -2, -3):
        yield f"without {key}", "cose-key", {other: one for other, one in item.items() if other != key}
    yield "with a kid", "cose-key", {**item, 2: b"x"}
    yield "of another curve", "cose-key", {**item, -1: 2}
    yield "with y one byte short", "cose-key", {**item, -3: item[-3][1:]}
    yield "with y as a sign bit", "cose-key", {**item, -3: True}


_BREAKERS: dict[type[Shape], Callable[[Any, Any, str], Iterator[Mutation]]] = {
    MapOf: break_map,
    Octets: _break_octets,
    Text: _break_text,
    Integer: _break_integer,
    OneOf: _break_choice,
    ListOf: _break_list,
    Row: _break_row,
    TableOf: _break_table,
    PublicKey: _break_key,
    Converted: lambda shape, item, where: break_item(shape.inner, item, where),
}


def _sample(shape: Shape) -> Any:
    """The least item a shape accepts, where the golden message has none to copy."""
    if isinstance(shape, Octets):
        return bytes(shape.low)
    if isinstance(shape, Row):
        return [_sample(one) for one in shape.places]
    raise TypeError(f"no sample for {type(shape).__name__}")
