"""Part 2 of the bench: what a cold `mpagent enroll` costs a device, in CPU seconds and memory, and where it goes."""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Final

from boards import FLOOR, HERE, MPAGENT, Folder, clean_environment, meter, read_ek
from figures import Figure, median, table, write_report
from issuer import Running, make_state

from mpsim.swtpm import SoftTpm

RUNS: Final = 5
SPLIT_RUNS: Final = 3
CPU_S: Final = 0.25
IMPORTS_S: Final = 0.15
FLOOR_IMPORTS_S: Final = 0.18
PEAK_MIB: Final = {"sim": 45.0, "tpm": 56.0}


def measure(out: Path, scratch: Path) -> list[Figure]:
    """Enrolls fresh boards of both kinds against one server, one after the other."""
    with ExitStack() as stack:
        each = 1 + RUNS + SPLIT_RUNS + len(FLOOR) * (1 + SPLIT_RUNS)
        tpms = [stack.enter_context(SoftTpm(scratch / f"tpm-{number}")) for number in range(each)]
        eks = tuple(read_ek(tpm, scratch / "ek") for tpm in tpms)
        anchors = make_state(scratch / "issuer", eks)
        server = Running("serve", scratch / "issuer")
        stack.callback(server.stop)
        boards: dict[str, list[Folder]] = {
            "sim": [Folder(scratch / f"sim-{number}") for number in range(len(tpms))],
            "tpm": [Folder(scratch / f"tpmboard-{number}", tpm) for number, tpm in enumerate(tpms)],
        }
        for board in (*boards["sim"], *boards["tpm"]):
            board.install(anchors, server.url)
        found = {kind: _measure_kind(some, scratch) for kind, some in boards.items()}
    return _report(out, found)


def _measure_kind(boards: Sequence[Folder], scratch: Path) -> dict[str, Any]:
    """The first board of each interpreter warms the byte code; RUNS are metered whole, the rest are split."""
    left = iter(boards)
    first = next(left)
    _enroll(first)
    runs = [_enroll(board) for board in islice(left, RUNS)]
    splits = [_split(board, scratch / "spans.json") for board in islice(left, SPLIT_RUNS)]
    floor = {}
    for version, python in FLOOR.items():
        _split(next(left), scratch / "spans.json", python)
        told = [_split(board, scratch / "spans.json", python)["imports"] for board in islice(left, SPLIT_RUNS)]
        floor[version] = median(told)
    names = sorted({name for one in splits for name in one})
    return {
        "cpu_s": median([one["cpu_s"] for one in runs]),
        "wall_s": median([one["wall_s"] for one in runs]),
        "peak_mib": median([one["peak_mib"] for one in runs]),
        "split_s": {name: median([one.get(name, 0.0) for one in splits]) for name in names},
        "floor_imports_s": floor,
        "runs": runs,
        "modules": _count_modules(first),
    }


def _enroll(board: Folder) -> dict[str, Any]:
    return meter(*MPAGENT, "--root", str(board.root), "enroll", "--once", "--json")


def _split(board: Folder, file: Path, python: str = sys.executable) -> dict[str, float]:
    command = [python, str(HERE / "spans.py"), str(file), board.kind]
    command += ["--root", str(board.root), "enroll", "--once", "--json"]
    nowhere = subprocess.DEVNULL
    subprocess.run(command, check=True, env=clean_environment(), stdout=nowhere, stderr=nowhere)
    found: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _count_modules(board: Folder) -> int:
    """Modules a run loads, by -X importtime, on a board that is enrolled already."""
    command = [sys.executable, "-X", "importtime", *MPAGENT[1:], "--root", str(board.root), "enroll", "--once"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=clean_environment())
    return sum(line.startswith("import time:") for line in done.stderr.splitlines()) - 1


def _report(out: Path, found: dict[str, dict[str, Any]]) -> list[Figure]:
    figures = []
    for kind, one in found.items():
        figures += [
            Figure(f"cold enroll, {kind}: CPU", "s", CPU_S, one["cpu_s"], at_most=True),
            Figure(f"cold enroll, {kind}: imports", "s", IMPORTS_S, one["split_s"]["imports"], at_most=True),
            Figure(f"cold enroll, {kind}: peak memory", "MiB", PEAK_MIB[kind], one["peak_mib"], at_most=True),
        ]
        figures += [
            Figure(f"imports on the floor, {kind}, Python {version}", "s", FLOOR_IMPORTS_S, spent, at_most=True)
            for version, spent in one["floor_imports_s"].items()
        ]
    names = ["interpreter", "imports", "crypto", "network", "disk", "chip", "other"]
    rows: list[tuple[object, ...]] = [("cold mpagent enroll, ms of CPU", *found)]
    rows += [(name, *(one["split_s"].get(name, 0.0) * 1e3 for one in found.values())) for name in names]
    rows += [("sum of a split run", *(sum(one["split_s"].values()) * 1e3 for one in found.values()))]
    rows += [(f"whole process, median of {RUNS}", *(one["cpu_s"] * 1e3 for one in found.values()))]
    rows += [("peak memory, MiB", *(one["peak_mib"] for one in found.values()))]
    print(table(rows) + "\n")
    write_report(out / "device.json", figures, {"kinds": found})
    return figures
