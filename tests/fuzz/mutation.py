"""Bends valid bytes so that a reader is taken past its first check: CBOR by items, TOML by lines, the rest by bytes.

All choices come from one `random.Random`, so Hypothesis can replay and shrink them and the fuzzer can seed them.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from mpwire.codec import Tag, decode, encode
from mpwire.errors import Malformed

EDGES: Final[tuple[Any, ...]] = (
    *(0, 1, -1, 23, 24, 255, 256, 65_535, 65_536, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), -(2**64)),
    *(True, False, None, "", "a", "0", "\x00", "\u202e", "x" * 64, "x" * 65, "\u00e9" * 33),
    *(b"", b"\x00", b"\x04" + bytes(64), bytes(16), bytes(32), bytes(33), bytes(60), bytes(64), bytes(65)),
    *([], {}, [[]], {0: 0}, {"": ""}, Tag(18, []), Tag(18, [b"", {}, b"", b""])),
)
"""Values that stand at some bound of some shape."""
RAW: Final = tuple(
    map(bytes.fromhex, ("9fff", "5f4100ff", "bfff", "f90000", "fb7ff8000000000000", "f7", "f820", "1800"))
)
"""Well-formed CBOR, or nearly, that no message may hold: indefinite lengths, floats, undefined, long heads."""
TAGS: Final = (0, 2, 18, 24, 55_799)
DEEP: Final = 20
"""More containers than a message may nest."""


@dataclass
class Node:
    """One item, loosely: what it spells need not be what a strict writer would give."""

    kind: str
    """leaf, raw, array, map (children: key, value, key, value ...), tag, wrapped (a byte string that holds CBOR)."""
    value: Any = None
    children: list["Node"] = field(default_factory=list)


def read(raw: bytes) -> Node:
    """Raises Malformed."""
    return _loosen(decode(raw))


def _loosen(item: Any) -> Node:
    if isinstance(item, Tag):
        return Node("tag", item.number, [_loosen(item.value)])
    if isinstance(item, list):
        return Node("array", None, [_loosen(one) for one in item])
    if isinstance(item, dict):
        return Node("map", None, [_loosen(one) for pair in item.items() for one in pair])
    if isinstance(item, bytes) and len(item) > 1 and 0x80 <= item[0] < 0xE0:
        try:
            return Node("wrapped", None, [read(item)])
        except Malformed:
            return Node("leaf", item)
    return Node("leaf", item)


def spell(node: Node) -> bytes:
    """The bytes of a tree, however wrong."""
    if node.kind == "raw":
        return bytes(node.value)
    if node.kind == "leaf":
        return encode(node.value)
    inside = b"".join(map(spell, node.children))
    if node.kind == "wrapped":
        return _head(2, len(inside)) + inside
    if node.kind == "tag":
        return _head(6, node.value) + inside
    return (_head(4, len(node.children)) if node.kind == "array" else _head(5, len(node.children) // 2)) + inside


def _head(major: int, count: int) -> bytes:
    number = encode(count)
    return bytes([number[0] | major << 5]) + number[1:]


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it."""
    yield node
    for one in node.children:
        yield from walk(one)


def mutate_cbor(raw: bytes, random: Random) -> bytes:
    """One to three changes of items; mostly put in order again, so that the change itself is what a reader meets."""
    try:
        tree = read(raw)
    except Malformed:
        return mutate_bytes(raw, random)
    for _ in range(random.randint(1, 3)):
        nodes = list(walk(tree))
        if len(nodes) < 4_096:
            random.choice(CHANGES)(random.choice(nodes), nodes, random)
    if random.randrange(8):
        _tidy(tree)
    spelled = spell(tree)
    return spelled if random.randrange(16) else mutate_bytes(spelled, random)


def _tidy(tree: Node) -> None:
    """Sort every map and keep the first of equal keys, as a strict writer would."""
    for node in walk(tree):
        if node.kind == "map":
            pairs = dict(reversed([(spell(key), (key, value)) for key, value in _pairs(node)]))
            node.children = [one for spelled in sorted(pairs) for one in pairs[spelled]]


def _pairs(node: Node) -> list[tuple[Node, Node]]:
    return list(zip(node.children[::2], node.children[1::2], strict=False))


def _become(node: Node, other: Node) -> None:
    node.kind, node.value, node.children = other.kind, other.value, other.children


def _flip(node: Node, _: list[Node], random: Random) -> None:
    value = node.value
    if node.kind != "leaf":
        return _edge(node, _, random)
    if isinstance(value, bytes):
        node.value = mutate_bytes(value, random)
    elif isinstance(value, bool) or value is None:
        node.value = not value
    elif isinstance(value, int):
        node.value = max(min(value + random.choice((-1, 1, 256)), 2**64 - 1), -(2**64))
    else:
        place = random.randint(0, len(value))
        node.value = value[:place] + random.choice("aZ0 \n\x00\u202e/.") + value[place + random.randrange(2) :]
    return None


