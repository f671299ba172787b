"""The issuer of the bench: a state directory made as `mpserver` makes it, and the process that serves it.

`python issuer.py serve DIR READY` is what `mpserver run` runs; `bare` instead of `serve` is the same listener and
certificate with a handler that does nothing.
"""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from granian.constants import HTTPModes
from granian.server.embed import Server

from mpissuer.ports import RegisteredKey
from mpserver import running
from mpserver.anchors import BoardLists, write_anchors
from mpserver.authority import make_keystore
from mpserver.keystore import TLS
from mpserver.office import JobPlan, Office
from mpserver.state import Places, open_state
from mpserver.store.database import make_database
from mpsim import fuses, silicon
from mpwire import mp, registry

QUOTA: Final = 1_000_000
START_MAX_S: Final = 20.0
PRODUCT: Final = """
name = "camera"
attesters = [ATTESTER]
grades = ["L"]
life_cycle = "closed"
mp_keys = ["MP_KEY"]
eks = [EKS]
minimum_software = "1.2"

[[slot]]
name = "disk"
kind = "local"

[[slot]]
name = "cloud"
kind = "random"

[[slot]]
name = "licence"
kind = "static"
value_hex = "c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffee"

[[slot]]
name = "identity"
kind = "certificate"
"""
BOARDS: Final = {
    "sim": BoardLists("sim", "sim", "sealed", "sim", sim_chip="../chip"),
    "tpm": BoardLists("tpm", "tpm", "tpm", "sim", tpm_tcti="TCTI", sim_chip="../chip"),
}
SLOTS: Final = (("disk", "local"), ("cloud", "random"), ("licence", "static"), ("identity", "certificate"))


def class_point() -> bytes:
    """What every closed, simulated imx8mm of the lab signs with."""
    return b"\x04" + silicon.class_public_key("imx8mm", fuses.srk_hash_of("lab"))


@dataclass(frozen=True, slots=True)
class Anchors:
    """What an image of this issuer pins."""

    root: bytes
    grant_key: bytes
    tls_root: str
    files: dict[str, str]
    """anchors.toml of a board, by its attester: "sim", "tpm"; TCTI stands where the TPM's address has to."""


def make_state(folder: Path, eks: tuple[bytes, ...] = ()) -> Anchors:
    """A new issuer with one product under one open job; `eks` admits boards with these TPMs too."""
    folder.mkdir(mode=0o700, parents=True)
    places, now = Places(folder), int(time.time())
    make_keystore(places.keys, "lab", (), now)
    make_database(places.ledger, {"realm": "lab"})
    state = open_state(folder)
    try:
        office, point = Office(state), class_point()
        office.import_key(RegisteredKey(mp.key_id(point), "mp", point, "simulated", "sign", "imx8mm"))
        for ek in eks:
            office.import_key(RegisteredKey(ek, "tpm", None, "simulated"))
        product, _ = office.add_product(_fill_product(eks))
        office.create_job(JobPlan("job-1", "camera", QUOTA))
        office.approve_job("job-1")
        authority = state.authority
        pem = state.keystore.read_public("root.crt").decode()
        software = {"swname": "provisioning", "swversion": "1.2.3"}
        files = {name: write_anchors(state, product, lists, software) for name, lists in BOARDS.items()}
        return Anchors(authority.public_key("trust"), authority.public_key("grant"), pem, files)
    finally:
        state.close()


def _fill_product(eks: tuple[bytes, ...]) -> str:
    return (
        PRODUCT.replace("ATTESTER", '"mp", "tpm"' if eks else '"mp"')
        .replace("MP_KEY", mp.key_id(class_point()).hex())
        .replace("EKS", ", ".join(f'"{ek.hex()}"' for ek in eks))
    )


class Running:
    """One serving process; `stop` gives what it said at its end."""

    def __init__(self, verb: str, folder: Path) -> None:
        ready = folder / f"ready-{verb}"
        ready.unlink(missing_ok=True)
        self._log = open(folder / f"{verb}.log", "w+b")  # noqa: SIM115  # closed by stop
        command = [sys.executable, __file__, verb, str(folder), str(ready)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self._log)
        deadline = time.monotonic() + START_MAX_S
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                raise RuntimeError(f"the server did not start: {self._log.read().decode(errors='replace')[-2000:]}")
            time.sleep(0.02)
        self.url = ready.read_text(encoding="utf-8").strip()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self.url.rpartition(":")[2])

    def stop(self) -> dict[str, Any]:
        """SIGTERM; the fields of the line `stopped`, {} where there is none."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.startswith("{")]
        self._log.close()
        last: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return last if last.get("event") == "stopped" else {}


def serve(folder: Path, ready: Path) -> None:
    """The product's own way to run."""
    state = open_state(folder)
    try:
        running.run(state, running.Address("127.0.0.1", 0), ready)
    finally:
        state.close()


def serve_bare(folder: Path, ready: Path) -> None:
    """Read the body and answer as many bytes as an issuer would."""
    keys = Places(folder).keys
    answers = {registry.HELLO: bytes(112), registry.PROOF: bytes(2_100)}

    class Bare:
        async def __rsgi__(self, scope: Any, proto: Any) -> None:
            body = await proto()
            answer = answers.get(body[2], bytes(900)) if body[:1] != b"\xd2" else bytes(900)
            proto.response_bytes(200, [("content-type", registry.CONTENT_TYPE)], answer)

    async def run() -> None:
        port = running.take_port(running.Address("127.0.0.1", 0))
        server = Server(
            Bare(), address="127.0.0.1", port=port, http=HTTPModes.http1, websockets=False, log_enabled=False,
            backlog=running.BACKLOG, backpressure=running.BACKPRESSURE,
            ssl_cert=keys / f"{TLS}.crt", ssl_key=open_state(folder).keystore.key_file(TLS),
        )  # fmt: skip
        serving = asyncio.create_task(server.serve())
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, server.stop)
        while not await asyncio.to_thread(_listens, port):
            await asyncio.sleep(0.02)
        ready.write_text(f"https://127.0.0.1:{port}\n", encoding="utf-8")
        await serving

    asyncio.run(run())


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    {"serve": serve, "bare": serve_bare}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
