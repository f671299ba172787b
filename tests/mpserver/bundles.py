"""A product whose boards are served by bundles, at an OEM's desk; and a board that opens what the OEM made."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from mpserver.mpuse import name_key
from mpsim import board, fuses
from mpwire import bundle as wire
from mpwire import bundlekeys, hkdf, stream
from mpwire.mpk import HiddenMpKey
from mpwire.secret import Secret
from tests.mpserver.desk import Desk

RECORD: Final = board.mp_key_record("imx8mm", fuses.srk_hash_of("lab"))
KEY: Final = bytes.fromhex(RECORD["public_key"])
NAME: Final = name_key(KEY).hex()
STATIC: Final = bytes.fromhex("5ec4e7001122334455667788")
SRK: Final = fuses.srk_hash_of("lab").hex()
PRODUCT: Final = f"""
name = "camera"
attesters = ["mp"]
grades = ["L"]
mp_use = "secret"
mpk = "{NAME}"
family = "imx8mm"
srk_hashes = ["{SRK}"]

[[slot]]
name = "disk"
kind = "local"

[[slot]]
name = "cloud"
kind = "random"

[[slot]]
name = "licence"
kind = "static"
value_hex = "{STATIC.hex()}"
"""
FILE_SLOT: Final = '\n[[slot]]\nname = "firmware"\nkind = "file"\ndestination = "plain"\n'


def update_slot(name: str) -> str:
    """Of an update authority, for the product file."""
    return f'\n[[slot]]\nname = "update-{name}"\nkind = "update-key"\n'


class Lot(Desk):
    """An OEM with a key in the vault, a product, and an open job for ten boards."""

    def __init__(
        self, folder: Path, capsys: pytest.CaptureFixture[str], product: str = PRODUCT, init: Sequence[str] = ()
    ) -> None:
        super().__init__(folder, capsys)
        assert self.run("init", "--realm", "lab", *init)[0] == 0
        self.read("mp", "vault", "import", self.write("key.json", json.dumps(RECORD)), "--confirm", NAME, "--wipe")
        self.read("product", "add", self.write("product.toml", product))
        self.read("job", "create", "lot-1", "--product", "camera", "--quota", "10")
        self.read("job", "approve", "lot-1")

    def words(self, *more: str, version: int = 1, out: str = "a.bundle") -> tuple[str, ...]:
        """A command that makes a bundle; what is said twice counts the second time."""
        told = ("--product", "camera", "--job", "lot-1", "--version", str(version), "--expires", "30")
        return ("bundle", "create", *told, "--out", str(self.folder / out), *more)

    def make(self, *more: str, version: int = 1, out: str = "a.bundle") -> Path:
        """The bundle's file."""
        shown = self.read(*self.words(*more, version=version, out=out))
        assert shown["made"]
        return self.folder / out

    def left(self) -> tuple[set[str], int]:
        """Names in the folder, and entries of the ledger."""
        return {path.name for path in self.folder.iterdir()}, len(self.read("ledger", "show"))


def open_as_board(
    path: Path, expand: bundlekeys.Expand | None = None, uid: bytes | None = None, job_secret: Secret | None = None
) -> dict[str, bytes]:
    """Values by slot, of the components for this board: as its chip opens them, by the key that it makes anew."""
    prk = HiddenMpKey(KEY).extract()
    file = io.BytesIO(path.read_bytes())
    frame = wire.read_bundle(file)
    wire.check_payload(file, frame, lambda done, end: None)
    kek = bundlekeys.make_kek(frame.bundle, expand or (lambda info: hkdf.expand(prk, info)), job_secret)
    bundlekeys.check_key(frame.bundle, kek)
    found: dict[str, bytes] = {}
    for at, one in wire.find_components(frame.bundle, uid):
        file.seek(frame.places[at].offset)
        key = bundlekeys.make_content_key(kek, at, one.uid)
        found[one.name] = b"".join(stream.open_chunks(key, file.read, one.size))
    return found


def read_frame(path: Path) -> wire.Frame:
    """Its manifest."""
    with path.open("rb") as file:
        return wire.read_bundle(file)


def shown(value: Any) -> str:
    """All of an output as text."""
    return json.dumps(value)
