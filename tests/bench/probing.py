"""Part 4 of the bench: what it costs to find out which parts a board has, and what each part costs in memory.

OP-TEE is our emulation at the ioctls, the TPM is swtpm, the token SoftHSM2; each works in a process or a library of its
own. A PIV card and the kernel's trusted keys are not on a build machine: of them the search is measured, not the find.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from boards import HERE, clean_environment
from figures import Figure, median, table, write_report

from mpsim.board import BoardPlan, make_board
from mpsim.optee.bench import EmulatedTee
from mpsim.softhsm import MODULE, SoftHsm
from mpsim.swtpm import SoftTpm

RUNS: Final = 5
PROBE_S: Final = 0.15
EVERY_PART: Final = (
    *(("soc", "imx"), ("attest", "mp"), ("attest", "optee"), ("attest", "tpm"), ("attest", "card")),
    *(("seal", "caam"), ("seal", "tpm"), ("seal", "pkcs11"), ("keys", "tpm"), ("keys", "pkcs11")),
)
"""The longest list an image can name, in an order of preference."""
OWN_PARTS: Final = {
    "none": (("soc", "none"),),
    "mp": (("attest", "mp"),),
    "optee": (("attest", "optee"),),
    "tpm": (("attest", "tpm"), ("seal", "tpm"), ("keys", "tpm")),
    "pkcs11": (("seal", "pkcs11"), ("keys", "pkcs11")),
    "card, absent": (("attest", "card"),),
    "caam, absent": (("seal", "caam"),),
}
"""By backend, what a board opens that uses it."""


class Board:
    """A choice for probe_once.py, and the environment in which it finds its chips."""

    def __init__(self, scratch: Path, told: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._told = {"root": str(scratch), "state": str(scratch / "state"), "card_pin": str(scratch / "pin"), **told}
        self._environment = {**clean_environment(), **environment}

    def probe(self, parts: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """One fresh process."""
        asked = json.dumps({**self._told, "parts": parts})
        command = [sys.executable, str(HERE / "probe_once.py"), asked]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"probe ended with {done.returncode}: {done.stderr[-500:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def measure(out: Path, scratch: Path) -> list[Figure]:
    """A board with nothing, one with MP alone, one with everything that can stand here."""
    with ExitStack() as stack:
        make_board(scratch / "board", BoardPlan(closed=True))
        tee = stack.enter_context(EmulatedTee(scratch / "board", out / "shim"))
        tpm = stack.enter_context(SoftTpm(scratch / "tpm"))
        hsm = SoftHsm(scratch / "hsm")
        hsm.initialize()
        nothing = {"optee_node": str(scratch / "tee0"), "tpm_tcti": f"swtpm:path={scratch}/none"}
        nothing["token"] = [str(MODULE), "another", str(hsm.pin_file)]  # type: ignore[assignment]  # a list among texts
        conf = {"SOFTHSM2_CONF": str(hsm.folder / "softhsm2.conf")}
        whole = {"optee_node": "/dev/tee0", "tpm_tcti": tpm.tcti, "token": [str(MODULE), hsm.label, str(hsm.pin_file)]}
        boards = {
            "nothing": Board(scratch, nothing, conf),
            "MP alone": Board(scratch, {**nothing, "optee_node": "/dev/tee0"}, {**conf, **tee.environment()}),
            "everything": Board(scratch, whole, {**conf, **tee.environment()}),
        }
        searches = {name: _repeat(board, EVERY_PART) for name, board in boards.items()}
        backends = {name: _repeat(boards["everything"], parts) for name, parts in OWN_PARTS.items()}
    return _report(out, searches, backends)


def _repeat(board: Board, parts: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The first run warms byte code and disk."""
    first, *rest = [board.probe(parts) for _ in range(1 + RUNS)]
    middle = {name: median([one[name] for one in rest]) for name in ("probe_s", "wall_s", "whole_s", "peak_mib")}
    return {**middle, "found": first["found"]}


def _report(out: Path, searches: dict[str, dict[str, Any]], backends: dict[str, dict[str, Any]]) -> list[Figure]:
    figures = [
        Figure(f"probe, board with {name}: CPU besides the chip", "s", PROBE_S, one["probe_s"], at_most=True)
        for name, one in searches.items()
    ]
    rows: list[tuple[object, ...]] = [("search for every part", "CPU ms", "wall ms", "peak MiB", "found")]
    for name, one in searches.items():
        there = [part for part, state in one["found"].items() if state == "there"]
        rows.append((name, one["probe_s"] * 1e3, one["wall_s"] * 1e3, one["peak_mib"], ", ".join(there) or "nothing"))
    print(table(rows) + "\n")
    bare = backends["none"]["peak_mib"]
    rows = [("backend in use", "CPU ms", "wall ms", "peak MiB", "above none")]
    rows += [
        (name, one["probe_s"] * 1e3, one["wall_s"] * 1e3, one["peak_mib"], one["peak_mib"] - bare)
        for name, one in backends.items()
    ]
    print(table(rows) + "\n")
    write_report(out / "probe.json", figures, {"searches": searches, "backends": backends})
    return figures
