"""/sys/devices/soc0: which part this is, by the kernel's word."""

import re
from pathlib import Path
from typing import Final, NamedTuple

from mpagent.errors import HardwareAbsent, HardwareGone
from mpagent.hal.soc.parts import LAYOUTS, Layout, find_layout

SOC_FOLDER: Final = "sys/devices/soc0"
FAMILY: Final = "Freescale i.MX"
"""What every NXP driver writes as family (linux drivers/soc/imx)."""
_ATTRIBUTE_MAX_BYTES: Final = 256
"""More than any board's model name; one page at the most."""


class Identity(NamedTuple):
    """A part we know."""

    layout: Layout
    revision: str | None
    """"major.minor"; None where the kernel prints none."""
    serial: str
    """Hex digits as printed, of a length this part may have; empty where the kernel prints another."""
    machine: str
    """Model of the device tree; empty where the kernel prints none."""
    note: str = ""
    """Why `serial` is empty."""


def read_identity(root: Path) -> Identity:
    """Raises HardwareAbsent away from an i.MX, HardwareGone for an i.MX we have no table of."""
    folder = root / SOC_FOLDER
    soc_id, family = _read(folder, "soc_id"), _read(folder, "family")
    if soc_id is None:
        raise HardwareAbsent(
            f"no i.MX: {folder}/soc_id is not there",
            advice="if it is an i.MX, build the kernel with CONFIG_SOC_BUS and the driver of drivers/soc/imx",
        )
    if family != FAMILY:
        raise HardwareAbsent(f"{folder}: family {family!r}, soc_id {soc_id!r}: no i.MX")
    layout = find_layout(soc_id)
    if layout is None:
        raise HardwareGone(
            f"{folder}/soc_id says {soc_id!r}, a part whose fuses this agent does not know",
            advice=f"use one of {', '.join(LAYOUTS)}, or a release that knows this part",
        )
    serial, note = _read_serial(folder, layout)
    return Identity(layout, _read_revision(folder), serial, _read(folder, "machine") or "", note)


def _read_serial(folder: Path, layout: Layout) -> tuple[str, str]:
    """The digits, or why none of them can be used."""
    serial = _read(folder, "serial_number")
    if not serial:
        return "", f"{folder}/serial_number is missing"
    if re.fullmatch(r"[0-9A-Fa-f]+", serial) is None:
        raise HardwareGone(f"{folder}/serial_number says {serial!r}, which is no hexadecimal number")
    if len(serial) in layout.serial_digits:
        return serial, ""
    if layout.hab:
        raise HardwareGone(f"{folder}/serial_number has {len(serial)} digits; {layout.family} prints 16")
    # A vendor kernel prints two of the four words of an ELE's UID: enough to read, too little to be a name.
    wanted = " or ".join(map(str, layout.serial_digits))
    return "", f"{folder}/serial_number has {len(serial)} digits, not {wanted}: this kernel prints another id"


def _read_revision(folder: Path) -> str | None:
    found = _read(folder, "revision") or ""
    return found if re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}", found) else None


def _read(folder: Path, name: str) -> str | None:
    """One attribute without its line end; None where there is no such file."""
    try:
        with (folder / name).open("rb") as file:
            raw = file.read(_ATTRIBUTE_MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise HardwareGone(f"{folder / name}: {error.strerror}") from error
    text = raw.decode("ascii", "backslashreplace").strip()
    return text if text.isprintable() else repr(text)
