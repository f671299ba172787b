"""Strict deterministic CBOR (RFC 8949 section 4.2.1): one spelling for every item, anything else is refused.

Stands under every message, before any signature is checked, so a stranger's bytes must cost little: the reader keeps
its own stack, never recurses, and takes no memory for a count that the bytes left could not fill.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, NoReturn, TypeAlias

from mpwire.errors import Malformed
from mpwire.limits import DEPTH_MAX

KEYS_KEPT: Final = 1024
"""Map keys kept with their spellings, at most 24 bytes each: the registry's numbers and the slot names in use."""
TAG_SIGN1: Final = 18
"""COSE_Sign1 (RFC 9052 section 2), the only tag of the wire."""

RULES: Final = (
    "truncated",
    "trailing-bytes",
    "not-shortest",
    "indefinite-length",
    "reserved-length",
    "count",
    "depth",
    "map-key-type",
    "map-key-order",
    "map-key-duplicate",
    "tag",
    "float",
    "simple-value",
    "utf-8",
)
"""Every public text `decode` can refuse with."""


class Tag(NamedTuple):
    """A tagged item. Only TAG_SIGN1 is read or written."""

    number: int
    value: "Item"


Item: TypeAlias = "int | bytes | str | bool | list[Item] | dict[int | str, Item] | Tag | None"
Reader: TypeAlias = Callable[[bytes, int], "tuple[int | bytes | str | bool | None, int]"]


def decode(raw: bytes) -> Item:
    """The one item that `raw` spells, from its first byte to its last. Raises Malformed with a name out of RULES."""
    try:
        item, end = _read_item(raw)
    except IndexError:  # the only subscripts outside a checked bound are reads past the end of raw
        raise Malformed("truncated") from None
    if end != len(raw):
        raise Malformed("trailing-bytes")
    return item


def _read_item(raw: bytes) -> tuple[Item, int]:
    """The first item of raw and where it ends. What is open stands in local names, what is around it on the stack."""
    root: list[Item] = []
    items, table, left, tagged = root, None, 1, False
    spelled = b""  # the last key as it stood on the wire
    stack: list[tuple[list[Item], dict[int | str, Item] | None, int, bool, bytes, int | str]] = []
    key: int | str = 0
    at = 0
    value: Item
    while True:
        if left:
            left -= 1
            if table is not None:
                end = at + _KEY_BYTES[raw[at]]
                before, spelled = spelled, raw[at:end]
                key = _read_short_key(spelled)  # type: ignore[assignment]  # None until the next line
                if key is None:
                    key, end = _read_text(raw, at)
                    spelled = raw[at:end]
                if spelled <= before:
                    _refuse_order(before, spelled)
                at = end
            value = raw[at]
            if value < 24:
                at += 1
            elif 0x80 <= value < 0xE0:
                stack.append((items, table, left, tagged, spelled, key))
                items, table, left, tagged, at = _open(raw, at, len(stack))
                spelled = b""
                continue
            else:
                value, at = _VALUE_READERS[value](raw, at)
        elif stack:
            value = _close(items, table, tagged)
            items, table, left, tagged, spelled, key = stack.pop()
        else:
            return root[0], at
        if table is None:
            items.append(value)
        else:
            table[key] = value


def _close(items: list[Item], table: dict[int | str, Item] | None, tagged: bool) -> Item:
    if tagged:
        return Tag(TAG_SIGN1, items[0])
    return items if table is None else table


def _open(raw: bytes, at: int, depth: int) -> tuple[list[Item], dict[int | str, Item] | None, int, bool, int]:
    """The container whose head stands at `at`: its list or table, how many items it takes, whether they are one tagged
    item, and where the first begins."""
    if depth > DEPTH_MAX:
        raise Malformed("depth")
    head = raw[at]
    count, at = (head & 31, at + 1) if head & 31 < 24 else _read_argument(raw, at)
    if head >= 0xC0:
        if count != TAG_SIGN1:
            raise Malformed("tag")
        return [], None, 1, True, at
    if count * ((head >> 5) - 3) > len(raw) - at:  # an array's item takes one byte at least, a map's pair two
        raise Malformed("count")
    return [], (None if head < 0xA0 else {}), count, False, at


