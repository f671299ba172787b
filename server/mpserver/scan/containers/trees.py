"""Flattened device trees (Devicetree Specification 0.4 chapter 5), and FIT images, which are device trees of images."""

from collections.abc import Iterator
from struct import unpack
from typing import Final, NamedTuple

from mpserver.scan.budget import Budget
from mpserver.scan.containers.member import Broken, Covered, Member, read_exactly, show_name
from mpserver.scan.regions import Region, Slice

MAGIC: Final = b"\xd0\x0d\xfe\xed"
_HEADER_BYTES: Final = 40
_BEGIN, _END, _PROPERTY, _NOP, _STOP = 1, 2, 3, 4, 9
_DEPTH_MAX: Final = 64
_NAME_MAX_BYTES: Final = 256
_VALUE_MIN_BYTES: Final = 16
"""Shorter values hold nothing that has to be told by its own path."""


class Header(NamedTuple):
    """Offsets from the tree's first byte."""

    total: int
    structure: int
    strings: int
    strings_size: int


def read_header(region: Region) -> Header | None:
    """None where it contradicts itself: the four bytes of the magic alone are soon met by chance."""
    raw = region.read(0, _HEADER_BYTES)
    if len(raw) < _HEADER_BYTES or raw[:4] != MAGIC:
        return None
    total, structure, strings, _, version, compatible, _, strings_size, _ = unpack(">9I", raw[4:])
    if not (16 <= version <= 32 and compatible <= 17):
        return None
    if max(structure, strings) >= total or strings + strings_size > total:
        return None
    return Header(total, structure, strings, strings_size)


class _Outside(NamedTuple):
    """What a FIT says of an image whose bytes lie behind the tree."""

    offset: int | None = None
    position: int | None = None
    size: int | None = None


def open_tree(region: Region, budget: Budget) -> Iterator[Member | Covered]:
    """Long properties by their path, the images of a FIT by their node's name."""
    header = read_header(region)
    if header is None:
        raise Broken("its header makes no sense")
    if header.total > region.size:
        yield Member("", reason="the device tree is cut off")
    outside: dict[str, _Outside] = {}
    for path, name, start, size in _walk(region, header, budget):
        if name == "data" and path.startswith("/images/"):
            yield Member(path.removeprefix("/images/"), Slice(region, start, size))
        elif name in ("data-offset", "data-position", "data-size") and size == 4:
            value = int.from_bytes(region.read(start, 4), "big")
            field = name.removeprefix("data-")
            outside[path] = outside.get(path, _Outside())._replace(**{field: value})
        elif size >= _VALUE_MIN_BYTES:
            yield Member(f"{path}/{name}".replace("//", "/"), Slice(region, start, size))
    for path, one in outside.items():
        yield from _give_outside(region, header, path, one)


def _give_outside(region: Region, header: Header, path: str, one: _Outside) -> Iterator[Member]:
    if one.size is None or (one.offset is None and one.position is None):
        return
    start = one.position if one.position is not None else (header.total + 3) // 4 * 4 + (one.offset or 0)
    name = path.removeprefix("/images/")
    if start + one.size > region.size:
        yield Member(name, reason="the image lies beyond the end of the FIT")
    else:
        yield Member(name, Slice(region, start, one.size))


def _walk(region: Region, header: Header, budget: Budget) -> Iterator[tuple[str, str, int, int]]:
    """Path of the node, name, offset and size of each property. Raises Broken where the structure makes no sense."""
    at = header.structure
    nodes: list[str] = []
    while True:
        budget.enter()
        (token,) = unpack(">I", read_exactly(region, at, 4))
        at += 4
        if token == _BEGIN:
            name = region.read(at, _NAME_MAX_BYTES)
            end = name.find(b"\0")
            if end < 0 or len(nodes) >= _DEPTH_MAX:
                raise Broken("a node without a name's end, or too deep")
            nodes.append(show_name(name[:end]))
            at += (end + 4) // 4 * 4
        elif token == _END:
            if not nodes:
                raise Broken("a node ends that never began")
            nodes.pop()
        elif token == _PROPERTY:
            size, name_at = unpack(">II", read_exactly(region, at, 8))
            yield "/" + "/".join(nodes[1:]), _read_name(region, header, name_at), at + 8, size
            at += 8 + (size + 3) // 4 * 4
        elif token == _STOP:
            return
        elif token != _NOP:
            raise Broken(f"token {token} in its structure")


def _read_name(region: Region, header: Header, at: int) -> str:
    if at >= header.strings_size:
        raise Broken("a property's name lies outside")
    name = region.read(header.strings + at, _NAME_MAX_BYTES)
    return show_name(name[: name.find(b"\0") % (len(name) + 1)])
