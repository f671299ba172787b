"""The MP attester over an emulated OP-TEE: every failure has its own cause, and nothing false goes out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from mpagent.hal.mp import causes
from mpagent.hal.mp.attester import MpAttester
from mpagent.hal.mp.causes import Cause, MpBroken, Part
from mpagent.hal.mp.door import PTA, widen
from mpwire import mp, registry
from tests.mpagent.tee_program import Failed, Start, TeeProgram, class_point, starting

MESSAGE = b"a statement\0with a zero in it"
RELAY = UUID("11112222-3333-4444-5555-666677778888")
OTHER_RELAY = UUID("99992222-3333-4444-5555-666677778888")
SOON_S = 0.4
"""A deadline that is waited for."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with starting(tmp_path / "board") as make:
        yield make


def refuse(call: Callable[[], object], cause: Cause) -> Failed:
    """`call` fails for this cause, as an error of its kind."""
    with pytest.raises(Failed) as failed:
        call()
    assert failed.value.cause == cause.name
    assert (failed.value.is_absent, failed.value.is_gone) == (cause.is_absent, True)
    assert (str(failed.value), failed.value.advice) == (cause.text, cause.advice)
    return failed.value


# What works.


@pytest.mark.parametrize("register", ["optee", "zero"])
def test_signature_holds_under_the_class_key_and_the_mpmr_that_came_with_it(start: Start, register: str) -> None:
    _, program = start({"mpmr": register})
    program.open()
    material, attestation = program.describe(), program.attest(MESSAGE)
    assert (material.kind, material.profile, material.public_key) == ("mp", "raw", class_point())
    assert material.attester_id == mp.key_id(class_point())
    assert attestation.mpmr == {"optee": mp.MPMR_OPTEE, "zero": mp.MPMR_ZERO}[register]
    assert attestation.attest is None and attestation.pcrs == ()
    mp.verify_mp(class_point(), MESSAGE, attestation.mpmr, attestation.signature)


def test_algorithm_is_the_one_of_mp() -> None:
    assert MpAttester.alg == registry.ALG_MP_ES256


def test_opening_signs_nothing_and_reads_no_key(start: Start) -> None:
    """Under mp_use `secret` a signature would give the key away."""
    tee, program = start()
    tee.break_next("GENERIC", times=None)  # every invoke
    program.open()


@pytest.mark.parametrize("size", [0, 4097])
def test_message_out_of_bounds_never_reaches_the_chip(start: Start, size: int) -> None:
    tee, program = start()
    program.open()
    tee.break_next("TARGET_DEAD", times=None)
    with pytest.raises(Failed, match="1 to 4096 bytes") as failed:
        program.attest(bytes(size))
    assert failed.value.kind == "Malformed"


def test_short_buffer_costs_one_second_call_and_no_third(start: Start) -> None:
    """T-343 A message is never signed without end for a TEE that cannot make up its mind."""
    tee, program = start()
    program.open()
    tee.break_next("SHORT_BUFFER", times=1)
    mp.verify_mp(class_point(), MESSAGE, mp.MPMR_OPTEE, program.attest(MESSAGE).signature)
    tee.break_next("SHORT_BUFFER", times=2)
    refuse(lambda: program.attest(MESSAGE), causes.WANTS_MORE_ROOM)
    mp.verify_mp(class_point(), MESSAGE, mp.MPMR_OPTEE, program.attest(MESSAGE).signature)


def test_room_is_made_for_what_a_curve_may_need_and_no_more() -> None:
    """T-343 A size from the TEE decides what memory we take."""
    assert widen([132, 32], [64, 48, 0]) == [132, 48]
    assert widen([132, 32], [1024, 32]) == [1024, 32]
    with pytest.raises(MpBroken, match=causes.WANTS_MORE_ROOM.text):
        widen([132, 32], [132, 1025])


# Doors.


def test_relay_is_used_where_the_pta_refuses_linux(start: Start) -> None:
    _, program = start(access_control=True, applications={str(RELAY): "mp_sign"})
    program.open((OTHER_RELAY, RELAY))
    assert program.call("door") == RELAY
    assert program.describe().public_key == class_point()
    assert program.describe().profile == "raw"  # a TA of mp_sign's kind signs what Linux wants
    attestation = program.attest(MESSAGE)
    assert attestation.mpmr is not None
    mp.verify_mp(class_point(), MESSAGE, attestation.mpmr, attestation.signature)


def test_pta_goes_before_a_relay_that_would_answer(start: Start) -> None:
    _, program = start(applications={str(RELAY): "mp_sign"})
    program.open((RELAY,))
    assert program.call("door") == PTA


