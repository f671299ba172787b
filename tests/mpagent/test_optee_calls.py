"""Calls that hang, die or are broken off: what is left behind is no process and no descriptor."""

import contextlib
import ctypes
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mpagent.errors import HardwareAbsent, HardwareBusy, HardwareGone
from mpagent.hal.optee import calls, faults
from mpagent.hal.optee.calls import Mark

SOON_S = 0.2


def children() -> set[str]:
    """Processes that have this one as parent, also dead ones nobody reaped."""
    return {
        number
        for task in Path("/proc/self/task").iterdir()
        for number in (task / "children").read_text(encoding="ascii").split()
    }


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test here leaves a child or an open descriptor."""
    before = (children(), os.listdir("/proc/self/fd"))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    assert (children(), os.listdir("/proc/self/fd")) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


def run(call: Callable[[Mark], Any], deadline_s: float = 5.0) -> Any:
    return calls.run(call, "calling it", deadline_s)


def fail(fault: BaseException) -> Any:
    raise fault


def test_answer_of_a_child_comes_back_whole() -> None:
    answer = ((b"\x00" * 4096, (1, 2), None), ())
    assert run(lambda mark: answer) == answer
    assert run(lambda mark: (mark(), b"opened:")[1]) == b"opened:"
    assert run(lambda mark: b"\xff" * 200_000) == b"\xff" * 200_000  # more than a pipe holds


@pytest.mark.parametrize(
    "fault",
    [
        faults.TeeFailed("invoking command 0", faults.SHORT_BUFFER, 4, (0, 132, 32)),
        faults.NoNode("/dev/tee0", 2),
        faults.NoPermission("/dev/tee0", 13),
        faults.OtherTee("/dev/tee0", 3),
        faults.KernelRefused("sharing memory", 12),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_fault_of_a_child_is_the_same_here(fault: faults.Fault) -> None:
    with pytest.raises(type(fault)) as told:
        run(lambda mark: fail(fault))
    assert str(told.value) == str(fault) and told.value.plain == fault.plain and told.value.advice == fault.advice


@pytest.mark.parametrize("opened", [False, True])
def test_call_that_never_ends_is_given_up_at_its_deadline(opened: bool) -> None:
    """T-340 tee-supplicant does not run: the opening waits in the kernel without a bound."""

    def wait(mark: Mark) -> None:
        if opened:
            mark()
        time.sleep(60)

    began = time.monotonic()
    with pytest.raises(faults.NobodyAnswered, match="within 200 ms") as waited:
        run(wait, SOON_S)
    assert time.monotonic() - began < SOON_S + 1
    assert waited.value.opened is opened
    assert "tee-supplicant" in waited.value.advice and not isinstance(waited.value, HardwareAbsent)


def test_call_that_ignores_signals_is_killed_all_the_same() -> None:
    def wait(_mark: Mark) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
        time.sleep(60)

    with pytest.raises(faults.NobodyAnswered):
        run(wait, SOON_S)


def test_child_that_cannot_be_killed_is_named_and_not_waited_for(tmp_path: Path) -> None:
    """T-341 A tee-supplicant keeps the request, and the kernel lets nothing end that: a debugger plays them."""
    note = tmp_path / "pid"
    debugger = os.fork()
    if debugger == 0:
        _hold_exit(note, 60)

    def wait(_mark: Mark) -> None:
        note.with_suffix(".new").write_text(str(os.getpid()), encoding="ascii")
        note.with_suffix(".new").rename(note)
        time.sleep(60)

    began = time.monotonic()
    try:
        with pytest.raises(faults.Hanging, match=r"process \d+ hangs in the kernel while calling it") as stuck:
            run(wait, 1.5)
        assert time.monotonic() - began < 1.5 + calls.REAP_MAX_S + 1
        assert note.read_text(encoding="ascii") in str(stuck.value) and "reboot" in stuck.value.advice
    finally:
        os.kill(debugger, signal.SIGKILL)
        os.waitpid(debugger, 0)
        os.waitpid(int(note.read_text(encoding="ascii")), 0)


def test_call_that_comes_back_late_is_busy_and_not_waiting_for_a_supplicant(tmp_path: Path) -> None:
    """T-344 A slow OP-TEE would pass for one without the pseudo-TA, and the board for one without MP."""
    note = tmp_path / "pid"
    debugger = os.fork()
    if debugger == 0:
        _hold_exit(note, 2.0)

    def wait(_mark: Mark) -> None:
        note.with_suffix(".new").write_text(str(os.getpid()), encoding="ascii")
        note.with_suffix(".new").rename(note)
        time.sleep(60)

    try:
        with pytest.raises(HardwareBusy, match="did not come back within 1000 ms"):
            run(wait, 1.0)
    finally:
        os.waitpid(debugger, 0)


def _hold_exit(note: Path, length_s: float) -> NoReturn:
    """Attach to the process named there, and let it not exit for so long (ptrace(2), PTRACE_O_TRACEEXIT)."""
    seize, trace_exit = 0x4206, 0x40
    try:
        while not note.exists():
            time.sleep(0.01)
        libc = ctypes.CDLL(None)
        assert libc.ptrace(seize, int(note.read_text(encoding="ascii")), None, ctypes.c_void_p(trace_exit)) == 0
        time.sleep(length_s)
    finally:
        os._exit(1)


def test_ctrl_c_ends_the_wait_at_once_and_takes_the_child_along() -> None:
    """T-340 The terminal sends SIGINT to parent and child; the child leaves it to the parent."""
    timer = threading.Timer(SOON_S, lambda: os.kill(os.getpid(), signal.SIGINT))
    began = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run(lambda mark: time.sleep(60), 30.0)
    timer.join()
    assert time.monotonic() - began < 5


def test_ctrl_c_at_the_child_alone_changes_nothing() -> None:
    def interrupt(_mark: Mark) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return "answered"

    assert run(interrupt) == "answered"


@pytest.mark.parametrize("end", [lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: 1 // 0])
def test_child_that_dies_without_an_answer_is_named(end: Callable[[], object]) -> None:
    """The out-of-memory killer, a fault of the driver, or a mistake of ours."""
    with pytest.raises(faults.CallDied, match="without an answer"):
        run(lambda mark: end())


def test_half_an_answer_is_none() -> None:
    """Opened, and then killed by somebody else."""
    with pytest.raises(faults.CallDied):
        run(lambda mark: (mark(), os.kill(os.getpid(), signal.SIGKILL)))


def test_machine_without_room_for_a_process_is_busy() -> None:
    """Asked by a process that may make none, which root always may."""
    tester = os.fork()
    if tester == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
            os.setresuid(65534, 65534, 65534)
            before = os.listdir("/dev/fd")
            with pytest.raises(HardwareBusy, match="no more processes"):
                run(lambda mark: "made")
            assert os.listdir("/dev/fd") == before
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(tester, 0)[1] == 0


def test_child_holds_nothing_of_its_parent(tmp_path: Path) -> None:
    """T-340 A child that hangs for good would keep the lock of the state folder and the other end of our pipes."""
    held = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(held, True)
    try:
        found = run(lambda mark: list_open())
    finally:
        os.close(held)
    assert found[:3] == ["/dev/null"] * 3 and len(found) == 4 and found[3].startswith("pipe:")


def list_open() -> list[str]:
    """What this process holds open, but for the listing itself."""
    found = []
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found


def test_child_dies_with_its_parent(tmp_path: Path) -> None:
    """T-340 Killed in the middle of a probe, the agent leaves nothing that waits for a supplicant of tomorrow."""
    note = tmp_path / "pid"

    def wait(_mark: Mark) -> None:
        note.write_text(str(os.getpid()), encoding="ascii")
        time.sleep(60)

    parent = os.fork()
    if parent == 0:
        try:
            run(wait, 30.0)
        finally:
            os._exit(0)
    until = time.monotonic() + 5
    while not (note.exists() and note.read_text(encoding="ascii")) and time.monotonic() < until:
        time.sleep(0.01)
    child = int(note.read_text(encoding="ascii"))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    while _runs(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")")[-1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_missing_node_permission_and_no_tee_are_three_messages(tmp_path: Path) -> None:
    """open() alone decides: a node without its driver stands there and answers ENXIO."""
    with pytest.raises(faults.NoNode, match=r"no OP-TEE here: .*tee0: No such file") as absent:
        calls.check_node(tmp_path / "tee0")
    assert isinstance(absent.value, HardwareAbsent) and "CONFIG_OPTEE" in absent.value.advice

    driverless = tmp_path / "driverless"
    os.mknod(driverless, 0o600 | 0o020000, os.makedev(250, 200))
    with pytest.raises(faults.NoNode, match="No such device"):
        calls.check_node(driverless)

    with pytest.raises(faults.KernelRefused, match=r"ENOTTY while asking .*null for its version"):
        calls.check_node(Path("/dev/null"))
    with pytest.raises(faults.KernelRefused, match="EISDIR while opening"):
        calls.check_node(tmp_path)


def test_node_of_another_group_is_no_missing_node() -> None:
    """The udev rule gives it to the group tee; sent elsewhere, its user would look for a driver for hours."""
    refused = faults.explain_open("/dev/tee0", 13)
    assert isinstance(refused, faults.NoPermission) and not isinstance(refused, HardwareAbsent)
    assert isinstance(refused, HardwareGone) and "group" in refused.advice
