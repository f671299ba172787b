"""Boards of tests/contract/rigs on a whole line: the real issuer hears what their real backends say."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpagent.hal.choose import BoardChoice
from mpagent.hal.ports import Board
from mpagent.shelf import DiskShelf
from tests.contract.rigs.rig import Rig
from tests.line import Device, Factory, Line

_UNUSED = BoardChoice(("sim",), ("sim",), ("sealed",), ("sim",))


class RiggedDevice(Device):
    """One board that a rig opens, and not the image's choice."""

    def __init__(self, factory: Factory, folder: Path, rig: Rig) -> None:
        super().__init__(folder, Line(factory.oem), factory.oem.image, _UNUSED)
        self.rig = rig
        factory.devices.append(self)

    @contextmanager
    def power(self) -> Iterator[Board]:
        """The rig's parts over this device's disk."""
        self.disk.prepare()
        with self.rig.open(DiskShelf(self.disk)) as board:  # type: ignore[arg-type]  # any shelf is one
            yield board
