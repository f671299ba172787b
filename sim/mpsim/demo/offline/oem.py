"""The OEM's side without a line: the MP public key goes into the vault, bundles come out, receipts come back."""

import secrets
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mpsim.demo.boards import PART
from mpsim.demo.expecting import expect
from mpsim.demo.office import JOB, PRODUCT, Office

QUANTITY: Final = 3
SLOTS: Final = {
    "disk": "local",
    "cloud": "random",
    "licence": "static",
    "firmware": "file",
    "update-oem": "update-key",
}
FIRMWARE_BYTES: Final = 300_000
"""Several chunks of a bundle, and nothing to wait for."""
NEEDS_PERSON: Final = 77
KEY_BYTES: Final = 64


@dataclass(slots=True)
class Oem:
    """What the OEM has on its desk."""

    office: Office
    folder: Path
    mpk: str = ""
    """Id of the MP public key."""
    planted: str = field(default="", repr=False)
    """The key itself in hexadecimal, for the image in which it is left by mistake."""

    @property
    def job_secret(self) -> Path:
        """As it goes to the line, by another way than the bundle."""
        return self.folder / "job-secret.txt"

    def end_with(self, code: int, *words: str) -> Any:
        """The result of a command that must end with this code."""
        done = self.office.children.run(
            self.office.name, "mpserver", "--dir", str(self.office.directory), *words, "--json"
        )
        expect(f"mpserver {' '.join(words[:2])}", code, done.code, done.log)
        return done.read_json(f"mpserver {' '.join(words[:2])}")

    def hide_key(self) -> None:
        """Read from a part, imported once its fingerprint is confirmed, and wiped where it was read from."""
        done = self.office.children.run(self.office.name, "mpsim", "mp-key", "--part", PART, "--json", silent=True)
        expect("mpsim mp-key", 0, done.code, done.log)
        self.planted = str(done.read_json("mpsim mp-key")["public_key"])
        file = self.folder / "mp-key.json"
        file.write_bytes(done.output)
        self.mpk = str(self.office.ask("mp", "vault", "fingerprint", str(file))["fingerprint"])
        self.office.command("mp", "vault", "import", str(file), "--confirm", self.mpk, "--part", PART, "--wipe")
        expect("the key's file", False, file.exists(), self.office.log)

    def set_up(self) -> str:
        """Product, authority, job; the anchors of the provisioning image."""
        product = self.folder / "product.toml"
        product.write_text(_write_product(self.mpk), encoding="utf-8")
        self.office.command("product", "add", str(product))
        self.office.command("authority", "create", "oem", "--product", PRODUCT)
        self.office.command("job", "create", JOB, "--product", PRODUCT, "--quota", str(QUANTITY))
        self.office.command("job", "approve", JOB)
        for name, size in (("licence", 24), ("licence-2", 24), ("firmware", FIRMWARE_BYTES)):
            (self.folder / name).write_bytes(secrets.token_bytes(size))
        return self.office.print_anchors(attest="sim", seal="sim", keys="sealed", soc="sim", sim_chip="../chip")

    def make_bundle(self, name: str, version: int, *more: str) -> Path:
        """`mpserver bundle create`, and what verifies it."""
        path = self.folder / f"{name}.mpbundle"
        common = ("--product", PRODUCT, "--job", JOB, "--version", str(version), "--expires", "30", "--out", str(path))
        self.office.command("bundle", "create", *common, *more)
        self.office.command("bundle", "verify", str(path))
        return path

    def load_first(self, name: str, version: int) -> Path:
        """For every board of the lot; the first of them makes the job secret."""
        secret = "--job-secret-file" if self.job_secret.exists() else "--job-secret-out"
        values = [word for slot in ("licence", "firmware") for word in ("--value", f"{slot}={self.folder / slot}")]
        return self.make_bundle(name, version, "--quantity", str(QUANTITY), secret, str(self.job_secret), *values)

    def update(self) -> Path:
        """Under the oem's update key: one slot, another value."""
        value = f"licence={self.folder / 'licence-2'}"
        return self.make_bundle("update", 1, "--authority", "oem", "--only", "licence", "--value", value)


def _write_product(mpk: str) -> str:
    lines = [
        f'name = "{PRODUCT}"',
        'mp_use = "secret"',
        f'mpk = "{mpk}"',
        f'family = "{PART}"',
        'life_cycle = "closed"',
        'attesters = ["mp"]',
        'grades = ["L"]',
    ]
    for name, kind in SLOTS.items():
        lines += ["", "[[slot]]", f'name = "{name}"', f'kind = "{kind}"']
    return "\n".join(lines) + "\n"


def pack_image(disk: Path, out: Path, left_in: str | None) -> Path:
    """What is flashed, as an archive; `left_in` is the key that somebody's log of the bench has in it."""
    with tarfile.open(out, "w") as image:
        image.add(disk, arcname=".", filter=lambda one: None if one.name.startswith("./media") else one)
        if left_in is not None:
            log = out.with_suffix(".log")
            log.write_text(f"=> mfgprot pubk\n\nPublic key:\n{left_in.upper()}\n=> \n", encoding="ascii")
            image.add(log, arcname="./var/log/bench.log")
            log.unlink()
    return out


def cut(bundle: Path, out: Path) -> Path:
    """The medium was pulled while it was copied: all but the last bytes."""
    out.write_bytes(bundle.read_bytes()[:-1_000])
    return out
