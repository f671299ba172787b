"""P-256 in numbers: the point of an X, and the keys that one signature gives away (SEC 1 sections 2.3.4 and 4.1.6).

Nothing here is secret arithmetic: it works on what stands in an image for everybody to read. Not constant in time.
"""

from collections.abc import Iterator
from typing import Final

from mpwire.p256 import ORDER

P: Final = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
B: Final = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
"""Coefficients of y² = x³ − 3x + b (SP 800-186 section 3.2.1.3)."""
_G: Final = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
Point = tuple[int, int] | None
"""None is the point at infinity."""


def find_ys(x: int) -> tuple[int, ...]:
    """Both Y of an X, none where the X belongs to no point."""
    if not 0 <= x < P:
        return ()
    square = (x * x * x - 3 * x + B) % P
    y = pow(square, (P + 1) // 4, P)
    return (y, P - y) if y * y % P == square else ()


def find_points(x: bytes) -> Iterator[bytes]:
    """X || Y of each point with this 32-byte X."""
    for y in find_ys(int.from_bytes(x, "big")):
        yield x + y.to_bytes(32, "big")


def recover_keys(digest: bytes, signature: bytes) -> Iterator[bytes]:
    """X || Y of every key that this r || s over this digest may be of: as a rule two."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    if not (0 < r < ORDER and 0 < s < ORDER):
        return
    e, inverse = int.from_bytes(digest, "big"), pow(r, -1, ORDER)
    for x in (r, r + ORDER):
        for y in find_ys(x):
            key = _add(_multiply(s * inverse % ORDER, (x, y)), _multiply(-e * inverse % ORDER, _G))
            if key is not None:
                yield key[0].to_bytes(32, "big") + key[1].to_bytes(32, "big")


def has_key(scalar: bytes, point: bytes | None) -> bool:
    """Whether these 32 bytes are a private key, and that of X || Y where one is given."""
    number = int.from_bytes(scalar, "big")
    if not 0 < number < ORDER:
        return False
    if point is None:
        return True
    public = _multiply(number, _G)
    return public is not None and point == public[0].to_bytes(32, "big") + public[1].to_bytes(32, "big")


def _add(one: Point, other: Point) -> Point:
    if one is None or other is None:
        return other if one is None else one
    if one[0] == other[0]:
        if (one[1] + other[1]) % P == 0:
            return None
        slope = (3 * one[0] * one[0] - 3) * pow(2 * one[1], -1, P) % P
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, P) % P
    x = (slope * slope - one[0] - other[0]) % P
    return x, (slope * (one[0] - x) - one[1]) % P


def _multiply(number: int, point: Point) -> Point:
    total: Point = None
    while number:
        if number & 1:
            total = _add(total, point)
        point = _add(point, point)
        number >>= 1
    return total
