"""The emulated tee subsystem, met by bare ioctls from another process: what linux/tee.h and drivers/tee promise."""

import errno
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mpsim.board import BoardPlan, make_board
from mpsim.optee.bench import EmulatedTee, build_shim
from tests.mpsim import raw_tee
from tests.mpsim.raw_tee import IN, INVOKE, MP, MP_SIGN, NULL, OUT, VERSION, RawTee
from tests.mpsim.tee_bench import SHIM, program_on, tee_of_board

OPEN_HEAD = MP.bytes + bytes(40)


@pytest.fixture
def tee(tmp_path: Path) -> Iterator[EmulatedTee]:
    with tee_of_board(tmp_path / "board") as made:
        yield made


@pytest.fixture
def raw(tee: EmulatedTee) -> Iterator[RawTee]:
    with program_on(tee) as program:
        yield program


def invoke_record(session: int, *params: raw_tee.Param) -> str:
    packed = b"".join(struct.pack("<QQQQ", *one) for one in params)
    return (struct.pack("<IIIIII", 1, session, 0, 0, 0, len(params)) + packed).hex()


def test_version_is_that_of_a_real_op_tee(raw: RawTee) -> None:
    code, body, _ = raw.ask("flat", VERSION, bytes(12).hex())
    assert (code, struct.unpack("<III", bytes.fromhex(body))) == (0, (1, 1, 13))


def test_another_tee_has_another_number(tee: EmulatedTee, raw: RawTee) -> None:
    tee.change(impl_id=2)
    assert struct.unpack("<III", bytes.fromhex(raw.ask("flat", VERSION, bytes(12).hex())[1]))[0] == 2


@pytest.mark.parametrize("refused", ["ENOENT", "EACCES", "ENODEV"])
def test_the_node_refuses_as_the_file_system_would(tee: EmulatedTee, refused: str) -> None:
    tee.change(open_errno=refused)
    with RawTee(tee.environment()) as program:
        assert program.open_node() == getattr(errno, refused)


def test_only_the_node_is_played_and_only_open_knows_it(tee: EmulatedTee) -> None:
    """A program that looks with stat() first sees what is really there: nothing."""
    with RawTee(tee.environment()) as program:
        assert program.open_node("/dev/tee1") == errno.ENOENT
        assert program.open_node("/dev/teepriv0") == errno.ENOENT
        assert program.open_node("/dev/null") == 0
        assert program.ask("flat", VERSION, bytes(12).hex())[0] == errno.ENOTTY


def test_shared_memory_comes_in_whole_pages_and_numbers_are_not_used_twice(raw: RawTee) -> None:
    first = raw.area
    code, body, descriptor = raw.ask("flat", raw_tee.SHM_ALLOC, struct.pack("<QIi", 1, 0, 0).hex())
    size, _, number = struct.unpack("<QIi", bytes.fromhex(body))
    assert (code, size) == (0, 4096)
    assert number not in (0, first) and descriptor > 2


@pytest.mark.parametrize(("size", "flags"), [(0, 0), (4096, 1)])
def test_shared_memory_without_size_or_with_flags_is_invalid(raw: RawTee, size: int, flags: int) -> None:
    assert raw.ask("flat", raw_tee.SHM_ALLOC, struct.pack("<QIi", size, flags, 0).hex())[0] == errno.EINVAL


@pytest.mark.parametrize("number", [0x8010A406, 0x8010A407, 0xC018A408, 0x5401, 0x8010A4FF])
def test_every_other_ioctl_is_invalid(raw: RawTee, number: int) -> None:
    assert raw.ask("flat", number, bytes(24).hex())[0] == errno.EINVAL


