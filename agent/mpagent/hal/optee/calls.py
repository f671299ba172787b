"""Calls to OP-TEE that end: each runs in a child of its own, which is killed and reaped at the deadline or on Ctrl-C.

Opening a UUID that is not built into OP-TEE waits in the kernel for tee-supplicant (Linux drivers/tee/optee/supp.c,
optee_supp_thrd_req). What this relies on there:

* without a tee-supplicant that wait ends by any signal, at first, and by SIGKILL since the wait became killable (2025);
* with one that holds the request and is silent, older kernels let nothing end it: the child then stays, and we say so;
* no other wait of a call ends by a signal. So a child that dies of SIGKILL at once was waiting for a supplicant; one
  that dies later was on its way back from a slow OP-TEE.

TEE_IOC_CANCEL is not used: the driver looks the session up first, and one that is still being opened has none. SIGINT
is left to the parent: by itself it would end only the first kind of wait.

The child is a fork without exec; it opens the node itself, so nothing of it is left in the kernel when it is gone.
"""

import ctypes
import marshal
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn
from uuid import UUID

from mpagent.errors import HardwareAbsent, HardwareBusy
from mpagent.hal.optee import faults, records
from mpagent.hal.optee.client import Tee
from mpagent.hal.optee.records import Answer, Param

Mark = Callable[[], None]

REAP_MAX_S: Final = 2.0
"""How long a killed child may take to go. Releasing a TEE context takes milliseconds."""
PROMPT_MAX_S: Final = 0.5
"""How long a process that waits killably takes to go, on a machine with much to do."""
_PR_SET_PDEATHSIG: Final = 1
_DONE: Final = "done"
_MARK: Final = b"opened:"
_CHUNK_BYTES: Final = 65_536
_DESCRIPTORS_MAX: Final = 1 << 30
_ENDINGS: Final = (signal.SIGINT, signal.SIGTERM)
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Command(NamedTuple):
    """One INVOKE."""

    func: int
    params: tuple[Param, ...] = ()


def ask(node: Path, uuid: UUID, commands: Sequence[Command], deadline_s: float) -> tuple[tuple[Answer, ...], ...]:
    """Open one session, invoke each command, close; the answers of each command. Without commands: does it open?

    `deadline_s` bounds all of it. Raises TeeFailed (of the first that fails), NoNode, NoPermission, OtherTee,
    KernelRefused; at the deadline NobodyAnswered, HardwareBusy where OP-TEE itself is slow, Hanging when the child
    cannot be killed; CallDied. Raises Malformed for parameters that fit neither record nor shared area, before
    anything is opened.
    """
    for command in commands:
        records.write_invoke(0, command.func, records.lay_out(command.params, 0))

    def converse(mark: Mark) -> tuple[tuple[Answer, ...], ...]:
        with Tee(node) as tee, tee.open_session(uuid) as session:
            mark()
            return tuple(session.invoke(command.func, command.params) for command in commands)

    answers: tuple[tuple[Answer, ...], ...] = run(converse, f"calling {uuid}", deadline_s)
    return answers


def ask_built_in(
    node: Path, uuid: UUID, name: str, commands: Sequence[Command], deadline_s: float
) -> tuple[tuple[Answer, ...], ...]:
    """As `ask`, of a pseudo-TA: raises HardwareAbsent, with its name, where this OP-TEE was built without it."""
    try:
        return ask(node, uuid, commands, deadline_s)
    except (faults.TeeFailed, faults.NobodyAnswered) as fault:
        if not faults.is_not_built_in(fault):
            raise
        raise HardwareAbsent(
            f"OP-TEE at {node} has no {name}", detail=str(fault), advice="build OP-TEE for this part with it"
        ) from fault


def check_node(node: Path) -> None:
    """Whether OP-TEE is behind this node, without a child: neither open() nor VERSION waits for anybody.

    Raises NoNode, NoPermission, OtherTee, KernelRefused.
    """
    Tee(node).close()


