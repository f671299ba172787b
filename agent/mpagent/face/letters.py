"""Letters of 8 by 7 characters, for the five words of a screen: plain ASCII, so that every console shows them."""

from typing import Final

HEIGHT: Final = 7
_GAP: Final = "  "
_ALPHABET: Final = "PASFILWTORK"
_ROWS: Final = """\
####### |  ####  | ###### |########| ###### |##      |##    ##|########| ###### |####### |##    ##
##    ##| ##  ## |##    ##|##      |   ##   |##      |##    ##|   ##   |##    ##|##    ##|##   ##
##    ##|##    ##|##      |##      |   ##   |##      |##    ##|   ##   |##    ##|##    ##|##  ##
####### |########| ###### |######  |   ##   |##      |## ## ##|   ##   |##    ##|####### |####
##      |##    ##|      ##|##      |   ##   |##      |########|   ##   |##    ##|##  ##  |##  ##
##      |##    ##|##    ##|##      |   ##   |##      |###  ###|   ##   |##    ##|##   ## |##   ##
##      |##    ##| ###### |##      | ###### |########|##    ##|   ##   | ###### |##    ##|##    ##
"""
_WIDTH: Final = 8


def write_large(word: str) -> list[str]:
    """`word` in HEIGHT lines of equal length."""
    rows = [dict(zip(_ALPHABET, line.split("|"), strict=True)) for line in _ROWS.splitlines()]
    return [_GAP.join(row[letter].ljust(_WIDTH) for letter in word) for row in rows]