@pytest.mark.parametrize(
    ("number", "head"), [(raw_tee.OPEN_SESSION, OPEN_HEAD), (INVOKE, bytes(24))], ids=["open", "invoke"]
)
def test_a_record_is_as_long_as_its_parameters_say(raw: RawTee, number: int, head: bytes) -> None:
    def with_params(count: int, places: int) -> str:
        return (head[:-4] + struct.pack("<I", count) + bytes(32 * places)).hex()

    assert raw.ask("record", number, with_params(1, 2))[0] == errno.EINVAL
    assert raw.ask("record", number, with_params(2, 1))[0] == errno.EINVAL
    assert raw.ask("record", number, with_params(0, 0), len(head) - 1)[0] == errno.EINVAL
    # (2**32 + 24 - 24) / 32 parameters would fit again in 32 bits
    assert raw.ask("record", number, with_params(0x0800_0000, 0))[0] == errno.EINVAL
    assert raw.ask("record", number, with_params(32, 32))[0] == errno.EINVAL  # whole, and above 1024 bytes
    most = (1024 - len(head)) // 32
    assert raw.ask("record", number, with_params(most, most))[0] == (0 if number != INVOKE else errno.EINVAL)
    assert raw.ask("record", number, with_params(0, 0), None, 16)[0] == errno.EFAULT


@pytest.mark.parametrize("attribute", [4, 8, 0x100, 0x106, 0x10006])
def test_a_parameter_of_unknown_type_or_with_other_bits_is_invalid(raw: RawTee, attribute: int) -> None:
    session = raw.open(MP).session
    assert raw.invoke(session, 1, (attribute, 0, 64, raw.area)).errno == errno.EINVAL
    assert raw.open(MP, ((attribute, 0, 64, raw.area),)).errno == errno.EINVAL


@pytest.mark.parametrize(("offset", "size"), [(0, 8193), (8192, 1), (8129, 64), (2**64 - 1, 2), (1, 2**64 - 1)])
def test_a_reference_past_its_memory_is_invalid(raw: RawTee, offset: int, size: int) -> None:
    session = raw.open(MP).session
    assert raw.invoke(session, 1, raw.at(OUT, offset, size)).errno == errno.EINVAL
    assert raw.invoke(session, 1, raw.at(OUT, 8192 - 64, 64)).errno == 0


def test_memory_of_another_file_is_not_there(tee: EmulatedTee, raw: RawTee) -> None:
    session = raw.open(MP).session
    with program_on(tee) as other:
        assert raw.invoke(session, 1, (OUT, 0, 64, other.area)).errno == errno.EINVAL
    assert raw.invoke(session, 1, (OUT, 0, 64, 0)).errno == errno.EINVAL


def test_memory_ends_with_its_last_map_or_descriptor(raw: RawTee) -> None:
    session = raw.open(MP).session
    raw.ask("close_shared")
    assert raw.invoke(session, 1, raw.at(OUT, 0, 64)).errno == 0
    assert any(raw.peek(0, 64))
    raw.ask("unmap")
    assert raw.invoke(session, 1, raw.at(OUT, 0, 64)).errno == errno.EINVAL


def test_a_null_reference_passes_where_the_kernel_says_it_can(tee: EmulatedTee, raw: RawTee) -> None:
    session = raw.open(MP).session
    assert raw.invoke(session, 1, (OUT, 0, 0, NULL)).result == raw_tee.SHORT_BUFFER
    tee.change(gen_caps=5)
    assert raw.invoke(session, 1, (OUT, 0, 0, NULL)).errno == errno.EINVAL


def test_a_null_reference_with_a_size_is_refused_by_the_application(raw: RawTee) -> None:
    session = raw.open(MP).session
    assert raw.invoke(session, 1, (OUT, 0, 64, NULL)).result == raw_tee.BAD_PARAMETERS
    said = raw.invoke(session, 0, (IN, 0, 4, NULL), raw.at(OUT, 0, 64), raw.at(OUT, 64, 32))
    assert said.result == raw_tee.BAD_PARAMETERS


def test_registered_memory_is_read_and_written_where_it_is(raw: RawTee) -> None:
    code, area = raw.ask("register", 8192)
    assert (code, area != raw.area) == (0, True)
    raw.poke(4090, b"across a page")
    said = raw.call(MP, 0, (IN, 4090, 13, area), (OUT, 0, 64, area), (OUT, 64, 32, area))
    assert (said.errno, said.result) == (0, 0)
    assert any(raw.peek(0, 64))
    assert raw.open(MP, ((OUT, 8190, 3, area),)).errno == errno.EINVAL