def _edge(node: Node, _: list[Node], random: Random) -> None:
    _become(node, _loosen(deepcopy(random.choice(EDGES))))


def _graft(node: Node, nodes: list[Node], random: Random) -> None:
    _become(node, deepcopy(random.choice(nodes)))


def _step(node: Node) -> int:
    return 2 if node.kind == "map" else 1


def _duplicate(node: Node, _: list[Node], random: Random) -> None:
    if node.kind in ("array", "map") and node.children:
        step, times = _step(node), random.choice((1, 1, 1, 2, 70))
        place = random.randrange(0, len(node.children), step)
        node.children[place:place] = deepcopy(node.children[place : place + step]) * times


def _drop(node: Node, _: list[Node], random: Random) -> None:
    if node.kind in ("array", "map") and node.children:
        step = _step(node)
        place = random.randrange(0, len(node.children), step)
        del node.children[place : place + step]


def _swap(node: Node, _: list[Node], random: Random) -> None:
    if len(node.children) > 1:
        one, other = random.randrange(len(node.children)), random.randrange(len(node.children))
        node.children[one], node.children[other] = node.children[other], node.children[one]


def _retag(node: Node, _: list[Node], random: Random) -> None:
    if node.kind == "tag" and random.randrange(2):
        _become(node, node.children[0])
    else:
        _become(node, Node("tag", random.choice(TAGS), [Node(node.kind, node.value, node.children)]))


def _rekind(node: Node, _: list[Node], random: Random) -> None:
    """The same content as another type."""
    if node.kind == "leaf" and isinstance(node.value, str):
        node.value = node.value.encode()
    elif node.kind == "leaf" and isinstance(node.value, bytes):
        node.value = node.value.hex()
    elif node.kind in ("array", "map"):
        children = node.children if len(node.children) % 2 == 0 else node.children[1:]
        _become(node, Node("map" if node.kind == "array" else "array", None, children))
    elif node.kind == "wrapped":
        _become(node, node.children[0])
    else:
        _become(node, Node("wrapped", None, [Node(node.kind, node.value, node.children)]))


def _deepen(node: Node, _: list[Node], random: Random) -> None:
    for _ in range(random.choice((1, 2, DEEP))):
        _become(node, Node("array", None, [Node(node.kind, node.value, node.children)]))


def _spoil(node: Node, _: list[Node], random: Random) -> None:
    _become(node, Node("raw", random.choice(RAW)))


Change = Callable[[Node, list[Node], Random], None]
CHANGES: Final[tuple[Change, ...]] = (
    *(_flip, _flip, _flip, _edge, _edge, _graft, _duplicate, _drop),
    *(_swap, _retag, _rekind, _deepen, _spoil),
)


def mutate_bytes(raw: bytes, random: Random) -> bytes:
    """Flip, set, insert, cut or repeat."""
    out = bytearray(raw)
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(out) + 1)
        match random.randrange(5):
            case 0 if place < len(out):
                out[place] ^= 1 << random.randrange(8)
            case 1 if place < len(out):
                out[place] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                out[place:place] = random.randbytes(random.randint(1, 4))
            case 3:
                del out[place : place + random.randint(1, 4)]
            case _:
                out[place:place] = out[place : place + random.randint(1, 40)]
    return bytes(out)


TOML_VALUES: Final = (
    *["0", "-1", "true", "1.5", "nan", "[]", "{}", "[[]]", "[0]", "1979-05-27", "9223372036854775808", "'x'", "''"],
    *('""', '[""]', '["\\u0000"]', '"\\n"', '"""\nx\n"""', "{a.b = 1}", '"zz"', '"0 0"', '"' + "x" * 65 + '"'),
    *(
        "[\n[" + " " * 20_000 + "\n]]",
        "9" * 5_000,
        "0x" + "f" * 70,
        "[" * 2_000 + "]" * 2_000,
        '["04' + "00" * 64 + '"]',
    ),
    *(f'"{"00" * size}"' for size in (16, 32, 33, 34, 65, 70_000)),
)


def mutate_toml(raw: bytes, random: Random) -> bytes:
    """Lines dropped, doubled, swapped or moved below another header; values replaced."""
    lines = raw.split(b"\n")
    for _ in range(random.randint(1, 3)):
        one, other = random.randrange(len(lines)), random.randrange(len(lines))
        match random.randrange(7):
            case 0 if len(lines) > 1:
                del lines[one]
            case 1:
                lines.insert(other, lines[one])
            case 2:
                lines[one], lines[other] = lines[other], lines[one]
            case 3:
                lines[one] = mutate_bytes(lines[one], random)
            case _:
                key = lines[one].partition(b"=")[0].strip() or b"slot"
                lines[one] = key + b" = " + random.choice(TOML_VALUES).encode()
    return b"\n".join(lines)
