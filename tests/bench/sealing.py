"""Part 3 of the bench: sealing and unsealing one secret, warm and cold, beside systemd-creds and clevis on one TPM.

No target stands here, only ratios of one run. Each round takes every contestant once, so that what disturbs the
machine disturbs all. Ours seals, writes durably, reads back and unseals before it calls a secret sealed; the peers
encrypt into a file. Wall time, because most of it is waiting for the TPM; CPU stands in the JSON.
"""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from boards import HERE, MPAGENT, Folder, meter
from figures import Figure, median, table, write_report
from issuer import Running, make_state

from mpagent.compose import read_device
from mpagent.slots import VaultSlot
from mpsim.swtpm import SoftTpm
from mpwire.secret import Secret

SIZES: Final = (32, 16_384)
ROUNDS: Final = 5
WARM_CALLS: Final = 20
UEID: Final = b"\x01" + bytes(32)

Times = dict[str, dict[int, list[float]]]
"""Milliseconds by contestant and size."""
Act = Callable[[int], float]
"""Does it once with a secret of so many bytes; milliseconds."""


def measure(out: Path, scratch: Path) -> list[Figure]:
    """Prints the table, writes sealing.json."""
    with ExitStack() as stack:
        tpm = stack.enter_context(SoftTpm(scratch / "tpm"))
        boards = {"sim": Folder(scratch / "sim"), "tpm": Folder(scratch / "tpmboard", tpm)}
        anchors = make_state(scratch / "issuer")
        for board in boards.values():
            board.install(anchors, "https://127.0.0.1:1")
        peers = Peers(scratch, tpm)
        warm, cold = _measure_warm(boards), _measure_cold(boards, peers)
        command = _measure_command(scratch, stack)
    return _report(out, warm, cold, command, peers.missing)


def _measure_warm(boards: Mapping[str, Folder]) -> dict[str, Times]:
    found: dict[str, Times] = {"seal": {}, "unseal": {}}
    for kind, board in boards.items():
        device = read_device(board.root)
        with device.hold("bench"), device.open_board() as chips:
            vault = device.vault(chips)
            for size in SIZES:
                secret = VaultSlot("secret", "static", "sealed", 1, Secret(os.urandom(size)))
                seals, unseals = [], []
                for _ in range(WARM_CALLS):
                    start = time.perf_counter()
                    generation = vault.write(UEID, [secret], above=vault.find_latest())
                    sealed = time.perf_counter()
                    vault.read(UEID, generation)
                    unseals.append((time.perf_counter() - sealed) * 1e3)
                    seals.append((sealed - start) * 1e3)
                    vault.discard_others(generation)
                found["seal"].setdefault(f"mpagent {kind}", {})[size] = seals
                found["unseal"].setdefault(f"mpagent {kind}", {})[size] = unseals
    return found


def _measure_cold(boards: Mapping[str, Folder], peers: "Peers") -> dict[str, Times]:
    contestants: dict[str, dict[str, Act]] = {"seal": {}, "unseal": {}}
    for verb, acts in contestants.items():
        for kind, board in boards.items():
            acts[f"mpagent {kind}"] = _ours(verb, board)
        acts.update(peers.acts(verb))
    found: dict[str, Times] = {verb: {name: {} for name in acts} for verb, acts in contestants.items()}
    for _ in range(1 + ROUNDS):  # the first warms byte code and caches and is dropped
        for size in SIZES:
            for verb, acts in contestants.items():
                for name, act in acts.items():
                    found[verb][name].setdefault(size, []).append(act(size))
    return {
        verb: {name: {size: some[1:] for size, some in sizes.items()} for name, sizes in times.items()}
        for verb, times in found.items()
    }


def _ours(verb: str, board: Folder) -> Act:
    program = (MPAGENT[0], str(HERE / "vault_once.py"), verb, str(board.root))
    return lambda size: float(meter(*program, str(size))["wall_s"]) * 1e3


