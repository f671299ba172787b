"""Part 5 of the bench: a warm credential on the socket, beside systemd-creds and clevis on the same TPM.

Target: 5 ms at p50, from connect to the last byte. Our service has the vault's key in memory after its first answer;
the peers are programs that start, ask the TPM and end, each time: that is how they are used. Each round takes every
contestant once.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from boards import HERE, clean_environment
from figures import Figure, median, table, write_report

from mpsim.swtpm import SoftTpm

sys.path.insert(0, str(HERE.parents[1]))  # the tests' own board and service
from tests.mpagent.credential_desk import ASKED, CLOUD, make_disk, provision, serving

TARGET_MS: Final = 5.0
WARM: Final = 500
ROUNDS: Final = 7

Act = Callable[[], None]


def measure(out: Path, scratch: Path) -> list[Figure]:
    """Prints the table, writes credential.json."""
    warm: dict[str, list[float]] = {}
    first: dict[str, float] = {}
    with ExitStack() as stack:
        tpm = stack.enter_context(SoftTpm(scratch / "tpm"))
        for kind, tcti in (("sim", None), ("tpm", tpm.tcti)):
            disk = make_disk(scratch / f"board-{kind}", tcti)
            provision(disk)
            running = stack.enter_context(serving(disk, scratch / f"run-{kind}"))
            running.wait_until_it_serves()
            line = Line(running.path, stack)
            first[kind] = clock(line.ask)
            warm[kind] = sorted(clock(line.ask) for _ in range(WARM))
        peers, missing = measure_peers(scratch, tpm)
    return report(out, warm, first, peers, missing)


class Line:
    """Asks as the service manager does, without starting a program for it."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        folder = os.open(path.parent, os.O_RDONLY)
        stack.callback(os.close, folder)
        self._address = f"/proc/self/fd/{folder}/{path.name}"
        self._count = 0

    def ask(self) -> None:
        """One credential, read to the end."""
        self._count += 1
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.bind(f"\0{self._count:x}{os.getpid():x}/{ASKED}")
            line.connect(self._address)
            line.shutdown(socket.SHUT_WR)
            with line.makefile("rb") as stream:
                found = stream.read()
        if found != CLOUD:
            raise RuntimeError(f"the service gave {len(found)} bytes")


def clock(act: Act) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    act()
    return (time.perf_counter() - start) * 1e3


def measure_peers(scratch: Path, tpm: SoftTpm) -> tuple[dict[str, list[float]], list[str]]:
    """Decryption by the programs that are installed. What they leave in the TPM is flushed off the clock."""
    plain = scratch / "plain"
    plain.write_bytes(CLOUD)
    device, clevis = f"--tpm2-device={tpm.tcti}", {**clean_environment(), "TPM2TOOLS_TCTI": tpm.tcti}
    creds, jwe = scratch / "creds", scratch / "jwe"
    acts: dict[str, tuple[str, str, str]] = {
        "systemd-creds decrypt": (
            "systemd-creds",
            f"systemd-creds encrypt --with-key=tpm2 '{device}' --name=x {plain} {creds}",
            f"systemd-creds decrypt '{device}' --name=x {creds} -",
        ),
        "clevis decrypt": (
            "clevis-decrypt-tpm2",
            f'clevis encrypt tpm2 \'{{"pcr_ids":"7"}}\' <{plain} >{jwe}',
            f"clevis decrypt <{jwe}",
        ),
    }
    missing = [name for name, (program, _, _) in acts.items() if shutil.which(program) is None]
    found: dict[str, list[float]] = {name: [] for name in acts if name not in missing}

    def run(command: str) -> None:
        done = subprocess.run(["sh", "-c", command], env=clevis, capture_output=True, check=True)
        if "decrypt" in command and done.stdout != CLOUD:
            raise RuntimeError(f"{command} gave {len(done.stdout)} bytes")

    for name in found:
        run(acts[name][1])
        flush(tpm)
    for _ in range(1 + ROUNDS):  # the first warms caches and is dropped
        for name, times in found.items():
            times.append(clock(lambda command=acts[name][2]: run(command)))
            flush(tpm)
    return {name: sorted(times[1:]) for name, times in found.items()}, missing


def flush(tpm: SoftTpm) -> None:
    """Of sessions and objects, which the peers leave where there is no resource manager."""
    for kind in ("-t", "-l", "-s"):
        tpm.use_tool("tpm2_flushcontext", kind)


def report(
    out: Path, warm: dict[str, list[float]], first: dict[str, float], peers: dict[str, list[float]], missing: list[str]
) -> list[Figure]:
    """One row a contestant."""
    rows: list[tuple[object, ...]] = [("ms by the wall clock", "p50", "p99", "first", "time of ours, tpm")]
    ours = median(warm["tpm"])
    for kind, times in warm.items():
        rows.append((f"mpagent credentials, {kind}", median(times), times[len(times) * 99 // 100], first[kind], ""))
    for name, times in peers.items():
        rows.append((name, median(times), None, None, f"{median(times) / ours:.0f}x"))
    print(table(rows))
    for name in missing:
        print(f"{name.split()[0]} is not installed: no comparison with it")
    print()
    figures = [
        Figure(f"credential, warm, p50, {kind}", "ms", TARGET_MS, median(times), at_most=True)
        for kind, times in warm.items()
    ]
    details = {"warm_ms": warm, "first_ms": first, "peers_ms": peers, "missing": missing}
    write_report(out / "credential.json", figures, details)
    return figures