@pytest.mark.parametrize(
    ("part", "cause"),
    [
        (Part(), causes.PTA_MISSING),
        (Part("imx8mm", "1.0"), causes.CAAM_OFF),
        (Part("imx8qxp", "1.1"), causes.SECO_ONLY),
        (Part("imx8ulp"), causes.SOC_WITHOUT_MP),
        (Part("imx93"), causes.SOC_WITHOUT_MP),
        (Part("generic"), causes.PTA_MISSING),
    ],
)
def test_missing_pta_is_no_mp_and_says_why(start: Start, part: Part, cause: Cause) -> None:
    _, program = start(built_in=())
    failed = refuse(lambda: program.open(part=part), cause)
    assert cause.is_absent and "ITEM_NOT_FOUND" in failed.detail
    refuse(lambda: program.open((RELAY,), part=part), cause)


def test_access_control_names_the_build_flag_and_is_no_absence(start: Start) -> None:
    """T-344 The next attester would hide that this image was built wrong."""
    _, program = start(access_control=True)
    failed = refuse(program.open, causes.ACCESS_CONTROLLED)
    assert "CFG_NXP_CAAM_MP_NO_ACCESS_CTRL" in failed.advice and "TRUSTED_APP" in failed.detail


def test_refusal_that_comes_from_elsewhere_is_not_access_control(start: Start) -> None:
    tee, program = start()
    tee.break_next("ACCESS_DENIED", call="open", origin=3)
    refuse(program.open, causes.UNEXPECTED)


def test_relay_that_is_not_installed_is_named(start: Start) -> None:
    _, program = start(access_control=True)
    refuse(lambda: program.open((RELAY,)), causes.RELAY_MISSING)


def test_relay_that_does_not_open_stops_there(start: Start) -> None:
    """T-344 A TA that is there and broken is no reason to try the next."""
    tee, program = start(access_control=True, applications={str(RELAY): "mp_sign", str(OTHER_RELAY): "mp_sign"})
    tee.break_next("SECURITY", call="open", uuid=str(RELAY))
    refuse(lambda: program.open((RELAY, OTHER_RELAY)), causes.RELAY_REFUSES)


def test_pta_that_waits_for_tee_supplicant_is_missing(start: Start) -> None:
    """T-340 Only what is not built in makes OP-TEE ask for it; the wait ends at our deadline and leaves no process."""
    _, program = start(built_in=(), supplicant=False)
    began = program.time("children").answer
    failed = refuse(lambda: program.open(deadline_s=SOON_S), causes.PTA_MISSING)
    assert "nobody answered within 400 ms" in failed.detail
    assert program.call("children") == began


def test_relay_that_waits_for_tee_supplicant_is_broken_and_not_missing(start: Start) -> None:
    _, program = start(access_control=True, supplicant=False, applications={str(RELAY): "mp_sign"})
    refuse(lambda: program.open((RELAY,), SOON_S), causes.RELAY_WAITS)


def test_supplicant_that_ends_after_the_opening_is_named_at_the_next_call(start: Start) -> None:
    tee, program = start(access_control=True, applications={str(RELAY): "mp_sign"})
    program.open((RELAY,), SOON_S)
    tee.change(supplicant=False)
    refuse(program.describe, causes.RELAY_WAITS)
    tee.change(supplicant=True)
    assert program.describe().public_key == class_point()


def test_pta_that_went_missing_is_named_at_the_next_call(start: Start) -> None:
    tee, program = start()
    program.open((), SOON_S)
    tee.break_next("ITEM_NOT_FOUND", call="open", uuid=str(PTA))
    refuse(program.describe, causes.PTA_MISSING)
    tee.change(built_in=(), supplicant=False, faults=())
    refuse(lambda: program.attest(MESSAGE), causes.PTA_MISSING)


def test_ctrl_c_ends_a_probe_that_nobody_answers(start: Start) -> None:
    """Somebody at the bench has waited long enough; the process that waits in the kernel goes with it."""
    _, program = start(built_in=(), supplicant=False)
    program.send("ask", PTA, (), 30.0)
    while not program_has_child(program):
        pass
    program.interrupt()
    answered = program.hear()
    assert answered.answer == "interrupted" and answered.took_s < 10
    assert program.call("children") == ""


def program_has_child(program: TeeProgram) -> bool:
    pid = program.process.pid
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii") != ""


