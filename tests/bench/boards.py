"""Boards for whole processes of mpagent: a folder each, with chip, image and, where it has one, a TPM."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from issuer import Anchors

from mpagent.durable import Disk
from mpagent.hal.choose import BoardChoice, open_board
from mpagent.shelf import DiskShelf
from mpsim.board import BoardPlan, make_board
from mpsim.swtpm import SoftTpm

HERE: Final = Path(__file__).parent
FLOOR: Final = {version: str(HERE.parents[1] / f"out/env/floor-{version}/bin/python") for version in ("3.11", "3.12")}
"""The interpreters of scripts/floor.sh, with the oldest releases a device may carry."""
MPAGENT: Final = (sys.executable, "-m", "mpagent")


class Folder:
    """One board on disk."""

    def __init__(self, folder: Path, tpm: SoftTpm | None = None) -> None:
        self.root, self.tpm = folder / "disk", tpm
        make_board(folder, BoardPlan(closed=True))

    @property
    def kind(self) -> str:
        """Its attester."""
        return "sim" if self.tpm is None else "tpm"

    def install(self, anchors: Anchors, server: str) -> None:
        """The image's two files."""
        text = anchors.files[self.kind]
        if self.tpm is not None:
            text = text.replace('"TCTI"', json.dumps(self.tpm.tcti))
        (self.root / "usr/lib/mpagent/anchors.toml").write_text(text, encoding="utf-8")
        (self.root / "etc/mpagent/mpagent.toml").write_text(f'server = "{server}"\n', encoding="utf-8")


def read_ek(tpm: SoftTpm, scratch: Path) -> bytes:
    """Name of the TPM's EK, 34 bytes, for a product file."""
    disk = Disk(scratch / "shelf")
    disk.prepare()
    make_board(scratch / "any", BoardPlan(closed=True))
    choice = BoardChoice(("tpm",), ("tpm",), ("tpm",), ("sim",), tpm_tcti=tpm.tcti, sim_chip=scratch / "any/chip")
    with open_board(choice, scratch, DiskShelf(disk)) as board:
        name = board.attester.describe().attester_id[:34]
    shutil.rmtree(scratch)
    return name


def clean_environment() -> dict[str, str]:
    """Ours, less what would make a fresh process compile every module anew: an image carries byte code."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "PYTHONPYCACHEPREFIX": str(HERE.parents[1] / "out/bench/pycache")}


def meter(*command: str, ok: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Cost of one fresh process. Raises where it failed: a failure's cost says nothing."""
    program = shutil.which(command[0]) or command[0]
    run = [sys.executable, "-I", "-S", str(HERE / "meter.py"), program, *command[1:]]
    done = subprocess.run(run, check=True, capture_output=True, text=True, env=clean_environment())
    told: dict[str, Any] = json.loads(done.stdout)
    if told["exit"] not in ok:
        raise RuntimeError(f"{command} ended with {told['exit']}: {done.stderr[-500:]}")
    return told
