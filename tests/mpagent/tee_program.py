"""A process with the emulated TEE's shim in it that runs the product's code unchanged, and the test's end of it."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from mpagent.errors import HardwareAbsent, HardwareGone
from mpagent.hal.attestation import OpteeAttester, open_attestation
from mpagent.hal.mp import MpAttester, MpClassKey, Part, open_class_key, open_mp
from mpagent.hal.mp.examination import Examination, TaState, examine, find_xtest_ta, is_key_readable
from mpagent.hal.optee import calls
from mpagent.hal.optee.digprog import read_digprog
from mpagent.hal.optee.ocotp import read_chip_uid, read_fuses
from mpagent.hal.ports import Attestation, AttesterMaterial
from mpsim import fuses, silicon
from mpsim.optee.bench import EmulatedTee
from mpwire.errors import MpError
from tests.mpsim.tee_bench import tee_of_board

NODE = Path("/dev/tee0")
DEADLINE_S = 10.0
"""Of calls that are answered: a bound for a slow machine, never waited for."""


class Failed(Exception):
    """The product raised this over there."""

    def __init__(self, error: MpError) -> None:
        super().__init__(str(error))
        self.kind = type(error).__name__
        self.is_absent = isinstance(error, HardwareAbsent)
        self.is_gone = isinstance(error, HardwareGone)
        self.advice = getattr(error, "advice", "")
        self.cause = getattr(getattr(error, "cause", None), "name", None)
        self.detail = error.detail

    def __reduce__(self) -> Any:
        return (_make_failed, (self.args[0], self.__dict__))


def _make_failed(text: str, state: dict[str, Any]) -> Failed:
    failed = Failed.__new__(Failed, text)
    failed.__dict__.update(state)
    return failed


@dataclass
class Timed:
    """What a call gave, and how long it took there."""

    answer: Any
    took_s: float


class TeeProgram:
    """One process on a board with an emulated TEE; its calls run one after the other."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env={**os.environ, **environment, "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def open(self, relay_tas: tuple[UUID, ...] = (), deadline_s: float = DEADLINE_S, part: Part | None = None) -> None:
        """open_mp; the attester stays over there."""
        self.call("open", relay_tas, deadline_s, part or Part())

    def describe(self) -> AttesterMaterial:
        material: AttesterMaterial = self.call("describe")
        return material

    def attest(self, message: bytes) -> Attestation:
        attestation: Attestation = self.call("attest", message)
        return attestation

    def examine(self, *relay_tas: UUID, deadline_s: float = DEADLINE_S, may_sign: bool = True) -> Examination:
        examination: Examination = self.call("examine", relay_tas, deadline_s, may_sign)
        return examination

    def find_xtest_ta(self, deadline_s: float = DEADLINE_S) -> TaState:
        state: TaState = self.call("find_xtest_ta", deadline_s)
        return state

    def call(self, verb: str, *arguments: Any) -> Any:
        """The answer of `verb`; raises Failed for what the product foresaw, and nothing else passes."""
        return self.time(verb, *arguments).answer

    def time(self, verb: str, *arguments: Any) -> Timed:
        self.send(verb, *arguments)
        return self.hear()

    def send(self, verb: str, *arguments: Any) -> None:
        """Ask, and do not wait for the answer."""
        assert self.process.stdin is not None
        pickle.dump((verb, arguments), self.process.stdin)
        self.process.stdin.flush()

    def hear(self) -> Timed:
        assert self.process.stdout is not None
        answer, took_s = pickle.load(self.process.stdout)
        if isinstance(answer, Failed):
            raise answer
        return Timed(answer, took_s)

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT to all processes of the terminal's foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


Start = Callable[..., tuple[EmulatedTee, TeeProgram]]


@contextmanager
def starting(folder: Path) -> Iterator[Start]:
    """Makes a board in this folder and a process on it: `plan` is the board's, the rest the scenario's."""
    with ExitStack() as stack:

        def make(plan: dict[str, Any] | None = None, **scenario: Any) -> tuple[EmulatedTee, TeeProgram]:
            tee = stack.enter_context(tee_of_board(folder, **(plan or {})))
            tee.change(**scenario)
            return tee, stack.enter_context(TeeProgram(tee.environment()))

        yield make


def class_point() -> bytes:
    """The MP key of these boards."""
    return b"\x04" + silicon.class_public_key("imx8mm", fuses.srk_hash_of("lab"))


class _There:
    """The product's side."""

    attester: MpAttester | OpteeAttester
    class_key: MpClassKey

    def open(self, relay_tas: tuple[UUID, ...], deadline_s: float, part: Part) -> None:
        self.attester = open_mp(NODE, relay_tas, deadline_s, part)

    def open_class_key(self, deadline_s: float, relay_tas: tuple[UUID, ...] = ()) -> None:
        self.class_key = open_class_key(NODE, relay_tas, deadline_s, Part("imx8mm", "1.0"))

    def extract(self) -> bytes:
        return self.class_key.extract().reveal()

    def sign_anyway(self, message: bytes) -> Any:
        return self.class_key.door.sign(message)

    def open_attestation(self, deadline_s: float) -> None:
        self.attester = open_attestation(NODE, deadline_s)

    def describe(self) -> AttesterMaterial:
        return self.attester.describe()

    def attest(self, message: bytes) -> Attestation:
        return self.attester.attest(message)

    def door(self) -> UUID:
        assert isinstance(self.attester, MpAttester)
        return self.attester.door.uuid

    def examine(self, relay_tas: tuple[UUID, ...], deadline_s: float, may_sign: bool) -> Examination:
        return examine(NODE, relay_tas, deadline_s, Part("imx8mm", "1.0"), may_sign=may_sign)

    def find_xtest_ta(self, deadline_s: float) -> TaState:
        return find_xtest_ta(NODE, deadline_s)

    def is_key_readable(self) -> bool:
        return is_key_readable(NODE, (), DEADLINE_S)

    def check_node(self) -> None:
        calls.check_node(NODE)

    def ask(self, uuid: UUID, commands: tuple[calls.Command, ...], deadline_s: float = DEADLINE_S) -> Any:
        return calls.ask(NODE, uuid, commands, deadline_s)

    def chip_uid(self, deadline_s: float = DEADLINE_S) -> bytes:
        return read_chip_uid(NODE, deadline_s)

    def fuses(self, places: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
        return read_fuses(NODE, places, DEADLINE_S)

    def digprog(self) -> int:
        return read_digprog(NODE, DEADLINE_S)

    def children(self) -> str:
        """Processes below this one, dead ones included."""
        return Path("/proc/self/task", str(os.getpid()), "children").read_text(encoding="ascii")


def _answer(verb: Callable[..., Any], arguments: Any) -> Any:
    try:
        return verb(*arguments)
    except MpError as error:
        return Failed(error)
    except KeyboardInterrupt:
        return "interrupted"


def main() -> None:
    """Answer calls until the other end closes."""
    there = _There()
    while True:
        try:
            verb, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        began = time.monotonic()
        answer = _answer(getattr(there, verb), arguments)
        pickle.dump((answer, time.monotonic() - began), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    from tests.mpagent.tee_program import main as run_as_module

    run_as_module()
