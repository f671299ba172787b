"""The OEM's side of the demo: a server with a product, the keys of its parts and a job, set up by its own commands."""

import json
import secrets
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mpsim.demo.boards import PART
from mpsim.demo.children import Children, Outcome
from mpsim.demo.expecting import NotAsSaid, expect
from mpsim.demo.tap import Identity

PRODUCT: Final = "camera"
JOB: Final = "lot-1"
QUOTA: Final = 4
SOFTWARE: Final = ("--swname", "provisioning", "--swversion", "1.2.3")
SLOTS: Final = {"disk": "local", "cloud": "random", "licence": "static", "identity": "certificate"}
READY_MAX_S: Final = 15.0
_POLL_S: Final = 0.02


@dataclass(slots=True)
class Office:
    """One `mpserver` and its directory."""

    name: str
    directory: Path
    children: Children
    address: str = ""
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """What its commands said; the running server's own log is beside it."""
        return self.children.logs / f"{self.name}.log"

    @property
    def identity(self) -> Identity:
        """The server's own TLS certificate and key, lent to the proxies of the demo."""
        return Identity(self.directory / "keys/tls.crt", self.directory / "keys/tls.pem")

    def command(self, *words: str) -> Outcome:
        """`mpserver --dir DIR ...`. Raises NotAsSaid unless it ends with 0."""
        done = self.children.run(self.name, "mpserver", "--dir", str(self.directory), *words)
        expect(f"mpserver {' '.join(words[:2])}", 0, done.code, done.log)
        return done

    def ask(self, *words: str) -> Any:
        """The same with --json: its result."""
        return self.command(*words, "--json").read_json(f"mpserver {' '.join(words[:2])}")

    def set_up(self) -> None:
        """A fresh realm lab: keys, private CA, empty ledger."""
        self.command("init", "--realm", "lab")

    def register(self, file: Path, record: dict[str, object]) -> None:
        """`mpserver key import`."""
        file.write_text(json.dumps(record) + "\n", encoding="utf-8")
        self.command("key", "import", str(file))

    def print_anchors(self, **board: str) -> str:
        """anchors.toml of the product's provisioning image for a kind of board."""
        options = [word for name, value in board.items() for word in (f"--{name.replace('_', '-')}", value)]
        return self.command("product", "anchors", PRODUCT, *options, *SOFTWARE).output.decode()

    def run(self) -> None:
        """Serve, on the port it had before or on a free one; returns once it answers."""
        ready = self.directory.with_name(f"{self.name}.address")
        ready.unlink(missing_ok=True)
        port = self.address.rpartition(":")[2] or "0"
        log = f"{self.name}-run"
        command = ("mpserver", "--dir", str(self.directory), "run", "--port", port, "--ready-file", str(ready))
        self.process = self.children.start(log, *command)
        deadline = time.monotonic() + READY_MAX_S
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                came = f"exit code {self.process.poll()}"
                raise NotAsSaid("mpserver run", "an address to listen on", came, self.children.logs / f"{log}.log")
            time.sleep(_POLL_S)
        self.address = ready.read_text(encoding="utf-8").strip()

    def restart(self) -> None:
        """Stop it as systemd would, and start it again on its directory."""
        assert self.process is not None  # run comes first
        code = self.children.stop(self.process)
        expect("the server stops", 0, code, self.children.logs / f"{self.name}-run.log")
        self.run()


def read_class_key(children: Children, *options: str) -> dict[str, object]:
    """What the OEM has measured of its parts: `mpsim mp-key`."""
    done = children.run("office", "mpsim", "mp-key", "--part", PART, *options, "--json")
    expect("mpsim mp-key", 0, done.code, done.log)
    record: dict[str, object] = done.read_json("mpsim mp-key")
    return record


def write_product(mp_keys: list[str], srk_hash: str, ek_name: str) -> str:
    """The product file: a closed part, attested by MP or TPM, and one slot of every kind."""
    lines = [
        f'name = "{PRODUCT}"',
        'life_cycle = "closed"',
        'attesters = ["mp", "tpm"]',
        'grades = ["L"]',
        f"mp_keys = {json.dumps(mp_keys)}",
        f'srk_hashes = ["{srk_hash}"]',
        f'eks = ["{ek_name}"]',
        'minimum_software = "1.2"',
    ]
    for name, kind in SLOTS.items():
        lines += ["", "[[slot]]", f'name = "{name}"', f'kind = "{kind}"']
        if kind == "static":
            lines.append(f'value_hex = "{secrets.token_hex(24)}"')
    return "\n".join(lines) + "\n"
