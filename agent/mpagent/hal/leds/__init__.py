"""ports.Indicator on LEDs of the kernel: /sys/class/leds (Documentation/leds/leds-class.rst).

Triggers blink by themselves: "heartbeat" and "timer" have to be in the kernel (LEDS_TRIGGER_HEARTBEAT and _TIMER).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mpagent.errors import HardwareAbsent, HardwareGone
from mpagent.hal.ports import Light

FAST_MS: Final = 100
"""On and off in turns, five times a second: unlike any heartbeat."""
_FOLDER: Final = Path("sys/class/leds")


def open_leds(root: Path, names: Sequence[str]) -> "Leds":
    """LEDs by their names. Raises HardwareAbsent for one that this board does not have."""
    folders = [root / _FOLDER / name for name in names]
    for folder in folders:
        if not (folder / "brightness").exists():
            there = sorted(one.name for one in folder.parent.glob("*")) if folder.parent.is_dir() else []
            raise HardwareAbsent(
                f"no LED {folder.name!r} on this board; there are: {', '.join(there) or 'none'}",
                advice="correct `indicator` in mpagent.toml, or load the driver of that LED",
            )
    return Leds(folders)


class Leds:
    """All of them show the same."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def show(self, light: Light) -> None:
        """See ports.Indicator. The first LED that fails is named; the others are lit all the same."""
        failed: HardwareGone | None = None
        for folder in self._folders:
            try:
                _set(folder, light)
            except OSError as error:
                failed = failed or HardwareGone(
                    f"LED {folder.name}: {error.strerror} at {error.filename}",
                    advice="build its triggers heartbeat and timer into the kernel, and let this user write its files",
                )
        if failed is not None:
            raise failed


def _set(folder: Path, light: Light) -> None:
    """A trigger that is set switches the LED off first; brightness 0 ends every trigger."""
    if light is Light.WORKING:
        _write(folder / "trigger", "heartbeat")
    elif light is Light.FAIL:
        _write(folder / "trigger", "timer")
        _write(folder / "delay_on", str(FAST_MS))
        _write(folder / "delay_off", str(FAST_MS))
    else:
        _write(folder / "trigger", "none")
        _write(folder / "brightness", _read_full(folder) if light is Light.PASS else "0")


def _read_full(folder: Path) -> str:
    return (folder / "max_brightness").read_text(encoding="ascii").strip()


def _write(path: Path, value: str) -> None:
    """One write: sysfs takes a value whole. Never makes a file. Raises OSError with the path."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)
