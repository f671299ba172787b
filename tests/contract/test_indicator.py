"""ports.Indicator: LEDs on a tree of files like the kernel's, and how a run's standing becomes light."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from mpagent.errors import HardwareAbsent, HardwareGone
from mpagent.face.lamp import light
from mpagent.hal.leds import FAST_MS, open_leds
from mpagent.hal.ports import Indicator, Light
from mpagent.standing import Standing, State

FILES = ("trigger", "brightness", "delay_on", "delay_off")


def make_led(root: Path, name: str, full: int = 255) -> Path:
    """Files as the kernel shows them while a LED blinks; a file is not made by whoever writes to it."""
    folder = root / "sys/class/leds" / name
    folder.mkdir(parents=True)
    for file in FILES:
        (folder / file).write_text("0")
    (folder / "max_brightness").write_text(f"{full}\n")
    return folder


def look(folder: Path) -> tuple[str, ...]:
    return tuple((folder / file).read_text() for file in FILES)


@pytest.fixture
def green(tmp_path: Path) -> Path:
    return make_led(tmp_path, "green:status", full=31)


@pytest.fixture
def indicator(green: Path, tmp_path: Path) -> Indicator:
    return open_leds(tmp_path, ["green:status"])


def test_each_light_is_told_from_the_others(indicator: Indicator, green: Path) -> None:
    indicator.show(Light.WORKING)
    assert look(green)[0] == "heartbeat"
    indicator.show(Light.PASS)
    assert look(green)[:2] == ("none", "31")
    indicator.show(Light.FAIL)
    assert (look(green)[0], *look(green)[2:]) == ("timer", str(FAST_MS), str(FAST_MS))
    indicator.show(Light.OFF)
    assert look(green)[:2] == ("none", "0")


@pytest.mark.parametrize("light", list(Light))
def test_same_light_again_is_fine(indicator: Indicator, green: Path, light: Light) -> None:
    indicator.show(light)
    before = look(green)
    indicator.show(light)
    assert look(green) == before


@pytest.mark.parametrize("missing", ["trigger", "delay_off"])
def test_led_that_cannot_blink_is_named_and_nothing_is_made(indicator: Indicator, green: Path, missing: str) -> None:
    """A kernel without the trigger: the file does not come, or a write to it is refused."""
    (green / missing).unlink()
    with pytest.raises(HardwareGone, match=f"LED green:status: No such file or directory at .*/{missing}"):
        indicator.show(Light.FAIL)
    assert not (green / missing).exists()


def test_led_whose_driver_refuses_a_write_is_named(indicator: Indicator, green: Path) -> None:
    (green / "brightness").unlink()
    (green / "brightness").symlink_to("/dev/full")
    with pytest.raises(HardwareGone, match=r"LED green:status: No space left on device at .*/brightness"):
        indicator.show(Light.PASS)


def test_one_broken_led_leaves_the_others_lit(tmp_path: Path, green: Path) -> None:
    red = make_led(tmp_path, "red:status")
    (green / "brightness").unlink()
    (green / "brightness").mkdir()
    with pytest.raises(HardwareGone, match="LED green:status"):
        open_leds(tmp_path, ["green:status", "red:status"]).show(Light.PASS)
    assert look(red)[:2] == ("none", "255")


@pytest.mark.parametrize("make", [True, False])
def test_board_without_that_led_says_which_there_are(tmp_path: Path, make: bool) -> None:
    if make:
        make_led(tmp_path, "red:status")
    with pytest.raises(HardwareAbsent, match=f"no LED 'blue'.*there are: {'red:status' if make else 'none'}"):
        open_leds(tmp_path, ["blue"])


class Remembered:
    """An indicator that fails when it is told to."""

    def __init__(self, broken: Sequence[Light] = ()) -> None:
        self.shown: list[Light] = []
        self._broken = broken

    def show(self, light: Light) -> None:
        self.shown.append(light)
        if light in self._broken:
            raise HardwareGone("LED green:status: the lamp is out")


RUN = [
    None,
    Standing(State.WORKING, text="greeting the server"),
    Standing(State.WORKING, text="proving what this board is"),
    Standing(State.WAITING, check="NoServer"),
    Standing(State.WORKING),
    Standing(State.FAIL, check="quota"),
    Standing(State.WORKING),
    Standing(State.PASS),
    Standing(State.STOPPED),
]


def test_run_becomes_light() -> None:
    indicator, said = Remembered(), list[str]()
    light(RUN, indicator, said.append)
    assert indicator.shown == [Light.OFF, Light.WORKING, Light.FAIL, Light.WORKING, Light.PASS, Light.OFF]
    assert said == []


def test_lamp_that_fails_is_told_of_once_and_the_rest_is_shown() -> None:
    indicator, said = Remembered(broken=[Light.WORKING, Light.FAIL]), list[str]()
    light(RUN, indicator, said.append)
    assert indicator.shown[-2:] == [Light.PASS, Light.OFF]
    assert said == ["LED green:status: the lamp is out; the light tells nothing from here on"]
