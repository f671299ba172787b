"""From a mark of a key to the 32 bytes that would be its X, in each spelling a key is met in.

Deciding only: the text around a mark comes in, candidates go out, and most of them are none.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from mpserver.scan.curve import find_points
from mpserver.scan.filters import Sought

X_BYTES: Final = 32
BEFORE_BYTES: Final = 512
AFTER_BYTES: Final = 1_024
"""How far around a mark its key may reach: 64 bytes as a C array of one byte a line take some 600."""

_SKIPPED: Final = re.compile(rb"(?:0[xX](?=[0-9A-Fa-f])|\\x|[^0-9A-Za-z\\]|\\[nrt])+")
_DIGITS: Final = re.compile(rb"[0-9A-Fa-f]+")
_BASE64_SKIPPED: Final = re.compile(rb"(?:\\[nr]|[\s\"'\\,](?=[\s\"'\\A-Za-z0-9+/_-]))")
_BASE64_TEXT: Final = re.compile(rb"[A-Za-z0-9+/_-]+")
_SPKI_TAIL: Final = bytes.fromhex("06082a8648ce3d03010703420004")
_DUMP_LINE: Final = re.compile(rb"(?:0x)?[0-9A-Fa-f]{4,16}(?::|\s\s)\s*")
_DUMP_BYTES: Final = 16


class Spot(NamedTuple):
    """A mark with what stands around it."""

    text: bytes
    at: int
    """Of the mark in `text`."""
    length: int
    """Of the mark."""


def find_key(spot: Spot, form: str, sought: Sought) -> str | None:
    """The spelling, in words; None where nothing around the mark is the key. X alone is the key: Y follows from it."""
    tried = set()
    for words, x in _READERS[form.partition("-")[0]](spot, form, sought.prefix):
        if len(x) != X_BYTES or not x.startswith(sought.prefix) or x in tried:
            continue
        tried.add(x)
        if any(map(sought.is_key, find_points(x))):
            return words
    return None


def _read_raw(spot: Spot, form: str, prefix: bytes) -> Iterator[tuple[str, bytes]]:
    text, at = spot.text, spot.at
    x = text[at : at + X_BYTES]
    before = text[:at]
    if before.endswith(_SPKI_TAIL):
        yield "DER SubjectPublicKeyInfo", x
    elif before[-3:] == b"\x21\x58\x20":
        yield "COSE_Key", x
    elif before[-1:] == b"\x04":
        yield "uncompressed point", x
    elif before[-1:] in (b"\x02", b"\x03"):
        yield "compressed point", x
    yield "raw", x


def _read_words(spot: Spot, form: str, prefix: bytes) -> Iterator[tuple[str, bytes]]:
    yield "raw, 32-bit words turned round", turn_words(spot.text[spot.at : spot.at + X_BYTES])


def _read_little(spot: Spot, form: str, prefix: bytes) -> Iterator[tuple[str, bytes]]:
    end = spot.at + spot.length
    yield "raw, little-endian", spot.text[max(0, end - X_BYTES) : end][::-1]


def turn_words(body: bytes) -> bytes:
    """Each 32-bit word turned round."""
    return b"".join(body[at : at + 4][::-1] for at in range(0, len(body), 4))


def _read_hex(spot: Spot, form: str, prefix: bytes) -> Iterator[tuple[str, bytes]]:
    for words, read in (("hexadecimal", _join_digits), ("hexadecimal dump", _join_dump)):
        found = read(spot.text[spot.at :], spot)
        if form == "hex":
            yield words, found
            continue
        yield f"{words}, 32-bit words turned round", turn_words(found)
    if form == "hex-turned":
        yield "hexadecimal, little-endian", _join_before(spot)[::-1]


def _join_digits(text: bytes, spot: Spot) -> bytes:
    """The 32 bytes that begin here, whatever separates them."""
    digits = b""
    at = 0
    while len(digits) < 2 * X_BYTES:
        run = _DIGITS.match(text, at)
        if run is None:
            return b""
        digits += run.group()
        gap = _SKIPPED.match(text, run.end())
        if gap is None or gap.end() - gap.start() > 32:
            break
        at = gap.end()
    return _to_bytes(digits[: 2 * X_BYTES])


def _join_before(spot: Spot) -> bytes:
    """The 32 bytes that end with the mark."""
    part = spot.text[max(0, spot.at - 6 * X_BYTES) : spot.at + spot.length]
    digits = re.sub(rb"0[xX](?=[0-9A-Fa-f]{2})|[^0-9A-Fa-f]", b"", part)
    return _to_bytes(digits[-2 * X_BYTES :])


def _join_dump(text: bytes, spot: Spot) -> bytes:
    """The same where each line of 16 bytes has its address before and its letters behind."""
    start = spot.text.rfind(b"\n", 0, spot.at) + 1
    found, skipped = b"", -1
    for number, line in enumerate(spot.text[start : spot.at + AFTER_BYTES].split(b"\n")[:6]):
        head = _DUMP_LINE.match(line.lstrip())
        body = line.lstrip()[head.end() :] if head else line
        octets = _read_line(body)
        if number == 0:
            mark = spot.text[spot.at : spot.at + spot.length]
            before = body[: body.find(mark)] if mark in body else b""
            skipped = len(re.sub(rb"[^0-9A-Fa-f]", b"", before)) // 2
            octets = octets[skipped:]
        found += octets
        if len(found) >= X_BYTES:
            break
    return found[:X_BYTES]


def _read_line(body: bytes) -> bytes:
    """Groups of two, four or eight digits, 16 bytes of them at most; what follows are letters."""
    octets = b""
    for group in body.split():
        digits = group.removeprefix(b"0x")
        if len(octets) >= _DUMP_BYTES or len(digits) not in (2, 4, 8, 16, 32) or not _DIGITS.fullmatch(digits):
            break
        octets += bytes.fromhex(digits.decode())
    return octets


def _read_split_dump(spot: Spot, form: str, prefix: bytes) -> Iterator[tuple[str, bytes]]:
    done = int(form[-1])
    found = prefix[:done] + _join_dump(spot.text[spot.at :], spot._replace(at=spot.at + 2, length=spot.length - 2))
    yield "hexadecimal dump", found[:X_BYTES]


def _to_bytes(digits: bytes) -> bytes:
    return bytes.fromhex(digits.decode()) if len(digits) == 2 * X_BYTES else b""


def _read_base64(spot: Spot, form: str, prefix: bytes) -> Iterator[tuple[str, bytes]]:
    lead = int(form[-1])
    begun = b64encode(bytes(lead) + prefix)[: (0, 2, 3)[lead]]
    wanted = -(-(lead + X_BYTES) // 3) * 4
    text = begun
    at = spot.at
    while len(text) < wanted:
        run = _BASE64_TEXT.match(spot.text, at)
        if run is None:
            return
        text += run.group()
        at = run.end()
        while (gap := _BASE64_SKIPPED.match(spot.text, at)) is not None and at - run.end() < 32:
            at = gap.end()
    plain = text[:wanted].replace(b"-", b"+").replace(b"_", b"/")
    head = spot.text[max(0, spot.at - 256) : spot.at]
    words = "PEM" if b"-----BEGIN " in head and b"-----END " not in head else "base64"
    yield words, b64decode(plain)[lead : lead + X_BYTES]


_READERS: Final[dict[str, Callable[[Spot, str, bytes], Iterator[tuple[str, bytes]]]]] = {
    "raw": _read_raw,
    "words": _read_words,
    "little": _read_little,
    "hex": _read_hex,
    "base64": _read_base64,
    "dump": _read_split_dump,
}