@pytest.mark.parametrize("argument", [(16, 4096, 0), (0x1000_0000, 0, 0), (0x1000_0000, 4096, 1)])
def test_memory_that_is_not_there_cannot_be_registered(raw: RawTee, argument: tuple[int, int, int]) -> None:
    code, _, _ = raw.ask("flat", raw_tee.SHM_REGISTER, struct.pack("<QQIi", *argument, 0).hex())
    assert code == (errno.EFAULT if argument[0] == 16 else errno.EINVAL)


def test_a_session_belongs_to_its_file_until_it_is_closed(tee: EmulatedTee, raw: RawTee) -> None:
    session = raw.open(MP).session
    close = (raw_tee.CLOSE_SESSION, struct.pack("<I", session).hex())
    with program_on(tee) as other:
        assert other.invoke(session, 1, other.at(OUT, 0, 64)).errno == errno.EINVAL
        assert other.ask("flat", *close)[0] == errno.EINVAL
    assert raw.ask("flat", *close)[0] == 0
    assert raw.ask("flat", *close)[0] == errno.EINVAL
    assert raw.invoke(session, 1, raw.at(OUT, 0, 64)).errno == errno.EINVAL


def test_a_refused_open_is_a_success_of_the_ioctl_and_leaves_no_session(tee: EmulatedTee, raw: RawTee) -> None:
    """Measured on a real OP-TEE: ret 0xffff0001, origin 4, session 0, and EINVAL for an invoke after it."""
    tee.change(access_control=True)
    said = raw.open(MP)
    assert (said.errno, said.result, said.origin, said.session) == (0, 0xFFFF0001, 4, 0)
    refused = raw.invoke(0, 1, raw.at(OUT, 0, 64))
    assert (refused.errno, refused.result) == (errno.EINVAL, 0xBBBB)  # nothing is written back


@pytest.mark.parametrize(
    ("login", "code"), [(0x8000_0000, errno.EPERM), (0xBFFF_FFFF, errno.EPERM), (3, errno.EINVAL), (7, errno.EINVAL)]
)
def test_logins_of_the_kernel_are_not_for_programs(raw: RawTee, login: int, code: int) -> None:
    assert raw.open(MP, login=login).errno == code


def test_a_fifth_parameter_is_refused_by_the_secure_world(raw: RawTee) -> None:
    nothing = (0, 0, 0, 0)
    said = raw.call(MP, 1, raw.at(OUT, 0, 64), nothing, nothing, nothing, nothing)
    assert (said.errno, said.result, said.origin) == (0, raw_tee.BAD_PARAMETERS, raw_tee.FROM_TEE)
    opened = raw.open(MP, (nothing,) * 5)
    assert (opened.result, opened.origin, opened.session) == (raw_tee.BAD_PARAMETERS, raw_tee.FROM_TEE, 0)


def test_a_fork_uses_the_file_it_inherited(raw: RawTee) -> None:
    session = raw.open(MP).session
    code, record = raw.ask("in_fork", INVOKE, invoke_record(session, raw.at(OUT, 0, 64)))
    said = raw_tee.read_record(INVOKE, code, bytes.fromhex(record))
    assert (said.errno, said.result) == (0, 0)
    assert any(raw.peek(0, 64))


def test_closing_the_file_ends_its_sessions(tee: EmulatedTee, raw: RawTee) -> None:
    session = raw.open(MP).session
    world = tee.server.kernel.world
    assert world.has_session(session)
    raw.ask("close_node")
    wait_until(lambda: not world.has_session(session))
    assert tee.server.kernel.contexts == {}