@pytest.mark.parametrize("result", ["BUSY", "OUT_OF_MEMORY"])
def test_busy_tee_is_asked_again_and_is_not_broken(start: Start, result: str) -> None:
    tee, program = start()
    tee.break_next(result, call="open")
    with pytest.raises(Failed) as failed:
        program.open()
    assert failed.value.kind == "HardwareBusy"
    program.open()
    tee.break_next(result)
    with pytest.raises(Failed) as failed:
        program.attest(MESSAGE)
    assert failed.value.kind == "HardwareBusy"
    program.attest(MESSAGE)


# What the engine answers.


@pytest.mark.parametrize(
    ("part", "cause"),
    [
        (Part(), causes.UNLOCK_OR_B0),
        (Part("imx8mq"), causes.UNLOCK_OR_B0),
        (Part("imx8mq", "2.1"), causes.CSF_WITHOUT_UNLOCK),
        (Part("imx8mm", "1.0"), causes.CSF_WITHOUT_UNLOCK),
        (Part("imx8mm", "1.0", has_unlock=True), causes.UNLOCK_ELSEWHERE),
    ],
)
def test_closed_part_without_unlock_opens_and_then_says_the_csf_lacks_it(
    start: Start, part: Part, cause: Cause
) -> None:
    """A day of many: "pubk fails after closing". The opening cannot show it."""
    _, program = start({"unlock_mfg": False})
    program.open(part=part)
    refuse(program.describe, cause)
    failed = refuse(lambda: program.attest(MESSAGE), cause)
    assert "NOT_SUPPORTED" in failed.detail


def test_early_8mq_has_no_mp_and_the_next_attester_is_tried(start: Start) -> None:
    _, program = start({"part": "imx8mq", "revision": "2.0"})
    refuse(lambda: program.open(part=Part("imx8mq", "2.0")), causes.SILICON_B0)
    program.open()
    refuse(program.describe, causes.UNLOCK_OR_B0)


def test_8mq_of_minor_revision_0_is_told_by_its_revision_alone() -> None:
    """A closed one without Unlock looks the same from OP-TEE."""
    early = [Part("imx8mq", revision) for revision in ("1.0", "1.1", "2.0")]
    assert [causes.is_b0(part) for part in early] == [True, False, True]
    assert causes.explain_not_supported(early[2]) is causes.SILICON_B0
    assert not causes.is_b0(Part("imx8mm", "1.0")) and not causes.is_b0(Part("imx8mq"))


def test_later_8mq_works(start: Start) -> None:
    _, program = start({"part": "imx8mq", "revision": "2.1"})
    program.open(part=Part("imx8mq", "2.1"))
    assert program.describe().public_key is not None


def test_key_that_is_refused_by_a_chip_that_signs_is_a_case_of_its_own(start: Start) -> None:
    tee, program = start()
    program.open()
    for result in ("NOT_SUPPORTED", "GENERIC"):
        tee.break_next(result, command=1)
        refuse(program.describe, causes.KEY_HIDDEN)
    assert program.describe().public_key == class_point()


@pytest.mark.parametrize(
    ("result", "cause"),
    [
        ("GENERIC", causes.JOB_FAILED),
        ("EXCESS_DATA", causes.TOO_LONG),
        ("TARGET_DEAD", causes.CRASHED),
        ("COMMUNICATION", causes.SUPPLICANT_LOST),
        ("BAD_PARAMETERS", causes.FORMAT_ERROR),
        ("0xffff4321", causes.UNEXPECTED),
        ("BAD_STATE", causes.UNEXPECTED),
    ],
)
def test_every_result_of_a_call_has_its_cause(start: Start, result: str, cause: Cause) -> None:
    tee, program = start()
    program.open()
    tee.break_next(result, times=None)
    failed = refuse(lambda: program.attest(MESSAGE), cause)
    assert result in failed.detail or cause is causes.FORMAT_ERROR
    refuse(program.describe, cause)


def test_call_that_never_ends_is_given_up(start: Start) -> None:
    """Linux gated CAAM's clock under OP-TEE."""
    tee, program = start()
    program.open((), SOON_S)
    tee.break_next("HANG", times=None)
    failed = refuse(lambda: program.attest(MESSAGE), causes.CALL_WAITS)
    assert "within 400 ms" in failed.detail and program.call("children") == ""


def test_old_two_parameter_interface_is_recognised_for_what_it_is(start: Start) -> None:
    """It takes the key's command, tells no sizes, and would have overwritten the message by its signature."""
    _, program = start(abi="old")
    program.open()
    refuse(lambda: program.attest(MESSAGE), causes.OLD_ABI)
    refuse(program.describe, causes.OLD_ABI)


