"""Real processes under a real axe: `mpserver run` and `mpagent enroll`, killed by strace at a chosen system call.

The kill comes as the call begins: nothing of that call has happened, everything before it has. So call n of a sweep is
the cut after call n - 1, too.
"""

import contextlib
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpagent.anchors import read_anchors
from mpserver import cli
from mpserver.state import open_state
from mpserver.store.audit import verify_ledger
from mpsim import fuses
from mpsim.board import BoardPlan, make_board, mp_key_record
from tests.line import PRODUCT, Device, fill_product
from tests.power.aftermath import check_books, check_disk, check_values

READY_MAX_S = 20.0
ENROLL_MAX_S = 60.0
KILLED = -signal.SIGKILL


def axe(call: str, number: int) -> list[str]:
    """strace that kills a process when one of its threads begins its `number`th such call.

    Without --seccomp-bpf, under which strace 6.1 forgets to inject.
    """
    return strike(call, number, "SIGKILL")


def strike(call: str, number: int, name: str, log: Path = Path("/dev/null")) -> list[str]:
    """The same with another signal; strace's log tells that it came."""
    command = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}"]
    return [*command, "-e", f"inject={call}:signal={name}:when={number}"]


def watch(call: str, log: Path) -> list[str]:
    """strace that writes down every such call, with what its descriptor is."""
    return ["strace", "-f", "-qq", "-yy", "-o", str(log), "-e", f"trace={call}"]


SERVER_PYTHON = os.environ.get("MPSERVER_PYTHON", sys.executable)
"""Where the tests run on what the oldest devices carry (scripts/floor.sh), the issuer's side has its own releases."""


