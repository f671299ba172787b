"""A site on a power plug: every touch of disk, chip and counter can be the last."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mpagent.durable import Disk
from mpagent.hal.ports import Board
from mpagent.hal.shut import SecretAttester
from mpagent.hal.software import SealedKeyring
from mpagent.offline.pickup import pick_up
from mpagent.shelf import DiskShelf
from mpsim.backend import open_class_key, open_sealer, open_soc
from mpsim.board import power_cycle
from mpsim.counter import SoftCounter
from tests.offline.bench import Site
from tests.power.plug import Plug, PluggedDisk, PluggedPart

CHOSEN = {"soc": "sim", "attest": "sim", "seal": "sim", "keys": "sealed"}


@dataclass
class PluggedSite(Site):
    """`live` is one `mpagent enroll --once`."""

    plug: Plug = field(default_factory=Plug)
    counter: SoftCounter | None = None

    @property
    def disk(self) -> Disk:
        return PluggedDisk(super().disk, self.plug)

    @contextmanager
    def power(self) -> Iterator[Board]:
        self.disk.prepare()
        chip, touch = self.folder / "chip", self.plug.touch
        sealer = open_sealer(chip, touch)
        counter = None if self.counter is None else PluggedPart(self.counter, "counter", self.plug)
        yield Board(
            open_soc(chip, touch),
            SecretAttester(),
            sealer,
            SealedKeyring(sealer, DiskShelf(self.disk)),
            counter=counter,  # type: ignore[arg-type]  # every verb goes through
            class_key=open_class_key(chip, touch),
            chosen=CHOSEN,
        )

    def live(self, pull_at: int | None) -> bool:
        """Whether this process reached the end; otherwise its power was cut at that touch."""
        self.plug = Plug(pull_at)
        try:
            with self.power() as board:
                pick_up(self.parts(board))
        except BaseException:
            if not self.plug.pulled:
                raise
        finished = not self.plug.pulled
        self.plug = Plug()
        power_cycle(self.folder / "chip")
        return finished
