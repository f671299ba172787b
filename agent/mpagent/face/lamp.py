"""The standing as light: one lamp state for each moment, and a lamp that fails is told of once."""

from collections.abc import Callable, Iterable
from typing import Final

from mpagent.errors import HardwareGone
from mpagent.hal.ports import Indicator, Light
from mpagent.standing import Standing, State

_LIGHTS: Final = {
    State.WORKING: Light.WORKING,
    State.WAITING: Light.WORKING,
    State.PASS: Light.PASS,
    State.FAIL: Light.FAIL,
    State.STOPPED: Light.OFF,
}


def light(standings: Iterable[Standing | None], indicator: Indicator, complain: Callable[[str], None]) -> None:
    """Follow them to their end. Nothing here can hold up an enrollment: it runs in a process of its own."""
    shown, complained = None, False
    for standing in standings:
        wanted = Light.OFF if standing is None else _LIGHTS[standing.state]
        if wanted is shown:
            continue
        shown = wanted
        try:
            indicator.show(wanted)
        except HardwareGone as gone:
            if not complained:
                complained = True
                complain(f"{gone}; the light tells nothing from here on")
