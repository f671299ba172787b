"""ECDSA public keys out of signatures (SEC 1 section 4.1.6): what one signature gives away. Nothing ships this."""

from typing import Final

from mpwire.p256 import ORDER

P: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
B: Final = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G: Final = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
Point = tuple[int, int] | None
"""Affine; None is the point at infinity."""


def recover(digest: bytes, signature: bytes) -> list[bytes]:
    """X || Y of every key that could have made this signature of this digest: two, or four once in 2^128."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    e, found = int.from_bytes(digest, "big") % ORDER, []
    for x in (r, r + ORDER):
        square = (x**3 - 3 * x + B) % P
        y = pow(square, (P + 1) // 4, P)
        if x >= P or y * y % P != square:
            continue
        inverse = pow(r, -1, ORDER)
        for point in ((x, y), (x, P - y)):
            made = add(multiply(s * inverse % ORDER, point), multiply(-e * inverse % ORDER, G))
            if made is not None:
                found.append(made[0].to_bytes(32, "big") + made[1].to_bytes(32, "big"))
    return found


def add(one: Point, other: Point) -> Point:
    """The group's law."""
    if one is None or other is None:
        return one or other
    if one[0] == other[0] and (one[1] + other[1]) % P == 0:
        return None
    slope = (
        (3 * one[0] * one[0] - 3) * pow(2 * one[1], -1, P)
        if one == other
        else (other[1] - one[1]) * pow(other[0] - one[0], -1, P)
    )
    x = (slope * slope - one[0] - other[0]) % P
    return x, (slope * (one[0] - x) - one[1]) % P


def multiply(times: int, point: Point) -> Point:
    """By doubling."""
    total: Point = None
    while times:
        if times & 1:
            total = add(total, point)
        point, times = add(point, point), times >> 1
    return total
