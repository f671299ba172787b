"""The power plug of a board under test: it counts every touch of disk, link and chip, and is pulled at one of them.

A cut is a BaseException, so that no `except Exception` of the product lives through it. A board whose plug was pulled
touches nothing any more: what its clean-up tries raises again. Reads are touches too; they change nothing, but a
board that dies there must find its way back as from anywhere else.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from mpagent.durable import Disk
from mpagent.hal.choose import open_board
from mpagent.hal.ports import Board
from mpagent.hal.software import SealedKeyring
from mpagent.record import Record
from mpagent.runner import run
from mpagent.shelf import DiskShelf
from mpsim.backend import open_attester, open_sealer, open_soc
from mpsim.board import power_cycle
from tests.line import Device, Line


class Cut(BaseException):
    """The power is gone."""


@dataclass
class Plug:
    """Pulled at touch number `pull_at`, counted from 1; None: never."""

    pull_at: int | None = None
    when_pulled: Callable[[], None] = lambda: None
    touches: list[str] = field(default_factory=list)
    pulled: bool = False

    def touch(self, where: str) -> None:
        """Raises Cut when this is the one, and ever after."""
        self.touches.append(where)
        if len(self.touches) == self.pull_at:
            self.pulled = True
            self.when_pulled()
        if self.pulled:
            raise Cut(where)

    @property
    def is_next(self) -> bool:
        """Whether the next touch is the last one: for what is left half-done there."""
        return not self.pulled and len(self.touches) + 1 == self.pull_at


class PluggedDisk(Disk):
    """A state partition that also dies in the middle of a write: with half a temporary file, and with a whole one."""

    def __init__(self, plain: Disk, plug: Plug) -> None:
        super().__init__(plain.folder)
        self._plug = plug

    def prepare(self) -> None:
        with self._touched("prepare"):
            super().prepare()

    def read(self, name: str, high: int) -> bytes | None:
        with self._touched(f"read {name}"):
            return super().read(name, high)

    def write(self, name: str, content: bytes) -> None:
        with self._touched(f"write {name}"):
            self._leave_temporary(name, content[: len(content) // 2], "half")
            self._leave_temporary(name, content, "unrenamed")
            super().write(name, content)

    def stage(self, name: str, chunks: Iterable[bytes]) -> None:
        """Dies between any two chunks as well, with what is written by then."""

        def touched() -> Iterator[bytes]:
            for chunk in chunks:
                self._plug.touch(f"stage {name}:chunk")
                yield chunk

        with self._touched(f"stage {name}"):
            super().stage(name, touched())

    def publish(self, name: str) -> None:
        with self._touched(f"publish {name}"):
            super().publish(name)

    def open(self, name: str, *, staged: bool = False) -> BinaryIO:
        with self._touched(f"open {name}"):
            return super().open(name, staged=staged)

    def remove(self, name: str) -> None:
        with self._touched(f"remove {name}"):
            super().remove(name)

    def names(self, folder: str) -> tuple[str, ...]:
        with self._touched(f"names {folder}"):
            return super().names(folder)

    def set_aside(self, name: str) -> str:
        with self._touched(f"set-aside {name}"):
            return super().set_aside(name)

    @contextmanager
    def _touched(self, verb: str) -> Iterator[None]:
        self._plug.touch(f"{verb}:before")
        yield
        self._plug.touch(f"{verb}:after")

    def _leave_temporary(self, name: str, content: bytes, how: str) -> None:
        if self._plug.is_next:
            path = self.folder / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.with_name(f".{path.name}.new").write_bytes(content)
        self._plug.touch(f"write {name}:{how}")


class PluggedLine:
    """mpagent.link.Link: dies before a byte is sent, and after the server heard and answered."""

    def __init__(self, line: Line, plug: Plug) -> None:
        self._line, self._plug = line, plug

    def ask(self, outbox: bytes) -> bytes:
        self._plug.touch("ask:before")
        answer = self._line.ask(outbox)
        self._plug.touch("ask:after")
        return answer


class PluggedPart:
    """Any port of a board: each call is touched before and after. Keys that a keyring gives are parts as well."""

    def __init__(self, part: Any, name: str, plug: Plug) -> None:
        self._part, self._name, self._plug = part, name, plug

    def __getattr__(self, verb: str) -> Any:
        value = getattr(self._part, verb)
        if not callable(value):
            return value

        def call(*arguments: Any, **named: Any) -> Any:
            self._plug.touch(f"{self._name} {verb}:before")
            made = value(*arguments, **named)
            self._plug.touch(f"{self._name} {verb}:after")
            return PluggedPart(made, f"key {arguments[0]}", self._plug) if verb == "find_or_make" else made

        return call


Runner = Callable[[Any], Record]


@dataclass
class PluggedDevice(Device):
    """A board on a plug. `live` is one process of the agent; the next one begins on the same disk and chip."""

    plug: Plug = field(default_factory=Plug)
    runner: Runner = run

    @property
    def disk(self) -> Disk:
        return PluggedDisk(super().disk, self.plug)

    @contextmanager
    def power(self) -> Iterator[Board]:
        self.disk.prepare()
        with self._open() as board:
            yield board

    def parts(self, board: Board) -> Any:
        line, self.line = self.line, PluggedLine(self.line, self.plug)  # type: ignore[assignment]  # ask is all
        try:
            return super().parts(board)
        finally:
            self.line = line

    def live(self, pull_at: int | None) -> bool:
        """Whether this process reached the end; otherwise its power was cut at that touch."""
        self.plug = Plug(pull_at, self.lose_power)
        try:
            with self.power() as board:
                self.runner(self.parts(board))
        except BaseException:
            if not self.plug.pulled:
                raise
        finished = not self.plug.pulled
        self.plug = Plug()
        self.find_power()
        return finished

    def lose_power(self) -> None:
        """At the very touch."""

    def find_power(self) -> None:
        """Before the next process."""
        assert self.choice.sim_chip is not None
        power_cycle(self.choice.sim_chip)

    @contextmanager
    def _open(self) -> Iterator[Board]:
        """The simulated chip has its own touches, below the keyring in software."""
        chip, touch = self.choice.sim_chip, self.plug.touch
        assert chip is not None
        sealer = open_sealer(chip, touch)
        keyring = SealedKeyring(sealer, DiskShelf(self.disk))
        yield Board(open_soc(chip, touch), open_attester(chip, touch), sealer, keyring)


@dataclass
class PluggedTpmDevice(PluggedDevice):
    """A board with a real TPM: its power cut is a SIGKILL of swtpm at the very touch."""

    tpm: Any = None

    def lose_power(self) -> None:
        self.tpm.cut_power()

    def find_power(self) -> None:
        super().find_power()
        self.tpm.power_cycle()

    @contextmanager
    def _open(self) -> Iterator[Board]:
        with open_board(self.choice, self.folder / "disk", DiskShelf(self.disk)) as board:
            names = ("soc", "attester", "sealer", "keyring", "activator", "key_prover")
            yield Board(**{name: PluggedPart(getattr(board, name), name, self.plug) for name in names})


def plug_in(device: Device, **more: Any) -> PluggedDevice:
    """The same board, on a plug."""
    kind = PluggedTpmDevice if "tpm" in more else PluggedDevice
    return kind(device.folder, device.line, device.image, device.choice, device.said, **more)