def _measure_command(scratch: Path, stack: ExitStack) -> list[float]:
    """`mpagent secret get` on a board that enrolled: what a service waits for at boot, in milliseconds."""
    anchors = make_state(scratch / "enrolled-issuer")
    server = Running("serve", scratch / "enrolled-issuer")
    stack.callback(server.stop)
    board = Folder(scratch / "enrolled")
    board.install(anchors, server.url)
    meter(*MPAGENT, "--root", str(board.root), "enroll", "--once")
    command = (*MPAGENT, "--root", str(board.root), "secret", "get", "licence")
    return [float(meter(*command)["wall_s"]) * 1e3 for _ in range(1 + ROUNDS)][1:]


class Peers:
    """systemd-creds and clevis, on the TPM that our board uses."""

    def __init__(self, scratch: Path, tpm: SoftTpm) -> None:
        self._scratch, self._tpm = scratch, tpm
        needed = {"systemd-creds": ("systemd-creds",), "clevis tpm2": ("clevis", "clevis-encrypt-tpm2")}
        self.missing = [name for name, tools in needed.items() if not all(map(shutil.which, tools))]
        for size in SIZES:
            (scratch / f"plain-{size}").write_bytes(os.urandom(size))

    def acts(self, verb: str) -> dict[str, Act]:
        """Those that are installed."""
        found: dict[str, Act] = {
            "systemd-creds": lambda size: self._run_creds(verb, size),
            "clevis tpm2": lambda size: self._run_clevis(verb, size),
        }
        return {name: act for name, act in found.items() if name not in self.missing}

    def _run_creds(self, verb: str, size: int) -> float:
        plain, sealed = f"{self._scratch}/plain-{size}", f"{self._scratch}/creds-{size}"
        device = f"--tpm2-device={self._tpm.tcti}"
        if verb == "seal":
            return self._run("systemd-creds", "encrypt", "--with-key=tpm2", device, "--name=secret", plain, sealed)
        return self._run("systemd-creds", "decrypt", device, "--name=secret", sealed, "-")

    def _run_clevis(self, verb: str, size: int) -> float:
        plain, sealed = f"{self._scratch}/plain-{size}", f"{self._scratch}/clevis-{size}"
        act = 'encrypt tpm2 \'{"pcr_ids":"7"}\'' if verb == "seal" else "decrypt"
        files = f"<{plain} >{sealed}" if verb == "seal" else f"<{sealed}"
        return self._run("env", f"TPM2TOOLS_TCTI={self._tpm.tcti}", "sh", "-c", f"clevis {act} {files}")

    def _run(self, *command: str) -> float:
        """Both leave sessions and objects in a TPM without a resource manager: they are flushed, off the clock."""
        try:
            return float(meter(*command)["wall_s"]) * 1e3
        finally:
            for kind in ("-t", "-l", "-s"):
                self._tpm.use_tool("tpm2_flushcontext", kind)


def _report(
    out: Path, warm: dict[str, Times], cold: dict[str, Times], command: list[float], missing: list[str]
) -> list[Figure]:
    rows: list[tuple[object, ...]] = [
        ("ms by the wall clock, median", *(f"{size} B" for size in SIZES), "time of ours")
    ]
    details: dict[str, dict[str, dict[str, float]]] = {}
    for heat, found in (("warm", warm), ("cold", cold)):
        for verb, times in found.items():
            middles = {name: [median(sizes[size]) for size in SIZES] for name, sizes in times.items()}
            ours = middles["mpagent tpm"]
            for name, some in middles.items():
                against = "" if name.startswith("mpagent") else f"{some[0] / ours[0]:.2f}x, {some[1] / ours[1]:.2f}x"
                rows.append((f"{heat} {verb}, {name}", *some, against))
                sizes_ms = {str(size): value for size, value in zip(SIZES, some, strict=True)}
                details.setdefault(f"{heat} {verb}", {})[name] = sizes_ms
    rows.append(("cold mpagent secret get, sim", median(command), None, ""))
    print(table(rows))
    for name in missing:
        print(f"{name} is not installed: no comparison with it")
    print()
    write_report(out / "sealing.json", [], {"median_ms": details, "secret_get_ms": median(command), "missing": missing})
    return []
