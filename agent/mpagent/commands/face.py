"""mpagent face: PASS or FAIL for whoever stands before the board, on its console or its LEDs; never ends by itself."""

import sys
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpagent.face.screen import Console
    from mpagent.standing import Standing

ABOUT = "show PASS or FAIL, why, and which board this is, on a console or by LEDs"


def configure(parser: ArgumentParser) -> None:
    """Options of this command."""
    parser.add_argument("--once", action="store_true", help="show how it stands now, and end")
    drawn = parser.add_mutually_exclusive_group()
    drawn.add_argument("--ascii", action="store_false", dest="blocks", default=None, help="draw with ASCII alone")
    drawn.add_argument("--blocks", action="store_true", default=None, help="draw half blocks on a serial line, too")
    parser.add_argument("--leds", action="store_true", help="light the LEDs that mpagent.toml names, and show nothing")


def run(arguments: Namespace) -> int:
    """Needs no network, no chip and no secret: reads what `enroll` leaves in run/mpagent, and the serial number."""
    if arguments.leds:
        return _light(arguments)
    from mpagent.compose import Places
    from mpagent.face.screen import Console
    from mpagent.face.show import find_console, follow, read_serial
    from mpagent.standing import StandingFile

    file = StandingFile(Places(arguments.root).run)
    console = None if sys.stdout is None else find_console(sys.stdout.fileno(), arguments.blocks)
    if arguments.once or console is None:
        plain = Console(lines=None, blocks=False) if console is None else console._replace(lines=None)
        _print(file.read(), read_serial(arguments.root), plain)
        return 0
    for standing in follow(file, time.sleep):
        _redraw(standing, read_serial(arguments.root), console)
    return 0


def _redraw(standing: "Standing | None", serial: str, console: "Console") -> None:
    from mpagent.face.show import write_picture
    from mpagent.output import put_bytes

    put_bytes(write_picture(standing, serial, console).encode())


def _print(standing: "Standing | None", serial: str, console: "Console") -> None:
    from mpagent.face.screen import draw, render
    from mpagent.output import put_line

    for line in render(draw(standing, serial, console), console):
        put_line(line)


def _light(arguments: Namespace) -> int:
    from mpagent.compose import Places
    from mpagent.errors import ConfigWrong
    from mpagent.face.lamp import light
    from mpagent.face.show import follow
    from mpagent.hal.leds import open_leds
    from mpagent.settings import read_settings
    from mpagent.standing import StandingFile

    places = Places(arguments.root)
    names = read_settings(places.settings).indicator
    if not names:
        raise ConfigWrong(f'{places.settings}: no LED is named; write indicator = ["NAME"], as in /sys/class/leds')
    indicator = open_leds(arguments.root, names)
    light(follow(StandingFile(places.run), time.sleep), indicator, _complain)
    return 0


def _complain(text: str) -> None:
    from mpagent.progress import Progress

    Progress(sys.stderr, time.monotonic)(text)
