"""Follows the standing of this board onto a console or a pipe."""

import fcntl
import os
import struct
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from mpagent.face.screen import COLUMNS, LINES, Console, draw, render
from mpagent.standing import Standing, StandingFile, State, clean

LOOK_S: Final = 0.5
"""Between two looks at a file of a few hundred bytes."""
_UTF8: Final = 0x4000
"""IUTF8 of termios(3)."""
_SCREENS: Final = 4
_SERIAL_FROM: Final = 64
"""Major 4: virtual consoles below this minor, serial lines from it on."""
_EMULATORS: Final = range(136, 144)
"""Majors of pseudo-terminals."""
_SERIAL_MAX_BYTES: Final = 64
_CLEAR: Final = "\x1b[H\x1b[2J"
_HIDE: Final = "\x1b[?25l"
SHOW_CURSOR: Final = "\x1b[?25h"
_ENDS: Final = (State.PASS, State.FAIL)


def find_console(descriptor: int, blocks: bool | None) -> Console | None:
    """What this descriptor can show; None where it is no terminal. A serial line that knows no size is 80 by 24.

    `blocks` says whether it has half blocks, None: find out.
    """
    if not os.isatty(descriptor):
        return None
    lines, columns = struct.unpack("HHHH", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8)))[:2]
    if blocks is None:
        blocks = has_blocks(os.fstat(descriptor).st_rdev, termios.tcgetattr(descriptor)[0])
    return Console(columns or COLUMNS, lines or LINES, blocks, colours=True)


def has_blocks(device: int, input_flags: int) -> bool:
    """Whether a terminal of this device number, with these flags of termios(3), draws UTF-8.

    IUTF8 tells it of the kernel's screens and of terminal emulators. On a serial line it tells nothing: systemd sets it
    on each terminal it resets, whatever stands at the other end. Numbers: Documentation/admin-guide/devices.txt.
    """
    major, minor = os.major(device), os.minor(device)
    screen, emulator = major == _SCREENS and minor < _SERIAL_FROM, major in _EMULATORS
    return (screen or emulator) and bool(input_flags & _UTF8)


def read_serial(root: Path) -> str:
    """What the kernel says the SoC calls itself; empty where it says nothing."""
    try:
        with (root / "sys/devices/soc0/serial_number").open("rb") as file:
            return clean(file.read(_SERIAL_MAX_BYTES).decode("ascii", "replace").strip())
    except OSError:
        return ""


def follow(file: StandingFile, sleep: Callable[[float], None]) -> Iterator[Standing | None]:
    """Each standing as it comes, the present one first; without end."""
    before: Standing | None = Standing(State.STOPPED)
    while True:
        now = file.read()
        if now != before:
            yield now
        before = now
        sleep(LOOK_S)


def has_ended(standing: Standing | None) -> bool:
    """Whether nothing more will come of this run."""
    return standing is not None and standing.state in _ENDS


def write_picture(standing: Standing | None, serial: str, console: Console) -> str:
    """A whole screen, from a cleared one on, without a line end that would scroll it."""
    return _HIDE + _CLEAR + "\r\n".join(render(draw(standing, serial, console), console))


def write_line(standing: Standing | None) -> str:
    """The same for a pipe: state, stage, check, text, next step, by tabs; empty where nothing is known."""
    if standing is None:
        return "stopped\t\t\tmpagent has not run since this board was started\tstart mpagent"
    return "\t".join((standing.state.value, standing.stage, standing.check, standing.text, standing.next))
