"""What the questions of `mpagent doctor` start from, and parts opened so that asking changes nothing."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mpagent.compose import Device, Places
from mpagent.durable import Disk
from mpagent.errors import HardwareGone
from mpagent.hal.choose import Bench, BoardChoice, open_bench, open_board
from mpagent.hal.soc import Identity, OpteeOcotp, open_imx, read_identity
from mpagent.shelf import DiskShelf

if TYPE_CHECKING:
    from mpagent.hal.ports import Board
    from mpagent.hal.soc import ImxSoc

_NO_CHOICE: Final = BoardChoice(attest=(), seal=(), keys=(), soc=())
CALL_S: Final = 3.0
"""One call to OP-TEE; what waits longer waits for a tee-supplicant that is not there."""


class DraftDisk(Disk):
    """A state folder that is only read: what is written stays in memory, and damage stays where it is."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.drafts: Final[dict[str, bytes]] = {}

    def read(self, name: str, high: int) -> bytes | None:
        """See Disk.read."""
        return self.drafts[name] if name in self.drafts else super().read(name, high)

    def write(self, name: str, content: bytes) -> None:
        """Into memory."""
        self.drafts[name] = content

    def remove(self, name: str) -> None:
        """From memory."""
        self.drafts.pop(name, None)

    def set_aside(self, name: str) -> str:
        """Not done: `enroll` will do it."""
        return f"{name}.damaged-N by the next enroll"


class Desk:
    """One examination."""

    def __init__(self, root: Path, device: Device | None, *, production: bool = False) -> None:
        """`device` is None where the image has no readable anchors: the hardware is looked at all the same.

        `production`: also hold the image against what a production image must not offer.
        """
        self.root: Final = root
        self.device: Final = device
        self.production: Final = production
        self.disk: Final = DraftDisk(Places(root).state)

    @property
    def choice(self) -> BoardChoice:
        """Of the image; without one, that of a board about which nothing is known."""
        return _NO_CHOICE if self.device is None else self.device.choice

    @property
    def node(self) -> Path:
        """OP-TEE's device node."""
        return self.root / self.choice.optee_node

    def names(self, sort: str) -> tuple[str, ...]:
        """Backends the image names for "soc", "attest", "seal", "keys" or "counter"; none without an image."""
        return tuple(getattr(self.choice, sort))

    def asks(self, sorts: Iterable[str], names: Collection[str]) -> bool:
        """Whether the image names one of these backends; without an image anything may be asked for."""
        return self.device is None or any(name in names for sort in sorts for name in self.names(sort))

    def wants(self, sort: str, name: str) -> bool:
        """Whether the image cannot do without this backend: it names no other of this sort."""
        return self.names(sort) == (name,)

    @cached_property
    def identity(self) -> Identity:
        """The i.MX here. Raises HardwareAbsent, HardwareGone."""
        return read_identity(self.root)

    @property
    def part(self) -> Identity | None:
        """The same, or None where there is none that we know."""
        try:
            return self.identity
        except HardwareGone:
            return None

    def open_imx(self) -> "ImxSoc":
        """Its facts by kernel and OP-TEE, without a witness. Raises as `identity`."""
        return open_imx(self.root, OpteeOcotp(self.node, CALL_S))

    @contextmanager
    def open_bench(self) -> Iterator[Bench]:
        """The image's parts, each opened when it is asked for."""
        with open_bench(self.choice, self.root, DiskShelf(self.disk)) as bench:
            yield bench

    @contextmanager
    def open_board(self) -> Iterator["Board"]:
        """The board as an enrollment would compose it."""
        with open_board(self.choice, self.root, DiskShelf(self.disk)) as board:
            yield board
