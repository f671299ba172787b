"""A QR code for the name of a board: version 3, level L, alphanumeric mode, and no other (ISO/IEC 18004).

29 by 29 modules hold 77 characters of 0-9 A-Z space $ % * + - . / and colon: "UEID:" and 66 hexadecimal digits are 71.
In half blocks that is 19 lines of a console with the quiet zone. Own code, because one size in one mode is short, and
a library for every size would be one more package in each provisioning image. An independent decoder reads what comes
out in tests/mpagent/test_qr.py.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Final

SIZE: Final = 29
TEXT_MAX: Final = 77
"""Characters: 4 + 9 bits of header and 11 bits for each two fit the 55 data codewords. Table 7, version 3-L."""
_DATA: Final = 55
_CORRECTION: Final = 15
"""Codewords of version 3-L, one block. Table 9."""
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
_FINDER: Final = 7
_ALIGNMENT: Final = 22
"""Centre of version 3's one alignment pattern, both ways. Annex E."""
_LEVEL_L: Final = 0b01
_FORMAT_MASK: Final = 0x5412
_FORMAT_GENERATOR: Final = 0x537
_FIELD: Final = 0x11D
"""x^8 + x^4 + x^3 + x^2 + 1, whose field has 2 as generator. Section 7.5.2."""
Matrix = list[list[bool]]
"""Rows of modules; True is dark."""