_HEAD_BYTES: Final = (*[1] * 24, 2, 3, 5, 9, *[1] * 4)
_SHORTER: Final = (*[0] * 24, 24, 1 << 8, 1 << 16, 1 << 32)
"""By additional information: the head's size, and the least argument that needs so long a head."""


def _read_argument(raw: bytes, at: int) -> tuple[int, int]:
    """The head's argument (RFC 8949 section 3), shortest form only, and where the head ends."""
    info = raw[at] & 31
    if info < 24:
        return info, at + 1
    if info == 24:
        value = raw[at + 1]
        if value < 24:
            raise Malformed("not-shortest")
        return value, at + 2
    if info > 27:
        raise Malformed("indefinite-length" if info == 31 else "reserved-length")
    end = at + _HEAD_BYTES[info]
    spelled = raw[at + 1 : end]
    if end > len(raw):
        raise Malformed("truncated")
    value = int.from_bytes(spelled, "big")
    if value < _SHORTER[info]:
        raise Malformed("not-shortest")
    return value, end


def _read_negative(raw: bytes, at: int) -> tuple[int, int]:
    value, at = _read_argument(raw, at)
    return ~value, at


def _read_bytes(raw: bytes, at: int) -> tuple[bytes, int]:
    size = raw[at] & 31
    if size < 24:
        at += 1
    elif size == 24 and raw[at + 1] >= 24:  # digests and points: nearly all the strings there are
        size, at = raw[at + 1], at + 2
    else:
        size, at = _read_argument(raw, at)
    end = at + size
    if end > len(raw):
        raise Malformed("truncated")
    return raw[at:end], end


def _read_text(raw: bytes, at: int) -> tuple[str, int]:
    spelled, at = _read_bytes(raw, at)
    try:
        return spelled.decode(), at
    except UnicodeDecodeError:
        raise Malformed("utf-8") from None


def _read_simple(raw: bytes, at: int) -> tuple[bool | None, int]:
    head = raw[at]
    if head == 0xF6:
        return None, at + 1
    if 0xF4 <= head <= 0xF5:
        return head == 0xF5, at + 1
    if head == 0xFF:
        raise Malformed("indefinite-length")
    if head >= 0xFC:
        raise Malformed("reserved-length")
    raise Malformed("float" if head >= 0xF9 else "simple-value")


_BY_MAJOR: Final[tuple[Reader, ...]] = (
    *(_read_argument, _read_negative, _read_bytes, _read_text),
    *(_read_argument, _read_argument, _read_argument, _read_simple),
)
_VALUE_READERS: Final = tuple(reader for reader in _BY_MAJOR for _ in range(32))
"""By head byte. Majors 4 to 6 never arrive here: they open a frame."""
_KEY_BYTES: Final = (*_HEAD_BYTES * 2, *[1] * 32, *range(1, 25), *[1] * 136)
"""By head byte, what a map key takes: integers and texts up to 23 bytes in full."""


@lru_cache(maxsize=KEYS_KEPT)
def _read_short_key(spelled: bytes) -> int | str | None:
    """The map key spelled here; None for a longer text, which is not kept: a stranger's keys must not fill memory."""
    head = spelled[0]
    if 0x78 <= head < 0x80:
        return None
    if 0x40 <= head < 0x60 or head >= 0x80:
        raise Malformed("map-key-type")
    return _VALUE_READERS[head](spelled, 0)[0]  # type: ignore[return-value]  # majors 0, 1 and 3 give int or str


def _refuse_order(before: bytes, spelled: bytes) -> NoReturn:
    raise Malformed("map-key-order" if spelled < before else "map-key-duplicate")


def encode(item: object) -> bytes:
    """The one spelling of `item`; a tuple is written as an array, an enumeration of int or str as its value.

    What cannot be spelled is our own bug, not a peer's: TypeError for a type outside Item, ValueError for an integer
    beyond 64 bits, a lone surrogate, a tag other than TAG_SIGN1 or more than DEPTH_MAX containers.
    """
    return _spell(item, 0)