def test_a_power_cycle_leaves_no_file_alive(tee: EmulatedTee, raw: RawTee) -> None:
    session = raw.open(MP).session
    tee.power_cycle()
    assert raw.invoke(session, 1, raw.at(OUT, 0, 64)).errno == errno.ENODEV
    with program_on(tee) as program:
        assert program.open(MP).result == 0


def test_an_application_that_is_nowhere_is_not_found_once_the_supplicant_said_so(tee: EmulatedTee, raw: RawTee) -> None:
    tee.change(built_in=())
    for uuid in (MP, MP_SIGN):
        said = raw.open(uuid)
        assert (said.errno, said.result, said.origin, said.session) == (
            (0, raw_tee.ITEM_NOT_FOUND, raw_tee.FROM_TEE, 0)
        )


@pytest.mark.parametrize("uuid", [MP, MP_SIGN], ids=["absent PTA", "TA"])
def test_an_open_without_supplicant_waits_and_no_interrupt_ends_it(tee: EmulatedTee, uuid: raw_tee.UUID) -> None:
    tee.change(supplicant=False, built_in=(), applications={str(MP_SIGN): "mp_sign"})
    with program_on(tee) as program:
        program.ask("hold_interrupts")
        begin_to_open(program, uuid)
        for _ in range(3):
            program.process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert tee.server.answered("open") == []
        tee.change(supplicant=True)
        code, record = program.hear()
        said = raw_tee.read_record(raw_tee.OPEN_SESSION, code, bytes.fromhex(record))
        assert (said.errno, said.result) == (0, raw_tee.ITEM_NOT_FOUND if uuid == MP else 0)


def test_a_kill_ends_the_waiting_open_and_leaves_nothing(tee: EmulatedTee) -> None:
    tee.change(supplicant=False, built_in=())
    with program_on(tee) as program:
        begin_to_open(program, MP)
        program.process.terminate()  # without a handler it is fatal, and a killable wait ends
        assert program.process.wait(5) == -signal.SIGTERM
        wait_until(lambda: tee.server.kernel.contexts == {})
    assert tee.server.answered("open") == []


def test_a_built_in_application_needs_no_supplicant(tee: EmulatedTee, raw: RawTee) -> None:
    tee.change(supplicant=False)
    assert raw.open(MP).result == 0


def test_a_waiting_open_cannot_be_cancelled(tee: EmulatedTee, raw: RawTee) -> None:
    """CANCEL names a session, and there is none yet."""
    assert raw.ask("flat", raw_tee.CANCEL, struct.pack("<II", 0, 0).hex())[0] == errno.EINVAL
    session = raw.open(MP).session
    assert raw.ask("flat", raw_tee.CANCEL, struct.pack("<II", 0, session).hex())[0] == 0


def test_the_server_runs_as_a_process_too(tmp_path: Path) -> None:
    make_board(tmp_path / "board", BoardPlan(closed=True))
    path = tmp_path / "s"
    command = [sys.executable, "-m", "mpsim.optee.serve", str(tmp_path / "board"), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout and server.stdout.readline().startswith(b"serving")
        with RawTee({"LD_PRELOAD": str(build_shim(SHIM)), "MPSIM_TEE_SOCKET": str(path)}) as program:
            assert program.open_node() == 0
            assert program.open(MP).result == 0
        server.kill()


def test_without_a_server_the_device_fails_and_does_not_hang(tmp_path: Path) -> None:
    environment = {"LD_PRELOAD": str(build_shim(SHIM)), "MPSIM_TEE_SOCKET": str(tmp_path / "nobody")}
    with RawTee(environment) as program:
        assert program.open_node() == errno.EIO


def begin_to_open(program: RawTee, uuid: raw_tee.UUID) -> None:
    """Returns while the program waits in the ioctl."""
    program.send("record", raw_tee.OPEN_SESSION, (uuid.bytes + bytes(40)).hex())
    time.sleep(0.1)


def wait_until(reached: Callable[[], bool]) -> None:
    """The server hears of a closed file a moment later."""
    ends = time.monotonic() + 5
    while not reached():
        assert time.monotonic() < ends
        time.sleep(0.01)