_MASKS: Final[tuple[Callable[[int, int], bool], ...]] = (
    lambda row, column: (row + column) % 2 == 0,
    lambda row, column: row % 2 == 0,
    lambda row, column: column % 3 == 0,
    lambda row, column: (row + column) % 3 == 0,
    lambda row, column: (row // 2 + column // 3) % 2 == 0,
    lambda row, column: row * column % 2 + row * column % 3 == 0,
    lambda row, column: (row * column % 2 + row * column % 3) % 2 == 0,
    lambda row, column: ((row + column) % 2 + row * column % 3) % 2 == 0,
)
"""Where each mask turns a module over. Table 10."""


def encode(text: str) -> Matrix:
    """The code without its quiet zone, 4 light modules on each side. Raises ValueError for what does not fit."""
    if not 1 <= len(text) <= TEXT_MAX or not set(text) <= set(_ALPHABET):
        raise ValueError(f"1 to {TEXT_MAX} characters of {_ALPHABET!r}")
    plain, fixed = _draw_patterns()
    data = _pack(text)
    _place(plain, fixed, data + _correct(data))
    return min((_mask(plain, fixed, number) for number in range(len(_MASKS))), key=_weigh)


def _pack(text: str) -> bytes:
    """Mode, length, characters by twos, end, and filling. Section 7.4."""
    bits = f"0010{len(text):09b}"
    values = [_ALPHABET.index(one) for one in text]
    for place in range(0, len(values) - 1, 2):
        bits += f"{values[place] * 45 + values[place + 1]:011b}"
    if len(values) % 2:
        bits += f"{values[-1]:06b}"
    bits += "0" * min(4, _DATA * 8 - len(bits))
    bits += "0" * (-len(bits) % 8)
    content = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return content + (b"\xec\x11" * _DATA)[: _DATA - len(content)]


def _multiply(left: int, right: int) -> int:
    product = 0
    while right:
        product ^= left * (right & 1)
        left = left << 1 ^ (_FIELD if left & 0x80 else 0)
        right >>= 1
    return product


def _correct(data: bytes) -> bytes:
    """Remainder of the data by the generator polynomial: the Reed-Solomon code. Section 7.5.2."""
    generator, root = [1], 1
    for _ in range(_CORRECTION):
        longer = [*generator, 0]
        generator = [high ^ _multiply(low, root) for high, low in zip(longer, [0, *generator], strict=True)]
        root = _multiply(root, 2)
    rest = [0] * _CORRECTION
    for byte in data:
        factor, rest = byte ^ rest[0], [*rest[1:], 0]
        rest = [one ^ _multiply(part, factor) for one, part in zip(rest, generator[1:], strict=True)]
    return bytes(rest)


def _draw_patterns() -> tuple[Matrix, Matrix]:
    """Finders, timing, alignment and the dark module; and which modules are no data. Section 6.3."""
    plain = [[False] * SIZE for _ in range(SIZE)]
    fixed = [[False] * SIZE for _ in range(SIZE)]
    for place in range(SIZE):
        plain[6][place] = plain[place][6] = place % 2 == 0
        fixed[6][place] = fixed[place][6] = True
    for row, column in ((3, 3), (3, SIZE - 4), (SIZE - 4, 3)):
        _draw_rings(plain, fixed, row, column, reach=4, light=(2, 4))
    _draw_rings(plain, fixed, _ALIGNMENT, _ALIGNMENT, reach=2, light=(1,))
    for row, column in (*_format_places()[0], *_format_places()[1]):
        fixed[row][column] = True
    plain[SIZE - 8][8] = fixed[SIZE - 8][8] = True
    return plain, fixed


def _draw_rings(plain: Matrix, fixed: Matrix, row: int, column: int, reach: int, light: Sequence[int]) -> None:
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if 0 <= row + down < SIZE and 0 <= column + right < SIZE:
                plain[row + down][column + right] = max(abs(down), abs(right)) not in light
                fixed[row + down][column + right] = True


def _format_places() -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Places of the format's 15 bits, lowest first, in both copies. Figure 25."""
    around = [(row, 8) for row in (0, 1, 2, 3, 4, 5, 7, 8)] + [(8, column) for column in (7, 5, 4, 3, 2, 1, 0)]
    apart = [(8, SIZE - 1 - one) for one in range(8)] + [(SIZE - 7 + one, 8) for one in range(7)]
    return around, apart


def _walk(fixed: Matrix) -> Iterator[tuple[int, int]]:
    """Modules for data: two columns at a time from the right, up and down in turns, past the timing column."""
    columns = [*range(SIZE - 1, 6, -2), 5, 3, 1]
    for turn, right in enumerate(columns):
        for row in range(SIZE) if turn % 2 else reversed(range(SIZE)):
            yield from ((row, column) for column in (right, right - 1) if not fixed[row][column])


def _place(plain: Matrix, fixed: Matrix, codewords: bytes) -> None:
    """The 7 modules left over stay light. Section 7.7.3."""
    bits = f"{int.from_bytes(codewords, 'big'):0{len(codewords) * 8}b}"
    for (row, column), bit in zip(_walk(fixed), bits, strict=False):
        plain[row][column] = bit == "1"


def _mask(plain: Matrix, fixed: Matrix, number: int) -> Matrix:
    turns = _MASKS[number]
    masked = [
        [dark != (not fixed[row][column] and turns(row, column)) for column, dark in enumerate(line)]
        for row, line in enumerate(plain)
    ]
    level = _LEVEL_L << 3 | number
    rest = level
    for _ in range(10):
        rest = rest << 1 ^ (_FORMAT_GENERATOR if rest & 0x200 else 0)
    bits = (level << 10 | rest) ^ _FORMAT_MASK
    for copy in _format_places():
        for place, (row, column) in enumerate(copy):
            masked[row][column] = bool(bits >> place & 1)
    return masked


def _weigh(matrix: Matrix) -> int:
    """How hard this is to read: runs, blocks, false finders, and more of one shade. Section 7.8.3."""
    lines = matrix + [list(column) for column in zip(*matrix, strict=True)]
    weight = 0
    for line in lines:
        runs = [len(list(run)) for _, run in groupby(line)]
        weight += sum(run - 2 for run in runs if run >= 5)
        shown = "".join("#" if dark else "." for dark in line)
        weight += 40 * sum(shown.startswith(("#.###.#....", "....#.###.#"), place) for place in range(SIZE - 10))
    for above, below in pairwise(matrix):
        columns = pairwise(zip(above, below, strict=True))
        weight += 3 * sum(len({*left, *right}) == 1 for left, right in columns)
    dark = sum(map(sum, matrix)) * 100 / SIZE**2
    return weight + 10 * int(abs(dark - 50) // 5)
