"""The OEM of the boards in QEMU: a real `mpserver` on this machine, set up by its own commands, and a maker of TPMs."""

import json
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mpserver.authority import FileAuthority
from mpserver.keystore import Keystore
from mpserver.store.database import open_database
from mpsim.clock import SetClock
from mpsim.ek_authority import EkAuthority
from mpwire.codec import encode
from tests.mpserver.server import Running, run_tool, running

ADDRESS: Final = "10.0.2.101"
"""Where the guest's network has the server."""
PORT: Final = 8443
PRODUCT: Final = "gateway"
JOB: Final = "job-1"
SLOTS: Final = {"disk": "local", "cloud": "random", "licence": "static", "identity": "certificate"}
BOARD: Final = (
    "--attest",
    "tpm",
    "--keys",
    "tpm",
    "--soc",
    "none",
    "--tpm-tcti",
    "device:/dev/tpmrm0",
)


class Office:
    """Realm lab, one product for boards that a TPM attests, one open job; EKs count by their maker's certificate."""

    def __init__(self, folder: Path, quota: int) -> None:
        folder.mkdir(parents=True)
        self.folder, self.state = folder, folder / "state"
        self.maker = EkAuthority()
        self.licence = secrets.token_bytes(24)
        (folder / "product.toml").write_text(self._write_product())
        self.command("init", "--realm", "lab", "--name", ADDRESS)
        self.command("product", "add", str(folder / "product.toml"))
        self.command("job", "create", JOB, "--product", PRODUCT, "--quota", str(quota))
        self.command("job", "approve", JOB)

    def command(self, *words: str) -> str:
        """`mpserver`; its standard output."""
        done = run_tool("mpserver", "--dir", str(self.state), *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, *words: str) -> Any:
        """The same with --json."""
        return json.loads(self.command(*words, "--json"))

    def counted(self) -> int:
        """Boards that the job counts."""
        return int(self.ask("job", "show", JOB)["granted"])

    def print_anchors(self, name: str = "provisioning", version: str = "1.0", seal: str = "tpm") -> str:
        """The image's part of the product."""
        words = ("product", "anchors", PRODUCT, *BOARD, "--seal", seal, "--swname", name, "--swversion", version)
        return self.command(*words)

    def offer_image(self, file: Path, version: str) -> None:
        """What boards install next, from their Grant on."""
        table = self.command("product", "image", str(file), "--version", version)
        product = self.folder / "product.toml"
        product.write_text(f"{self._write_product()}\n{table}")
        self.command("product", "add", str(product))

    @contextmanager
    def serve(self, port: int = 0) -> Iterator[Running]:
        """`mpserver run`."""
        with running(self.folder, self.state, port=port) as server:
            yield server

    def secrets(self) -> dict[str, list[bytes]]:
        """Every value that boards were given, by slot, out of the ledger; certificates are no secrets."""
        authority = FileAuthority(Keystore(self.state / "keys"), "lab", SetClock(0))
        connection = open_database(self.state / "ledger.db")
        try:
            rows = connection.execute(
                "SELECT units.job, ueid, slot, version, wrapped FROM slot_values JOIN units USING (ueid)"
                " WHERE slot != 'identity'"
            ).fetchall()
        finally:
            connection.close()
        found: dict[str, list[bytes]] = {"licence": [self.licence]}
        for job, ueid, slot, version, wrapped in rows:
            value = authority.unwrap(job, wrapped, encode([ueid, slot, version])).reveal()
            found.setdefault(slot, []).append(value)
        return found

    def _write_product(self) -> str:
        root = x509.load_der_x509_certificate(self.maker.root_der()).public_bytes(Encoding.PEM).decode()
        lines = [f'name = "{PRODUCT}"', 'attesters = ["tpm"]', 'grades = ["K"]', 'life_cycle = "any"']
        lines.append(f'ek_roots = ["""\n{root}"""]')
        for name, kind in SLOTS.items():
            lines += ["", "[[slot]]", f'name = "{name}"', f'kind = "{kind}"']
            lines += [f'value_hex = "{self.licence.hex()}"'] if kind == "static" else []
        return "\n".join(lines) + "\n"


def find_port() -> int:
    """One that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
