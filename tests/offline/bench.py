"""Boards that are provisioned by bundles: simulated chips, real disks, the agent's own parts over them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpagent.durable import Disk
from mpagent.hal.choose import BoardChoice, open_board
from mpagent.hal.ports import Board
from mpagent.image import Image, WantedSlot
from mpagent.journal import Journal
from mpagent.latch import Latch
from mpagent.offline.apply import Tools
from mpagent.offline.files import read_file, read_note
from mpagent.offline.jobsecrets import JobSecrets, Reader
from mpagent.offline.pickup import Outcome, Parts, Result, apply_one, pick_up, try_one
from mpagent.record import Record
from mpagent.shelf import DiskShelf
from mpagent.vault import Vault
from mpsim.board import BoardPlan, make_board
from mpsim.fuses import read_uid
from mpsim.silicon import Chip
from mpwire.secret import Secret
from tests.offline.maker import CLASS_POINT, NOW, Item, Maker, UpdateAuthority

API_KEY = bytes(range(100, 132))
MODEL = bytes(range(256)) * 700
"""Three chunks of a file, the last one short."""
OEM, OWNER, SERVICE = (UpdateAuthority(name) for name in ("oem", "owner", "service"))
SLOTS = (
    WantedSlot("disk", "local", "sealed"),
    WantedSlot("api-key", "static", "sealed"),
    WantedSlot("model", "file", "sealed"),
    WantedSlot("update-oem", "update-key", "sealed"),
    WantedSlot("update-owner", "update-key", "sealed"),
)
ITEMS = (
    Item("api-key", "static", API_KEY),
    Item("model", "file", MODEL),
    OEM.item(),
    OWNER.item(),
)
"""What a first loading of that image brings."""


@dataclass
class Site:
    """One board, its disk, and the medium that bundles come on."""

    folder: Path
    maker: Maker
    plan: BoardPlan = field(default_factory=lambda: BoardPlan(closed=True))
    slots: tuple[WantedSlot, ...] = SLOTS
    secrets: tuple[Reader, ...] = ()
    said: list[str] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    """Of the image."""

    def __post_init__(self) -> None:
        make_board(self.folder, self.plan)
        self.medium = self.folder / "medium"
        self.receipts = self.medium / "receipts"
        self.receipts.mkdir(parents=True)

    @property
    def image(self) -> Image:
        image = Image(
            realm="lab",
            product="camera",
            roots=(self.maker.root.public_key(),),
            tls_roots=(),
            slots=self.slots,
            build_time=NOW - 86_400,
            mp_use="secret",
        )
        return image._replace(**self.changes)

    @property
    def choice(self) -> BoardChoice:
        return BoardChoice(("sim",), ("sim",), ("sealed",), ("sim",), sim_chip=self.folder / "chip", mp_secret=True)

    @property
    def disk(self) -> Disk:
        return Disk(self.folder / "disk" / "var/lib/mpagent")

    @property
    def uid(self) -> bytes:
        uid = read_uid("imx8mm", Chip(self.folder / "chip").read_fuses())
        assert uid is not None
        return uid

    @contextmanager
    def power(self) -> Iterator[Board]:
        self.disk.prepare()
        with open_board(self.choice, self.folder / "disk", DiskShelf(self.disk)) as board:
            yield board

    def parts(self, board: Board) -> Parts:
        vault = Vault(self.disk, board.sealer, board.counter, os.urandom)
        secrets = JobSecrets(self.secrets)
        tools = Tools(board, vault, self.disk, self.image, secrets, os.urandom, "0.1.0", self.said.append)
        journal = Journal(self.disk, self.said.append)
        return Parts(journal, Latch(self.disk), tools, (self.medium,), self.receipts)

    def put(self, raw: bytes, name: str = "a.mpbundle") -> Path:
        """A bundle on the medium."""
        path = self.medium / name
        path.write_bytes(raw)
        return path

    def apply(self, raw: bytes, name: str = "one.bin") -> Result:
        """`mpagent offline apply`."""
        path = self.put(raw, name)
        with self.power() as board:
            return apply_one(self.parts(board), path)

    def try_(self, raw: bytes) -> Outcome:
        """`mpagent offline apply --dry-run`."""
        path = self.put(raw, "one.bin")
        with self.power() as board:
            return try_one(self.parts(board), self.record(), path)

    def enroll(self) -> Result:
        """`mpagent enroll --once`."""
        with self.power() as board:
            return pick_up(self.parts(board))

    def record(self) -> Record:
        return Journal(self.disk, self.said.append).peek()[0]

    def values(self) -> dict[str, bytes]:
        """Every slot, opened now; of a file all of it."""
        record = self.record()
        assert record.ueid is not None
        with self.power() as board:
            slots = self.parts(board).tools.vault.read(record.ueid, record.generation)
        return {
            one.name: b"".join(read_file(self.disk, read_note(one))) if one.kind == "file" else one.value.reveal()
            for one in slots
        }

    def kept(self, *but: str) -> dict[str, bytes]:
        """Every file of the state partition, for a test that says nothing changed."""
        folder = self.disk.folder
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.relative_to(folder).as_posix().startswith(but or ("\0",))
        }

    def exported(self) -> list[str]:
        return sorted(path.name for path in self.receipts.iterdir())


def find_leaks(everything: bytes, *secrets: bytes) -> list[str]:
    """Which of these, in any form that a careless print gives them, stands in `everything`."""
    found = []
    for secret in secrets:
        halves = [secret[:16], secret[-16:]] if len(secret) >= 32 else [secret]
        forms: list[Callable[[bytes], bytes]] = [
            bytes,
            lambda one: one[::-1],
            lambda one: one.hex().encode(),
            lambda one: one.hex().upper().encode(),
            lambda one: repr(one)[2:-1].encode(),
        ]
        found += [secret[:4].hex() for half in halves for form in forms if form(half) in everything]
    return found


def list_hidden(maker: Maker, bundle_keys: tuple[Secret, ...] = ()) -> tuple[bytes, ...]:
    """What no disk and no log may hold: the class key, its digests, what is extracted from it, keys of a bundle."""
    import hashlib

    point = CLASS_POINT
    return (
        point,
        point[:32],
        point[32:],
        hashlib.sha256(point).digest(),
        hashlib.sha256(b"\x04" + point).digest(),
        maker.prk.reveal(),
        *(one.reveal() for one in bundle_keys),
    )
