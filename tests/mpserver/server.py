"""A real `mpserver run` on loopback, and a real board that enrolls at it."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import requests

from mpserver.cli import main
from mpsim import board, fuses
from mpwire import registry

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(str(ROOT / room) for room in ("agent", "server", "sim"))}
PRODUCT = """
name = "gateway"
attesters = ["mp"]
grades = ["L"]
mp_keys = ["MP"]
srk_hashes = ["SRK"]

[[slot]]
name = "disk"
kind = "local"

[[slot]]
name = "token"
kind = "random"

[[slot]]
name = "identity"
kind = "certificate"
"""
CBOR = {"content-type": registry.CONTENT_TYPE}


@dataclass
class Running:
    """One server process."""

    folder: Path
    state: Path
    process: "subprocess.Popen[bytes]"
    url: str
    more: Mapping[str, str] = field(default_factory=dict)
    """Environment of every process beside ours."""

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def log(self) -> list[dict[str, object]]:
        """What it logged so far."""
        return [json.loads(line) for line in (self.folder / "server.log").read_text().splitlines()]

    def context(self) -> ssl.SSLContext:
        """TLS as a device trusts it."""
        return ssl.create_default_context(cafile=str(self.state / "keys" / "root.crt"))

    def connect(self) -> ssl.SSLSocket:
        """An open TLS connection that has said nothing."""
        plain = socket.create_connection(("127.0.0.1", self.port))
        return self.context().wrap_socket(plain, server_hostname="localhost")

    def post(self, body: bytes, **headers: str) -> requests.Response:
        """One message."""
        roots = str(self.state / "keys" / "root.crt")
        return requests.post(self.url + registry.PATH, body, headers={**CBOR, **headers}, verify=roots, timeout=30)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def enroll(self, name: str = "board") -> tuple[int, str, float]:
        """`mpagent enroll --once` of a new board, or one that was flashed: exit code, what it said, seconds."""
        root = self.folder / name / "disk"
        if not root.exists():
            self.flash(name)
        started = time.monotonic()
        done = run_tool("mpagent", "--root", str(root), "enroll", "--once")
        return done.returncode, done.stdout + done.stderr, time.monotonic() - started

    def flash(self, name: str) -> None:
        """A board with its provisioning image."""
        folder = self.folder / name
        board.make_board(folder, board.BoardPlan(closed=True))
        root = folder / "disk"
        (root / "usr/lib/mpagent").mkdir(parents=True, exist_ok=True)
        (root / "etc/mpagent").mkdir(parents=True, exist_ok=True)
        anchors = run_tool(
            *("mpserver", "--dir", str(self.state), "product", "anchors", "gateway"),
            *("--sim-chip", str(folder / "chip"), "--swname", "provisioning", "--swversion", "1.0"),
            more=self.more,
        )
        (root / "usr/lib/mpagent/anchors.toml").write_text(anchors.stdout)
        (root / "etc/mpagent/mpagent.toml").write_text(f'server = "{self.url}"\n')


def run_tool(*words: str, more: Mapping[str, str] = MappingProxyType({})) -> "subprocess.CompletedProcess[str]":
    """A program of ours to its end."""
    settings = {**ENVIRONMENT, **more}
    return subprocess.run(
        [sys.executable, "-m", *words], env=settings, capture_output=True, text=True, timeout=60, check=False
    )


def set_up(folder: Path, quota: int = 4, token: Sequence[str] = ()) -> Path:
    """A state directory with one product and one open job; `token` is what init is told of one."""
    state, key = folder / "state", dict(board.mp_key_record("imx8mm", fuses.srk_hash_of("lab")))
    product = PRODUCT.replace("MP", str(key["mp_key_id"])).replace("SRK", str(key["srk_hash"]))
    (folder / "product.toml").write_text(product)
    (folder / "key.json").write_text(json.dumps(key))
    for words in (
        ["init", "--realm", "lab", *token],
        ["key", "import", str(folder / "key.json")],
        ["product", "add", str(folder / "product.toml")],
        ["job", "create", "job-1", "--product", "gateway", "--quota", str(quota)],
        ["job", "approve", "job-1"],
    ):
        assert main(["--dir", str(state), *words]) == 0
    return state


@contextmanager
def running(
    folder: Path,
    state: Path,
    output: int | BinaryIO = subprocess.DEVNULL,
    *,
    port: int = 0,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Running]:
    """Starts it, on any free port if none is named, waits until it answers, and ends it whatever the test did."""
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mpserver", "--dir", str(state), "run"),
                "--port",
                str(port),
                "--ready-file",
                str(ready),
            ],
            env={**ENVIRONMENT, **more},
            stdout=output,
            stderr=log,
        )
    try:
        ends = time.monotonic() + 20
        while not ready.exists():
            assert process.poll() is None and time.monotonic() < ends, (folder / "server.log").read_text()
            time.sleep(0.02)
        yield Running(folder, state, process, ready.read_text().strip(), more)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
