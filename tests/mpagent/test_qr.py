"""Our QR code, read by a decoder that knows nothing of us."""

import random
import string

import pytest

from mpagent.face.qr import SIZE, TEXT_MAX, Matrix, encode

ALPHABET = string.digits + string.ascii_uppercase + " $%*+-./:"
UEID = "UEID:" + "01" + "5AC3" * 16


def scan(matrix: Matrix, pixels: int = 4) -> list[str]:
    """What the decoder sees in a picture of it, with its quiet zone."""
    import zxingcpp

    quiet = [False] * 4
    wide = [quiet + row + quiet for row in matrix]
    light = [[False] * len(wide[0])] * 4
    lines = [[0 if dark else 255 for dark in row for _ in range(pixels)] for row in [*light, *wide, *light]]
    picture = bytes(value for line in lines for _ in range(pixels) for value in line)
    side = (SIZE + 8) * pixels
    found = zxingcpp.read_barcodes(memoryview(picture).cast("B", shape=[side, side]))
    return [str(one.text) for one in found]


@pytest.mark.ceiling
def test_name_of_a_board_is_read() -> None:
    assert scan(encode(UEID)) == [UEID]


@pytest.mark.ceiling
def test_texts_of_every_length_and_character_are_read() -> None:
    dice = random.Random(18004)
    for length in range(1, TEXT_MAX + 1):
        text = "".join(dice.choice(ALPHABET) for _ in range(length))
        assert scan(encode(text)) == [text]
    assert scan(encode(ALPHABET)) == [ALPHABET]


@pytest.mark.ceiling
def test_scratched_code_is_still_read() -> None:
    """The correction codewords are right, not only there: a corner of 4 by 8 data modules is blackened."""
    matrix = encode(UEID)
    for row in range(SIZE - 8, SIZE):
        for column in range(SIZE - 4, SIZE):
            matrix[row][column] = True
    assert scan(matrix) == [UEID]
    for row in range(9, SIZE):
        for column in range(12, SIZE):
            matrix[row][column] = True
    assert scan(matrix) == []


@pytest.mark.parametrize("text", ["", "A" * (TEXT_MAX + 1), "ueid", "É", "A\n", "\x00"])
def test_what_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="1 to 77 characters"):
        encode(text)


def test_code_is_the_same_every_time() -> None:
    assert encode(UEID) == encode(UEID) and len(encode(UEID)) == SIZE
