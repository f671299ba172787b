"""The OP-TEE client over the emulated ioctls, whose server checks every byte as the kernel does."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from mpagent.errors import HardwareGone
from mpagent.hal.optee.calls import Command
from mpagent.hal.optee.ocotp import OCOTP, check_uid
from mpagent.hal.optee.records import MemoryIn, MemoryOut, ValueIn, ValueOut
from mpsim import fuses
from mpsim.optee.bench import EmulatedTee
from mpsim.silicon import Chip
from tests.mpagent.tee_program import Failed, TeeProgram
from tests.mpsim.tee_bench import tee_of_board

NOWHERE = UUID("00000000-1111-2222-3333-444444444444")
MP = UUID("83268b7c-85e3-11e8-adc0-fa7ae01bbebc")
SOON_S = 0.4


@pytest.fixture
def tee(tmp_path: Path) -> Iterator[EmulatedTee]:
    with tee_of_board(tmp_path / "board") as made:
        yield made


@pytest.fixture
def program(tee: EmulatedTee) -> Iterator[TeeProgram]:
    with TeeProgram(tee.environment()) as started:
        yield started


def test_chip_uid_is_the_nvmem_uid_in_the_byte_order_of_the_fuses(tee: EmulatedTee, program: TeeProgram) -> None:
    content = Chip(tee.chip).read_fuses()
    assert program.call("chip_uid") == content[4:12] == fuses.read_uid("imx8mm", content)[::-1]


@pytest.mark.parametrize("size", [0, 7])
def test_uid_of_another_size_is_no_uid(size: int) -> None:
    with pytest.raises(HardwareGone, match=f"a UID of {size} bytes"):
        check_uid(bytes(size))


def test_fuse_words_of_many_places_come_in_one_session(tee: EmulatedTee, program: TeeProgram) -> None:
    content = Chip(tee.chip).read_fuses()
    places = tuple((bank, word) for bank in (6, 7) for word in range(4))
    words = program.call("fuses", places)
    assert b"".join(word.to_bytes(4, "little") for word in words) == content[0x60:0x80]
    assert program.call("fuses", ((1, 3),))[0] & 0x02000000  # closed


def test_fuse_beyond_the_block_is_refused_by_the_tee(program: TeeProgram) -> None:
    with pytest.raises(Failed, match="BAD_PARAMETERS") as failed:
        program.call("fuses", ((0, 1), (250, 0)))
    assert failed.value.kind == "TeeFailed"


def test_digprog_names_part_and_revision(program: TeeProgram) -> None:
    assert program.call("digprog") == 0x824110


@pytest.mark.parametrize("verb", ["chip_uid", "digprog"])
def test_optee_without_the_pta_is_told_from_one_that_broke(tee: EmulatedTee, program: TeeProgram, verb: str) -> None:
    tee.change(built_in=("mp",))
    with pytest.raises(Failed, match=r"has no (OCOTP|DIGPROG) pseudo-TA") as failed:
        program.call(verb)
    assert failed.value.is_absent and "ITEM_NOT_FOUND" in failed.value.detail
    tee.change(built_in=("mp", "ocotp", "digprog"))
    tee.break_next("GENERIC")
    with pytest.raises(Failed, match="GENERIC") as failed:
        program.call(verb)
    assert failed.value.is_gone and not failed.value.is_absent


def test_missing_pta_without_supplicant_costs_the_deadline_and_is_the_same_answer(
    tee: EmulatedTee, program: TeeProgram
) -> None:
    tee.change(built_in=(), supplicant=False)
    with pytest.raises(Failed, match="has no OCOTP pseudo-TA") as failed:
        program.call("chip_uid", SOON_S)
    assert failed.value.is_absent and "within 400 ms" in failed.value.detail


def test_supplicant_that_comes_in_time_is_waited_for(tee: EmulatedTee, program: TeeProgram) -> None:
    """At boot the agent may be the quicker one."""
    tee.change(supplicant=False, applications={str(NOWHERE): "mp_sign"})
    program.send("ask", NOWHERE, ())
    tee.change(supplicant=True)
    assert program.hear().answer == ()


def test_refused_opening_leaves_no_session_to_invoke(tee: EmulatedTee, program: TeeProgram) -> None:
    """The ioctl itself succeeds, with session 0."""
    tee.change(access_control=True)
    with pytest.raises(Failed, match=f"ACCESS_DENIED .from TRUSTED_APP. while opening {MP}") as failed:
        program.call("ask", MP, (Command(1, (MemoryOut(132),)),))
    assert failed.value.kind == "TeeFailed"


def test_several_commands_share_one_session_and_the_first_that_fails_ends_it(program: TeeProgram) -> None:
    word = Command(1, (ValueIn(0, 1), ValueOut()))
    answers = program.call("ask", OCOTP, (word, Command(0, (MemoryOut(8),)), word))
    assert [len(answer) for answer in answers] == [2, 1, 2] and answers[0] == answers[2]
    assert answers[0][0] is None and answers[1][0][:4] == answers[0][1][0].to_bytes(4, "little")
    with pytest.raises(Failed, match=r"BAD_PARAMETERS .from TRUSTED_APP. while invoking command 9"):
        program.call("ask", OCOTP, (word, Command(9), word))


def test_parameters_that_do_not_fit_are_a_mistake_of_ours(program: TeeProgram) -> None:
    """The kernel's EINVAL would say nothing of the reason."""
    for params in ((MemoryIn(bytes(8193)),), (ValueOut(),) * 32):
        with pytest.raises(Failed, match="bytes") as failed:
            program.call("ask", OCOTP, (Command(0, params),))
        assert failed.value.kind == "Malformed"


def test_nothing_is_left_of_any_call(tee: EmulatedTee, program: TeeProgram) -> None:
    tee.change(supplicant=False)
    for verb, arguments in (("check_node", ()), ("chip_uid", ()), ("digprog", ()), ("ask", (NOWHERE, (), SOON_S))):
        try:
            program.call(verb, *arguments)
        except Failed as failed:
            assert failed.kind == "NobodyAnswered"
        assert program.call("children") == ""
