"""Turns configuration into real parts: the one place that knows paths, backends and the system's clock."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mpagent import lock
from mpagent.anchors import read_anchors
from mpagent.belonging import NAMED_BY_FUSES
from mpagent.durable import Disk
from mpagent.errors import ConfigWrong
from mpagent.hal.choose import BoardChoice
from mpagent.hal.ports import Board
from mpagent.image import Image
from mpagent.journal import Journal
from mpagent.latch import Latch
from mpagent.link import Route
from mpagent.record import Record
from mpagent.settings import Settings, read_settings
from mpagent.shelf import DiskShelf
from mpagent.vault import Vault


class Places(NamedTuple):
    """Every path of a device, below one root."""

    root: Path

    @property
    def anchors(self) -> Path:
        """Trust and choice, covered by verity."""
        return self.root / "usr/lib/mpagent/anchors.toml"

    @property
    def settings(self) -> Path:
        """What the factory may set; drop-ins beside it."""
        return self.root / "etc/mpagent/mpagent.toml"

    @property
    def state(self) -> Path:
        """Record, vault, shelf, latch and lock: outside any image."""
        return self.root / "var/lib/mpagent"

    @property
    def run(self) -> Path:
        """How the last run of this boot stands, for everybody to read."""
        return self.root / "run/mpagent"


class Device(NamedTuple):
    """A configured device whose chips are not open yet."""

    places: Places
    image: Image
    choice: BoardChoice
    settings: Settings
    disk: Disk
    latch: Latch

    @contextmanager
    def open_board(self) -> Iterator[Board]:
        """The chips, for this block."""
        from mpagent.hal.choose import open_board  # hardware libraries are imported by the backend in use

        attest = self.journal(lambda _text: None).peek()[0].chosen.get("attest")
        if self.choice.mp_secret:
            attest = attest or self.choice.attest[0]
        if self.image.phase == "final" and attest in NAMED_BY_FUSES:
            with self._open_shut_board(attest) as board:
                yield board
            return
        with open_board(self.choice, self.places.root, DiskShelf(self.disk)) as board:
            yield board

    @contextmanager
    def _open_shut_board(self, attest: str) -> Iterator[Board]:
        """All but the attester, which this production image shuts; the board is named by its fuses."""
        from mpagent.hal.choose import open_bench
        from mpagent.hal.shut import ShutAttester

        with open_bench(self.choice, self.places.root, DiskShelf(self.disk)) as bench:
            (soc, soc_part), (seal, sealer), (keys, keyring) = bench.soc, bench.sealer, bench.keyring
            chosen, counter = {"soc": soc, "attest": attest, "seal": seal, "keys": keys}, None
            if self.choice.counter:
                chosen["counter"], counter = bench.counter
            yield Board(soc_part, ShutAttester(), sealer, keyring, counter=counter, chosen=chosen)

    @contextmanager
    def hold(self, command: str) -> Iterator[None]:
        """The state folder for this block, cleaned of what an interrupted write left. Raises Busy."""
        with lock.hold(self.places.state, command):
            self.disk.prepare()
            yield

    def journal(self, report: Callable[[str], None]) -> Journal:
        """The record's keeper."""
        return Journal(self.disk, report)

    def vault(self, board: Board) -> Vault:
        """The secrets, under this board's sealer."""
        return Vault(self.disk, board.sealer, board.counter, os.urandom)

    def below(self, path: Path) -> Path:
        """A path of the settings, which are from the root on."""
        return self.places.root / path.relative_to("/")

    def route(self, record: Record) -> Route:
        """Where the issuer is, and the time its certificates are held against. Raises ConfigWrong without a server."""
        settings, image = self.settings, self.image
        if settings.server is None:
            raise ConfigWrong(f'{self.places.settings}: no server is set; write server = "https://HOST:PORT"')
        return Route(settings.server, image.tls_roots, max(image.build_time, record.time_floor), settings.proxy)


def read_device(root: Path) -> Device:
    """Read all configuration once. Raises ConfigWrong naming file and line."""
    places = Places(root)
    image, choice = read_anchors(places.anchors)
    disk = Disk(places.state)
    return Device(places, image, choice, read_settings(places.settings), disk, Latch(disk))
