"""A board as its operator has it: a disk with an image, and the real program."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mpagent.image import WantedSlot
from mpsim.board import BoardPlan, make_board
from tests.offline.bench import SLOTS
from tests.offline.maker import NOW, Maker

STATE = "var/lib/mpagent"


@dataclass
class Shell:
    """One board; `media` is what its settings name for bundles."""

    folder: Path
    maker: Maker
    slots: tuple[WantedSlot, ...] = SLOTS
    more: str = ""
    """Of anchors.toml, before [board]."""
    plan: BoardPlan = field(default_factory=lambda: BoardPlan(closed=True))

    def __post_init__(self) -> None:
        make_board(self.folder, self.plan)
        self.disk = self.folder / "disk"
        self.media = self.disk / "media"
        self.receipts = self.disk / "out"
        for folder in (self.media, self.receipts):
            folder.mkdir()
        self.write_image()
        self.set('bundle = "/media"\nreceipts = "/out"\n')

    def set(self, text: str) -> None:
        """What the factory sets."""
        (self.disk / "etc/mpagent/mpagent.toml").write_text(text)

    def write_image(self, more: str = "", tail: str = "") -> None:
        slots = "".join(
            f'[[slot]]\nname = "{one.name}"\nkind = "{one.kind}"\ndestination = "{one.destination}"\n'
            for one in self.slots
        )
        (self.disk / "usr/lib/mpagent/anchors.toml").write_text(
            f'realm = "lab"\nproduct = "camera"\nbuild_time = {NOW - 86_400}\nmp_use = "secret"\n'
            f'roots = ["{self.maker.root.public_key().hex()}"]\n{self.more}{more}'
            '[board]\nattest = "sim"\nseal = "sim"\nkeys = "sealed"\nsoc = "sim"\nsim_chip = "../chip"\n' + slots + tail
        )

    def put(self, raw: bytes, name: str = "a.mpbundle") -> Path:
        path = self.media / name
        path.write_bytes(raw)
        return path

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "mpagent", "--root", str(self.disk), *words]

    def run(
        self,
        *words: str,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 60,
    ) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [*prefix, *self.command(*words)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            env={**os.environ, **(environment or {})},
        )

    def state(self) -> dict[str, bytes]:
        folder = self.disk / STATE
        return {
            str(one.relative_to(folder)): one.read_bytes()
            for one in sorted(folder.rglob("*"))
            if one.is_file() and one.name != "lock"
        }

    def everything(self) -> bytes:
        """Every byte of the board's disk but the image, its settings and the media."""
        wanted = (self.disk / "var", self.disk / "run", self.receipts)
        return b"".join(one.read_bytes() for top in wanted for one in sorted(top.rglob("*")) if one.is_file())