def test_old_interface_is_recognised_on_a_part_without_key_too(start: Start) -> None:
    """It got past the types, which the new one does not; what came of it then is no matter."""
    _, program = start({"unlock_mfg": False}, abi="old")
    program.open()
    refuse(lambda: program.attest(MESSAGE), causes.OLD_ABI)


def test_relay_with_another_interface_is_named(start: Start) -> None:
    """mp_sign without a pseudo-TA behind it answers so."""
    _, program = start(built_in=(), applications={str(RELAY): "mp_sign"})
    program.open((RELAY,))
    refuse(program.describe, causes.RELAY_SHAPE)
    refuse(lambda: program.attest(MESSAGE), causes.RELAY_SHAPE)


@pytest.mark.parametrize("how", ["sizes", "bytes"])
def test_success_with_nothing_in_it_is_never_sent(start: Start, how: str) -> None:
    """T-342 A boot loader locked its own MPMR, so OP-TEE's driver has no curve and says success."""
    _, program = start(mpmr_locked=how)
    program.open()
    refuse(program.describe, causes.MPMR_LOCKED)
    refuse(lambda: program.attest(MESSAGE), causes.MPMR_LOCKED)


def test_zero_key_is_never_sent(start: Start) -> None:
    """T-342 What a user got from a SECO part."""
    _, program = start(key="zero")
    program.open()
    refuse(program.describe, causes.MPMR_LOCKED)


def test_key_off_the_curve_is_never_sent(start: Start) -> None:
    """T-342 Fuses or CAAM are broken, and the driver does not look."""
    _, program = start(key="off-curve")
    program.open()
    refuse(program.describe, causes.KEY_OFF_CURVE)


def test_p521_part_is_refused_as_unverified(start: Start) -> None:
    """T-342 No vector of a real part exists to check it against."""
    _, program = start(curve="P-521")
    program.open()
    assert "profile-unverified" in str(refuse(program.describe, causes.CURVE_P521))
    refuse(lambda: program.attest(MESSAGE), causes.CURVE_P521)


@pytest.mark.parametrize("size", [1, 63, 65, 96, 131])
def test_size_of_no_curve_is_not_trusted(start: Start, size: int) -> None:
    """T-342 A key cut short would be another board's to a careless reader."""
    _, program = start(sizes={"key": size, "signature": size})
    program.open()
    refuse(program.describe, causes.SIZE_UNKNOWN)
    refuse(lambda: program.attest(MESSAGE), causes.SIZE_UNKNOWN)


def test_size_beyond_the_buffer_reads_nothing_beyond_it(start: Start) -> None:
    """T-343 What lies behind is memory of another parameter, or none."""
    _, program = start(sizes={"key": 133, "signature": 8000, "mpmr": 33})
    program.open()
    refuse(program.describe, causes.UNEXPECTED)
    failed = refuse(lambda: program.attest(MESSAGE), causes.UNEXPECTED)
    assert "larger than its room" in failed.detail


@pytest.mark.parametrize("size", [0, 31])
def test_mpmr_of_another_size_is_refused(start: Start, size: int) -> None:
    _, program = start(sizes={"mpmr": size})
    program.open()
    refuse(lambda: program.attest(MESSAGE), causes.MPMR_SIZE)


def test_full_buffer_that_is_mostly_zeros_is_no_p521_key(start: Start) -> None:
    """The current interface with a wrong size: the old one is ruled out by asking."""
    _, program = start(sizes={"key": 132})
    program.open()
    refuse(program.describe, causes.FORMAT_ERROR)


# The node.


@pytest.mark.parametrize(
    ("number", "kind", "is_absent"),
    [
        ("ENOENT", "NoNode", True),
        ("ENXIO", "NoNode", True),
        ("ENODEV", "NoNode", True),
        ("EACCES", "NoPermission", False),
        ("EPERM", "NoPermission", False),
        ("EBUSY", "KernelRefused", False),
    ],
)
def test_node_that_does_not_open_says_which_way(start: Start, number: str, kind: str, is_absent: bool) -> None:
    """T-344 Sent to look for a driver, its user would never look at a group; and only no node means no part."""
    _, program = start(open_errno=number)
    with pytest.raises(Failed) as failed:
        program.open()
    assert (failed.value.kind, failed.value.is_absent, failed.value.is_gone) == (kind, is_absent, True)
    assert failed.value.advice and "/dev/tee0" in str(failed.value)


def test_another_tee_is_named_and_no_mp_is_looked_for_there(start: Start) -> None:
    _, program = start(impl_id=3)
    with pytest.raises(Failed, match="another TEE: implementation 3") as failed:
        program.open()
    assert failed.value.kind == "OtherTee" and failed.value.is_absent