def encode_octets(item: bytes) -> bytes:
    """`encode` of a byte string, for what is put together of whole items."""
    size = len(item)
    return (_BYTES_HEADS[size] if size < 256 else _head(2, size)) + item


def head_octets(size: int) -> bytes:
    """What stands before `size` bytes of a byte string that is too long to hold."""
    return _head(2, size)


def encode_text(item: str) -> bytes:
    """`encode` of a text."""
    spelled = item.encode()
    size = len(spelled)
    return (_TEXT_HEADS[size] if size < 256 else _head(3, size)) + spelled


@lru_cache(maxsize=KEYS_KEPT)
def encode_integer(item: int) -> bytes:
    """`encode` of an integer, which must not be a truth value: it would be found under 0 and 1."""
    return _head(0, item) if item >= 0 else _head(1, ~item)


def join_array(members: Sequence[bytes]) -> bytes:
    """The array of items that are spelled already."""
    return _head(4, len(members)) + b"".join(members)


def join_map(parts: Sequence[bytes]) -> bytes:
    """The map of keys and values in turn, spelled already, in the order of their keys' spellings."""
    return _head(5, len(parts) >> 1) + b"".join(parts)


def sort_pairs(pairs: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """For `join_map`; no key stands twice."""
    return [part for pair in sorted(pairs) for part in pair]


_SHORT: Final = tuple(tuple(bytes([major << 5 | value]) for value in range(24)) for major in range(8))


def _head(major: int, value: int) -> bytes:
    if value < 24:
        return _SHORT[major][value]
    if value < 0x100:
        return bytes((major << 5 | 24, value))
    for info, size in ((25, 2), (26, 4), (27, 8)):
        if value >> (8 * size) == 0:
            return bytes((major << 5 | info,)) + value.to_bytes(size, "big")
    raise ValueError("integer beyond 64 bits")


_BYTES_HEADS: Final = tuple(_head(2, size) for size in range(256))
_TEXT_HEADS: Final = tuple(_head(3, size) for size in range(256))


def _spell(item: object, depth: int) -> bytes:
    """`depth` counts the containers around the item."""
    kind = type(item)  # says what item is; isinstance costs twice as much
    if kind is bytes:
        return encode_octets(item)  # type: ignore[arg-type]
    if kind is str:
        return encode_text(item)  # type: ignore[arg-type]
    if kind is int:
        return encode_integer(item)
    if kind is dict:
        return _spell_map(item, depth + 1)  # type: ignore[arg-type]
    if kind is list or kind is tuple:
        return _spell_array(item, depth + 1)  # type: ignore[arg-type]
    return _spell_rare(item, depth)


def _spell_map(table: dict[object, object], depth: int) -> bytes:
    _check_depth(depth)
    return join_map(sort_pairs([(_spell_key(key), _spell(value, depth)) for key, value in table.items()]))


def _spell_array(members: Sequence[object], depth: int) -> bytes:
    _check_depth(depth)
    return join_array([_spell(member, depth) for member in members])


def _spell_key(item: object) -> bytes:
    if isinstance(item, str):
        return encode_text(item)
    if isinstance(item, int) and not isinstance(item, bool):
        return encode_integer(int(item))
    raise TypeError(f"map key of type {type(item).__name__}")


def _spell_rare(item: object, depth: int) -> bytes:
    """Tags, simple values, and what is derived of a list, a tuple, int or str: named tuples, enumerations."""
    if isinstance(item, Tag):  # before the tuples, being one
        _check_depth(depth + 1)
        if item.number != TAG_SIGN1:
            raise ValueError(f"tag {item.number}")
        return _head(6, item.number) + _spell(item.value, depth + 1)
    if isinstance(item, tuple | list):
        return _spell_array(item, depth + 1)
    if item is None or isinstance(item, bool):
        return b"\xf6" if item is None else b"\xf5" if item else b"\xf4"
    if isinstance(item, int | str):
        return _spell_key(item)
    raise TypeError(f"no CBOR for {type(item).__name__}")


def _check_depth(depth: int) -> None:
    if depth > DEPTH_MAX:
        raise ValueError("deeper than DEPTH_MAX")
