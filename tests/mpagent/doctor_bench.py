"""What the tests of `mpagent doctor` share: an i.MX board with its kernel's files and OP-TEE, and a question to it."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpagent.checkup import Finding
from mpagent.hal.caam import list_options
from mpsim.board import BoardPlan, make_board
from mpsim.optee.bench import EmulatedTee

from .test_cli import Counter
from .trees import make_tree

SHIM = Path(__file__).parents[2] / "out" / "shim"


def set_board(disk: Path, *lines: str) -> None:
    """Another [board] in the image's anchors."""
    anchors = disk / "usr/lib/mpagent/anchors.toml"
    board = "[board]\n" + "".join(f"{line}\n" for line in lines)
    anchors.write_text(re.sub(r"(?ms)^\[board\]\n.*?(?=^\[\[slot)", board, anchors.read_text()))


def find(findings: list[Finding]) -> dict[str, Finding]:
    """By ability; the last of several."""
    return {one.ability: one for one in findings}


@contextmanager
def imx_board(counter: Counter, folder: Path, **plan: object) -> Iterator[tuple[Path, EmulatedTee]]:
    """A board with the kernel's files of its chip, and its OP-TEE behind /dev/tee0."""
    disk = counter.make_board(folder, closed=bool(plan.get("closed", True)))
    if plan:
        shutil.move(disk, folder.with_name("disk"))
        shutil.rmtree(folder)
        make_board(folder, BoardPlan(**{"closed": True, **plan}))  # type: ignore[arg-type]
        shutil.rmtree(disk)
        shutil.move(folder.with_name("disk"), disk)
    part = str(plan.get("part", "imx8mm"))
    tree = make_tree(disk, part, (folder / "chip/nvmem").read_bytes())
    tree.write("revision", str(plan.get("revision", "1.1")))
    caam = disk / "proc/device-tree/soc@0/bus@30800000/crypto@30900000"
    for ring in ("jr@1000", "jr@2000", "jr@3000"):
        (caam / ring).mkdir(parents=True)
    (caam / "jr@3000/status").write_bytes(b"disabled\0")
    with EmulatedTee(folder, SHIM) as tee:
        yield disk, tee


def ask(disk: Path, tee: EmulatedTee, *words: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code and findings by ability, of the real program over the emulated node."""
    command = [sys.executable, "-m", "mpagent", "--root", str(disk), "doctor", "--json", *words]
    done = subprocess.run(command, env={**os.environ, **tee.environment()}, capture_output=True, timeout=120)
    assert done.stderr == b"", done.stderr.decode()
    return done.returncode, {one["ability"]: one for one in json.loads(done.stdout)}


def put_kernel(root: Path, missing: tuple[str, ...]) -> None:
    """A running kernel with every option but these."""
    lines = (f"{one.name}=m\n" for one in list_options() if one.name not in missing)
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/config.gz").write_bytes(gzip.compress("".join(lines).encode()))