def run(call: Callable[[Mark], Any], doing: str, deadline_s: float) -> Any:
    """What `call` returns (plain values), or the fault it raises, from a child that is gone when this returns.

    `call` is given a function that marks it as opened, which NobodyAnswered then tells.

    Interrupted by any exception, e.g. KeyboardInterrupt, the child is killed and reaped first. The child inherits no
    descriptor: one that hangs would otherwise hold the lock of the state folder. Raises HardwareBusy when no process
    can be made.
    """
    until = time.monotonic() + deadline_s
    reader, writer = os.pipe2(os.O_CLOEXEC)
    # Until somebody is there to reap it, Ctrl-C may not part us from the child; and the child has no such handler.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    try:
        child = _start(call, writer)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            told, whole = _read(reader, until)
        except BaseException:
            child.end()
            raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(reader)
    return _conclude(told, whole, child, doing, round(deadline_s * 1000))


def _start(call: Callable[[Mark], Any], writer: int) -> "_Child":
    try:
        return _Child(call, writer)
    except OSError as error:  # not here: tried under another uid, which leaves no record
        raise HardwareBusy("this machine makes no more processes: try again", detail=str(error)) from None
    finally:
        os.close(writer)


def _conclude(told: bytes, whole: bool, child: "_Child", doing: str, waited_ms: int) -> Any:
    """Reap the child, by force unless it told all it had to, and say what came of it."""
    asked = time.monotonic()
    status = child.wait(REAP_MAX_S) if whole else child.end()
    if status is None:
        raise faults.Hanging(doing, child.pid)
    if not whole and time.monotonic() - asked > PROMPT_MAX_S:
        raise faults.explain_slow(doing, waited_ms)
    if not whole:
        raise faults.NobodyAnswered(doing, waited_ms, opened=told.startswith(_MARK))
    if status != 0:
        raise faults.CallDied(doing, status)
    return _understand(told.removeprefix(_MARK))


def _understand(told: bytes) -> Any:
    kind, *rest = marshal.loads(told)
    if kind != _DONE:
        raise faults.hear((kind, *rest))
    return rest[0]


class _Child:
    """A fork of this process that makes one call and tells of it through a pipe."""

    def __init__(self, call: Callable[[Mark], Any], writer: int) -> None:
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _live(call, parent, writer)
        self._handle = os.pidfd_open(self.pid)

    def wait(self, limit_s: float) -> int | None:
        """Reap it: its wait status, or None when it lives on. Ask once: we let go of it in either case."""
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        try:
            ended = poll.poll(limit_s * 1000)
        finally:
            os.close(self._handle)
        return os.waitpid(self.pid, 0)[1] if ended else None

    def end(self) -> int | None:
        """Kill and reap it: its wait status, or None when it cannot be killed."""
        signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        return self.wait(REAP_MAX_S)


def _live(call: Callable[[Mark], Any], parent: int, writer: int) -> NoReturn:
    """The child's whole life. It never returns into code that believes to be the parent."""
    status = 1
    try:
        _part(parent, writer)
        try:
            told = (_DONE, call(lambda: _write(writer, _MARK)))
        except (faults.TeeFailed, faults.NoNode, faults.NoPermission, faults.OtherTee, faults.KernelRefused) as fault:
            told = faults.tell(fault)
        _write(writer, marshal.dumps(told))
        status = 0
    finally:
        os._exit(status)


def _write(writer: int, content: bytes) -> None:
    os.write(writer, content)  # blocking, and signals are ignored or deadly here: it writes all


def _part(parent: int, writer: int) -> None:
    """Die with the parent, leave Ctrl-C to it, and hold nothing of it open."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # not here: the parent dies between fork and prctl
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    os.closerange(3, writer)
    os.closerange(writer + 1, _DESCRIPTORS_MAX)


def _read(reader: int, until: float) -> tuple[bytes, bool]:
    """What the child wrote, and whether it closed its end before `until` (monotonic seconds)."""
    told = b""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while poll.poll(max(0.0, until - time.monotonic()) * 1000):
        chunk = os.read(reader, _CHUNK_BYTES)
        if not chunk:
            return told, True
        told += chunk
    return told, False
