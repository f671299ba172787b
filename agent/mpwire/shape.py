"""Shapes: what a decoded CBOR item must look like, and the dataclass it becomes (docs/wire.md section 4).

A shape reads strictly (no unknown key, no missing key, every bound held) and writes the same bytes it would accept.
The reader (`mpagent inspect`) prints from the same tables, so a message cannot be shown other than it is parsed.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

from mpwire.codec import decode, encode, encode_integer, encode_octets, encode_text, join_array, join_map, sort_pairs
from mpwire.errors import Malformed

T = TypeVar("T")


class Misfit(Malformed):
    """As Malformed; its text begins at the item, and every map around it puts its own name before it."""


class Shape:
    """One kind of item. `read` raises Malformed naming the place; `write` is its inverse."""

    def read(self, item: Any, where: str) -> Any:
        """The value of a decoded item; `where` names it in the error."""
        try:
            return self.take(item)
        except Misfit as error:
            raise Malformed(f"{where}{error}") from None

    def take(self, item: Any) -> Any:
        """As `read`, for the shape around it: a place is spelled only once something does not fit. Raises Misfit."""
        raise NotImplementedError

    def write(self, value: Any) -> bytes:
        """The item of a value, spelled (codec.encode)."""
        return encode(value)


class Octets(Shape):
    """A byte string of `low` to `high` bytes."""

    def __init__(self, low: int, high: int | None = None) -> None:
        self.low, self.high = low, low if high is None else high

    def take(self, item: Any) -> bytes:
        if type(item) is not bytes or not self.low <= len(item) <= self.high:
            raise Misfit(f": not a byte string of {self.low} to {self.high} bytes")
        return item

    def write(self, value: bytes) -> bytes:
        return encode_octets(value)


class Text(Shape):
    """A text of 1 to `high` UTF-8 bytes without control characters."""

    def __init__(self, high: int) -> None:
        self.high = high

    def take(self, item: Any) -> str:
        if type(item) is not str or not 1 <= len(item.encode()) <= self.high or not item.isprintable():
            raise Misfit(f": not a printable text of 1 to {self.high} bytes")
        return item

    def write(self, value: str) -> bytes:
        return encode_text(value)


class Integer(Shape):
    """An integer of `low` to `high`, both included."""

    def __init__(self, high: int = 2**63 - 1, low: int = 0) -> None:
        self.low, self.high = low, high

    def take(self, item: Any) -> int:
        if type(item) is not int or not self.low <= item <= self.high:
            raise Misfit(f": not an integer of {self.low} to {self.high}")
        return item

    def write(self, value: int) -> bytes:
        return encode_integer(value)


class OneOf(Shape):
    """One of a closed list of integers or texts."""

    def __init__(self, *allowed: Any) -> None:
        self.allowed = allowed

    def take(self, item: Any) -> Any:
        for value in self.allowed:
            if type(item) is type(value) and item == value:
                return item
        raise Misfit(f": not one of {', '.join(map(str, self.allowed))}")


class Converted(Shape):
    """A shape whose value is converted after reading and back before writing (an enumeration, a key)."""

    def __init__(self, inner: Shape, to_value: Callable[[Any], Any], to_item: Callable[[Any], Any]) -> None:
        self.inner, self.to_value, self.to_item = inner, to_value, to_item

    def take(self, item: Any) -> Any:
        return self.to_value(self.inner.take(item))

    def write(self, value: Any) -> bytes:
        return self.inner.write(self.to_item(value))


class ListOf(Shape):
    """An array of `low` to `high` items of one shape; becomes a tuple."""

    def __init__(self, of: Shape, high: int, low: int = 0) -> None:
        self.of, self.low, self.high = of, low, high

    def take(self, item: Any) -> tuple[Any, ...]:
        if type(item) is not list or not self.low <= len(item) <= self.high:
            raise Misfit(f": not an array of {self.low} to {self.high} items")
        take = self.of.take
        return tuple([take(one) for one in item])

    def write(self, value: Iterable[Any]) -> bytes:
        write = self.of.write
        return join_array([write(one) for one in value])


class Row(Shape):
    """An array of fixed length with one shape a place; becomes a tuple."""

    def __init__(self, *places: Shape) -> None:
        self.places = places

    def take(self, item: Any) -> tuple[Any, ...]:
        if type(item) is not list or len(item) != len(self.places):
            raise Misfit(f": not an array of {len(self.places)} items")
        return tuple([shape.take(one) for shape, one in zip(self.places, item, strict=True)])

    def write(self, value: Iterable[Any]) -> bytes:
        return join_array([shape.write(one) for shape, one in zip(self.places, value, strict=True)])


class TableOf(Shape):
    """A map of 0 to `high` entries from one shape of key to one shape of value; becomes a dict."""

    def __init__(self, key: Shape, of: Shape, high: int) -> None:
        self.key, self.of, self.high = key, of, high

    def take(self, item: Any) -> dict[Any, Any]:
        if type(item) is not dict or len(item) > self.high:
            raise Misfit(f": not a map of at most {self.high} entries")
        take_key, take = self.key.take, self.of.take
        return {take_key(key): take(one) for key, one in item.items()}

    def write(self, value: Mapping[Any, Any]) -> bytes:
        return join_map(sort_pairs([(self.key.write(key), self.of.write(one)) for key, one in value.items()]))


class Field(NamedTuple):
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
        self._names: tuple[str, ...] = of._fields  # type: ignore[attr-defined]  # every message is a NamedTuple
        self._make: Callable[[list[Any]], T] = of._make  # type: ignore[attr-defined]
        by_name = {one.name: one for one in fields}
        if by_name.keys() != set(self._names):
            raise ValueError(f"{title}: the table and {of.__name__} name different fields")
        in_order = [by_name[name] for name in self._names]
        self._plan = [(one.key, one.name, one.shape.take, one.required) for one in in_order]
        self._constant_parts = sort_pairs((encode(key), encode(value)) for key, value in self.constants.items())
        self._write_plan = sorted((encode(one.key), at, one.shape.write) for at, one in enumerate(in_order))
        if self._constant_parts and self._constant_parts[-2] > self._write_plan[0][0]:
            raise ValueError(f"{title}: constants come before every field")

    def read(self, item: Any, where: str = "") -> T:
        value: T = super().read(item, where or self.title)
        return value

    def take(self, item: Any) -> T:
        if type(item) is not dict:
            raise Misfit(": not a map")
        values: list[Any] = []
        known, is_whole, place = len(self.constants), True, ""
        try:
            for key, place, take, required in self._plan:  # noqa: B007  # where it stopped is what the error names
                if key in item:
                    known += 1
                    values.append(take(item[key]))
                else:
                    is_whole = is_whole and not required
                    values.append(None)
        except Misfit as error:
            raise Misfit(f".{place}{error}") from None
        if not is_whole or len(item) != known or not self.constants.keys() <= item.keys():
            self._refuse_keys(item)
        for key, constant in self.constants.items():
            if type(item[key]) is not int or item[key] != constant:
                raise Misfit(f": key {key} is not {constant}")
        return self._make(values)

    def _refuse_keys(self, item: dict[Any, Any]) -> NoReturn:
        required = {one.key for one in self.fields if one.required} | self.constants.keys()
        for key in sorted(required - item.keys(), key=abs):
            raise Misfit(f": key {key} is missing")
        key = next(iter(item.keys() - required - {one.key for one in self.fields}))
        # A text key is the peer's own words, of any length: it is not repeated.
        raise Misfit(f": key {key if type(key) is int else 'of text'} is not known")

    def write(self, value: T) -> bytes:
        parts = self._constant_parts.copy()
        for key, at, write in self._write_plan:
            found = value[at]  # type: ignore[index]  # a NamedTuple
            if found is not None:
                parts += key, write(found)
        return join_map(parts)

    def decode(self, raw: bytes, high: int) -> T:
        """Read a whole message of at most `high` bytes; raises Malformed."""
        if len(raw) > high:
            raise Malformed(f"{self.title}: longer than {high} bytes")
        return self.read(decode(raw))

    def encode(self, value: T) -> bytes:
        """The one encoding of a value."""
        return self.write(value)
