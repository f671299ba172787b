"""Which kernel options the sealer needs, why, and which of them the running kernel says it lacks."""

import gzip
import zlib
from collections.abc import Collection, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

FRAGMENT: Final = "kernel.config"
"""Beside this module: the one list that the documentation, doctor and the QEMU bench share."""
_CONFIG_MAX_BYTES: Final = 4 << 20
"""A whole configuration has about 300 KiB."""


class Option(NamedTuple):
    """One line of the fragment."""

    name: str
    """With CONFIG_."""
    section: str
    """"all", "source caam", "wrap af_alg" and so on."""
    reason: str


def read_fragment() -> str:
    """The fragment as it ships."""
    return files(__package__).joinpath(FRAGMENT).read_text("utf-8")


def list_options() -> tuple[Option, ...]:
    """Every option of the fragment, in its order."""
    return tuple(_parse(read_fragment()))


def list_missing_options(sections: Collection[str], root: Path = Path("/")) -> tuple[Option, ...] | None:
    """Options of these sections that are neither built in nor modules of the running kernel.

    None where the kernel does not show its configuration (CONFIG_IKCONFIG_PROC) or it cannot be read.
    """
    offered = _read_running(root / "proc/config.gz")
    if offered is None:
        return None
    wanted = [option for option in list_options() if option.section in sections]
    return tuple(option for option in wanted if offered.get(option.name) not in ("y", "m"))


def _parse(fragment: str) -> Iterator[Option]:
    section = reason = ""
    for line in fragment.splitlines():
        if line.startswith("# ["):
            section = line[3:].rstrip("]")
        elif line.startswith("# "):
            reason = line[2:]
        elif line:
            yield Option(line.partition("=")[0], section, reason)


def _read_running(path: Path) -> Mapping[str, str] | None:
    try:
        with gzip.open(path) as packed:
            text = packed.read(_CONFIG_MAX_BYTES).decode("ascii", "replace")
    except (OSError, EOFError, zlib.error):
        return None
    lines = (line.partition("=") for line in text.splitlines() if line.startswith("CONFIG_"))
    return {name: value for name, _, value in lines} or None
