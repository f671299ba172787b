"""A root folder with systemd's own units, ours, and a program where ours start one: for systemd-analyze."""

import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.walls.rooms import ROOT

UNITS: Final = ROOT / "systemd"
SYSTEM: Final = Path("usr/lib/systemd/system")


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """What an installation has, below a root of our own."""
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    # Copied, because systemd-analyze looks for targets and slices that units name by default.
    shutil.copytree(Path("/lib/systemd/system"), root / SYSTEM, symlinks=True)
    for unit in UNITS.glob("mpagent*"):
        shutil.copy(unit, root / SYSTEM)
    program = root / "usr/bin/mpagent"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return root
