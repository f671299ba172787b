"""Shapes: what a decoded CBOR item must look like, and the dataclass it becomes (docs/wire.md section 4).

A shape reads strictly (no unknown key, no missing key, every bound held) and writes the same bytes it would accept.
The reader (`mpagent inspect`) prints from the same tables, so a message cannot be shown other than it is parsed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mpwire.codec import decode, encode
from mpwire.errors import Malformed

T = TypeVar("T")


class Shape:
    """One kind of item. `read` raises Malformed naming the place; `write` is its inverse."""

    def read(self, item: Any, where: str) -> Any:
        """The value of a decoded item; `where` names it in the error."""
        raise NotImplementedError

    def write(self, value: Any) -> Any:
        """The item of a value, ready for codec.encode."""
        return value


class Octets(Shape):
    """A byte string of `low` to `high` bytes."""

    def __init__(self, low: int, high: int | None = None) -> None:
        self.low, self.high = low, low if high is None else high

    def read(self, item: Any, where: str) -> bytes:
        if type(item) is not bytes or not self.low <= len(item) <= self.high:
            raise Malformed(f"{where}: not a byte string of {self.low} to {self.high} bytes")
        return item


class Text(Shape):
    """A text of 1 to `high` UTF-8 bytes without control characters."""

    def __init__(self, high: int) -> None:
        self.high = high

    def read(self, item: Any, where: str) -> str:
        if type(item) is not str or not 1 <= len(item.encode()) <= self.high or not item.isprintable():
            raise Malformed(f"{where}: not a printable text of 1 to {self.high} bytes")
        return item


class Integer(Shape):
    """An integer of `low` to `high`, both included."""

    def __init__(self, high: int = 2**63 - 1, low: int = 0) -> None:
        self.low, self.high = low, high

    def read(self, item: Any, where: str) -> int:
        if type(item) is not int or not self.low <= item <= self.high:
            raise Malformed(f"{where}: not an integer of {self.low} to {self.high}")
        return item


class OneOf(Shape):
    """One of a closed list of integers or texts."""

    def __init__(self, *allowed: Any) -> None:
        self.allowed = allowed

    def read(self, item: Any, where: str) -> Any:
        for value in self.allowed:
            if type(item) is type(value) and item == value:
                return item
        raise Malformed(f"{where}: not one of {', '.join(map(str, self.allowed))}")


class Converted(Shape):
    """A shape whose value is converted after reading and back before writing (an enumeration, a key)."""

    def __init__(self, inner: Shape, to_value: Callable[[Any], Any], to_item: Callable[[Any], Any]) -> None:
        self.inner, self.to_value, self.to_item = inner, to_value, to_item

    def read(self, item: Any, where: str) -> Any:
        return self.to_value(self.inner.read(item, where))

    def write(self, value: Any) -> Any:
        return self.inner.write(self.to_item(value))


class Anything(Shape):
    """An item that another reader checks (a COSE_Key map)."""

    def read(self, item: Any, where: str) -> Any:
        return item


class ListOf(Shape):
    """An array of `low` to `high` items of one shape; becomes a tuple."""

    def __init__(self, of: Shape, high: int, low: int = 0) -> None:
        self.of, self.low, self.high = of, low, high

    def read(self, item: Any, where: str) -> tuple[Any, ...]:
        if type(item) is not list or not self.low <= len(item) <= self.high:
            raise Malformed(f"{where}: not an array of {self.low} to {self.high} items")
        read = self.of.read
        return tuple([read(one, where) for one in item])

    def write(self, value: Iterable[Any]) -> list[Any]:
        return [self.of.write(one) for one in value]


class Row(Shape):
    """An array of fixed length with one shape a place; becomes a tuple."""

    def __init__(self, *places: Shape) -> None:
        self.places = places

    def read(self, item: Any, where: str) -> tuple[Any, ...]:
        if type(item) is not list or len(item) != len(self.places):
            raise Malformed(f"{where}: not an array of {len(self.places)} items")
        return tuple([shape.read(one, where) for shape, one in zip(self.places, item, strict=True)])

    def write(self, value: Iterable[Any]) -> list[Any]:
        return [shape.write(one) for shape, one in zip(self.places, value, strict=True)]


class TableOf(Shape):
    """A map of 0 to `high` entries from one shape of key to one shape of value; becomes a dict."""

    def __init__(self, key: Shape, of: Shape, high: int) -> None:
        self.key, self.of, self.high = key, of, high

    def read(self, item: Any, where: str) -> dict[Any, Any]:
        if type(item) is not dict or len(item) > self.high:
            raise Malformed(f"{where}: not a map of at most {self.high} entries")
        return {self.key.read(key, where): self.of.read(one, where) for key, one in item.items()}

    def write(self, value: dict[Any, Any]) -> dict[Any, Any]:
        return {self.key.write(key): self.of.write(one) for key, one in value.items()}


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a map: its number, the attribute it becomes, its shape, and the words of docs/wire.md."""

    key: int
    name: str
    shape: Shape
    note: str
    required: bool = True


class MapOf(Shape, Generic[T]):
    """A map with integer keys; becomes the dataclass `of`. An absent optional key becomes None.

    `constants` are keys with one allowed value that the dataclass does not repeat (message number, version).
    """

    def __init__(self, title: str, of: type[T], *fields: Field, constants: dict[int, int] | None = None) -> None:
        self.title, self.of, self.fields = title, of, fields
        self.constants = constants or {}
        if len({*self.constants, *(one.key for one in fields)}) != len(self.constants) + len(fields):
            raise ValueError(f"{title}: a key stands twice in the table")
        self._by_key = {one.key: (one.name, one.shape.read) for one in fields}
        self._required = {one.key for one in fields if one.required} | set(self.constants)
        self._absent = {one.name: None for one in fields if not one.required}

    def read(self, item: Any, where: str = "") -> T:
        title = where or self.title
        if type(item) is not dict:
            raise Malformed(f"{title}: not a map")
        if not self._required <= item.keys():
            missing = sorted(self._required - item.keys(), key=abs)
            raise Malformed(f"{title}: key {missing[0]} is missing")
        values: dict[str, Any] = dict(self._absent)
        for key, one in item.items():
            if key in self._by_key:
                name, read = self._by_key[key]
                values[name] = read(one, f"{title}.{name}")
            elif key not in self.constants:
                # A text key is the peer's own words, of any length: it is not repeated.
                raise Malformed(f"{title}: key {key if type(key) is int else 'of text'} is not known")
            elif type(one) is not int or one != self.constants[key]:
                raise Malformed(f"{title}: key {key} is not {self.constants[key]}")
        return self.of(**values)

    def write(self, value: T) -> dict[int, Any]:
        item: dict[int, Any] = dict(self.constants)
        for one in self.fields:
            found = getattr(value, one.name)
            if found is not None:
                item[one.key] = one.shape.write(found)
        return item

    def decode(self, raw: bytes, high: int) -> T:
        """Read a whole message of at most `high` bytes; raises Malformed."""
        if len(raw) > high:
            raise Malformed(f"{self.title}: longer than {high} bytes")
        return self.read(decode(raw))

    def encode(self, value: T) -> bytes:
        """The one encoding of a value."""
        return encode(self.write(value))