class Mpserver:
    """One server directory with a product and an open job, and at most one running `mpserver`."""

    def __init__(
        self, folder: Path, directory: Path | None = None, *, quota: int = 1_000, eks: tuple[bytes, ...] = ()
    ) -> None:
        self.folder, self.directory, self._eks = folder, directory or folder / "server", eks
        self.address = ""
        self.log_to = folder / "mpserver.log"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        self._set_up(quota)

    def start(self, *prefix: str) -> None:
        """On the port it had before; returns once it answers."""
        ready = self.folder / "address"
        ready.unlink(missing_ok=True)
        port = self.address.rpartition(":")[2] or "0"
        command = [*prefix, SERVER_PYTHON, "-m", "mpserver", "--dir", str(self.directory), "run"]
        with open(self.log_to, "ab") as log:
            self._process = subprocess.Popen(
                [*command, "--port", port, "--ready-file", str(ready)], stdout=subprocess.DEVNULL, stderr=log
            )
        deadline = time.monotonic() + READY_MAX_S
        while not ready.exists():
            if self._process.poll() is not None:
                return  # killed while it started
            assert time.monotonic() < deadline, self.read_log()
            time.sleep(0.01)
        self.address = ready.read_text().strip()

    @property
    def is_up(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def wait_killed(self) -> None:
        """strace ends the way its child did."""
        assert self._process is not None
        assert self._process.wait(READY_MAX_S) == KILLED, self.read_log()

    def stop(self) -> None:
        """In order, where it still runs. A signal to strace would not reach the server: its child gets it."""
        if self._process is None:
            return
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(find_child(self._process.pid) or self._process.pid, signal.SIGTERM)
            self._process.wait(READY_MAX_S)
        self._process = None

    def read_log(self) -> str:
        """What all its runs said."""
        return self.log_to.read_text(errors="replace")

    def command(self, *words: str) -> str:
        """`mpserver --dir DIR ...` in this process; what it printed."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = cli.main(["--dir", str(self.directory), *words])
        assert code == 0, printed.getvalue()
        return printed.getvalue()

    def _set_up(self, quota: int) -> None:
        self.command("init", "--realm", "lab")
        product, keys = self.folder / "camera.toml", self.folder / "key.json"
        product.write_text(fill_product(PRODUCT, self._eks))
        self.command("product", "add", str(product))
        tpms = [{"kind": "tpm", "ek_name": ek.hex(), "origin": "simulated"} for ek in self._eks]
        for key in [mp_key_record("imx8mm", fuses.srk_hash_of("lab")), *tpms]:
            keys.write_text(json.dumps(key))
            self.command("key", "import", str(keys))
        self.command("job", "create", "job-1", "--product", "camera", "--quota", str(quota))
        self.command("job", "approve", "job-1")
        self.anchors = self.print_anchors("--attest", "sim", "--seal", "sim", "--keys", "sealed")

    def print_anchors(self, *parts: str) -> str:
        """anchors.toml of the product's image for this kind of board."""
        board = (*parts, "--soc", "sim", "--sim-chip", "../chip", "--swversion", "1.2.3")
        return self.command("product", "anchors", "camera", *board)


@dataclass
class Ledger:
    """The server's books, as tests.line.Oem shows them."""

    connection: sqlite3.Connection
    authority: Any

    def count(self, table: str) -> int:
        """Rows of a table."""
        return int(self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def granted(self) -> int:
        """Boards counted under the job."""
        return int(self.connection.execute("SELECT granted FROM jobs").fetchone()[0])


@contextlib.contextmanager
def open_books(server: Mpserver) -> Iterator[Any]:
    """The books, after `mpserver ledger verify`."""
    state = open_state(server.directory)
    try:
        verify_ledger(state.connection, (state.authority.public_key("trust"),), state.realm, state.last_head.read())
        yield Ledger(state.connection, state.authority)
    finally:
        state.close()


class BoardRun:
    """A board whose agent is a process."""

    def __init__(self, folder: Path, server: Mpserver) -> None:
        self.folder, self.server = folder, server
        make_board(folder, BoardPlan(closed=True))
        disk = folder / "disk"
        for path in ("usr/lib/mpagent", "etc/mpagent"):
            (disk / path).mkdir(parents=True, exist_ok=True)
        (disk / "usr/lib/mpagent/anchors.toml").write_text(server.anchors)
        (disk / "etc/mpagent/mpagent.toml").write_text(f'server = "{server.address}"\n')

    @property
    def state(self) -> Path:
        """The state partition."""
        return self.folder / "disk/var/lib/mpagent"

    def command(self, *prefix: str) -> list[str]:
        """`mpagent enroll --once`."""
        return [*prefix, sys.executable, "-m", "mpagent", "--root", str(self.folder / "disk"), "enroll", "--once"]

    def enroll(self, *prefix: str) -> subprocess.CompletedProcess[str]:
        """One process, to its end."""
        return subprocess.run(self.command(*prefix), capture_output=True, text=True, check=False, timeout=ENROLL_MAX_S)

    def device(self) -> Device:
        """The same board, to look into with the power on."""
        image, choice = read_anchors(self.folder / "disk/usr/lib/mpagent/anchors.toml")
        line: Any = None
        choice = choice._replace(sim_chip=self.folder / "chip")
        return Device(self.folder, line, image, choice)

    def check(self) -> None:
        """Finished, on both sides: one key, one grant, one count, the ledger's values, nothing half-written."""
        device = self.device()
        record = device.record()
        assert record.stage == "done" and record.ueid is not None
        with open_books(self.server) as books:
            check_books(books, record.ueid)
            check_values(books, device, record.ueid)
        check_disk(device, record.generation)


def list_calls(log: Path, on: str = "") -> list[int]:
    """Ordinals, from 1, of the calls in a log of `watch` whose line holds `on`."""
    lines = [line for line in log.read_text(errors="replace").split("\n") if re.match(r"\d+\s+\w+\(", line)]
    return [number for number, line in enumerate(lines, 1) if on in line]


def find_child(process_id: int) -> int | None:
    """The first child of a process: what strace runs."""
    children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    return int(children[0]) if children else None
