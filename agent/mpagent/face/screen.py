"""The picture: a huge word, why, what to do, and the board's name in letters and as a QR code.

Made for 80 by 24 characters. Where the console has no half blocks a QR code needs 33 lines of its own, so there it is
left out unless the picture may scroll. Nothing of a text reaches the console but printable characters.
"""

import textwrap
from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from mpagent.face import letters, qr
from mpagent.standing import Standing, State, clean

COLUMNS: Final = 80
LINES: Final = 24
QUIET: Final = 4
"""Light modules around a code (ISO/IEC 18004 section 9.1)."""
_LEFT: Final = 41
"""Columns for words beside a code of 37, with a gap."""
_WORDS: Final = {
    State.PASS: "PASS",
    State.FAIL: "FAIL",
    State.WAITING: "WAIT",
    State.WORKING: "WORK",
    State.STOPPED: "STOP",
}


class Shade(Enum):
    """How a piece of a line is coloured; the values are SGR parameters (ECMA-48 8.3.117)."""

    PLAIN = ""
    PASS = "1;32"
    FAIL = "1;31"
    OTHER = "1;33"
    CODE = "30;47"
    """Dark on light, whatever the console's own colours are: a scanner needs it so."""


_SHADES: Final = {State.PASS: Shade.PASS, State.FAIL: Shade.FAIL}
Line = list[tuple[Shade, str]]


class Console(NamedTuple):
    """What a console can show."""

    columns: int = COLUMNS
    lines: int | None = LINES
    """None where it scrolls."""
    blocks: bool = False
    """UTF-8, with half blocks in its font."""
    colours: bool = False


def draw(standing: Standing | None, serial: str, console: Console) -> list[Line]:
    """The picture for this moment; `serial` is what the SoC calls itself, or empty."""
    state = State.STOPPED if standing is None else standing.state
    shown = standing or Standing(state, text="mpagent has not run since this board was started", next="start mpagent")
    code = _draw_code(_name(shown, serial), console)
    beside = bool(code) and console.blocks
    width = min(console.columns - 1, _LEFT if beside else COLUMNS - 2)
    left = _draw_words(state, shown, width)
    body = _join(left, code, width) if beside else left
    foot: list[Line] = [[(Shade.PLAIN, one[: console.columns - 1])] for one in _write_foot(shown, serial)]
    if console.lines is None:
        return [*body, [], *foot, *([[], *code] if code and not beside else [])]
    room = console.lines - len(foot)
    return [*body[:room], *[[] for _ in range(room - len(body))], *foot]


def render(picture: Sequence[Line], console: Console) -> list[str]:
    """Lines as they go to the console, without line ends."""
    return ["".join(_paint(shade, text, console) for shade, text in line).rstrip() for line in picture]


def _paint(shade: Shade, text: str, console: Console) -> str:
    plain = clean(text) if console.blocks else clean(text).encode("ascii", "replace").decode()
    return f"\x1b[{shade.value}m{plain}\x1b[0m" if console.colours and shade.value else plain


def _draw_words(state: State, shown: Standing, width: int) -> list[Line]:
    shade = _SHADES.get(state, Shade.OTHER)
    word = letters.write_large(_WORDS[state])
    large = word if len(word[0]) <= width else [_WORDS[state]]
    picture: list[Line] = [[], *[[(shade, one)] for one in large], []]
    for text in (shown.text, f"Next: {shown.next}" if shown.next else "", f"({shown.check})" if shown.check else ""):
        picture += [[(Shade.PLAIN, one)] for one in textwrap.wrap(clean(text), max(width, 10))]
    return picture


def _write_foot(shown: Standing, serial: str) -> list[str]:
    run = f"run {shown.run or '-'}   stage {shown.stage or '-'}   product {shown.product or '-'}"
    return [f"ueid {shown.ueid or 'not known yet'}", f"SoC  {serial or 'without a serial number'}", run]


def _name(shown: Standing, serial: str) -> str:
    """What a scanner at the line reads: which kind of name, and the name; empty while there is none."""
    if shown.ueid:
        return f"UEID:{shown.ueid.upper()}"
    return f"SOC:{serial.upper()}" if serial else ""


def _draw_code(name: str, console: Console) -> list[Line]:
    """The code in half blocks, else in characters of two columns a module; nothing where it has no room."""
    try:
        matrix = qr.encode(name)
    except ValueError:
        return []
    wide = qr.SIZE + 2 * QUIET
    light = [False] * wide
    rows = [light] * QUIET + [[*light[:QUIET], *row, *light[:QUIET]] for row in matrix] + [light] * QUIET
    if console.blocks:
        if console.columns < _LEFT + wide or (console.lines or LINES) < LINES:
            return []
        pairs = zip(rows[::2], [*rows[1::2], light], strict=True)
        return [[(Shade.CODE, "".join(map(_half, above, below)))] for above, below in pairs]
    if console.columns < 2 * wide or console.lines is not None:
        return []
    return [[(Shade.PLAIN, "".join("  " if dark else "##" for dark in row))] for row in rows]


def _half(above: bool, below: bool) -> str:
    """Dark halves are drawn, light ones are the ground (Shade.CODE)."""
    return " ▄▀█"[2 * above + below]


def _join(left: list[Line], code: list[Line], width: int) -> list[Line]:
    """Words and code side by side, one column between."""
    joined = []
    for place in range(max(len(left), len(code))):
        words = left[place] if place < len(left) else []
        gap = width + 1 - sum(len(text) for _, text in words)
        joined.append([*words, (Shade.PLAIN, " " * gap), *(code[place] if place < len(code) else [])])
    return joined
