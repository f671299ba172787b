"""What doctor finds out about MP, and the table of causes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpagent.hal.mp import causes
from mpagent.hal.mp.causes import CAUSES, Cause
from mpagent.hal.mp.door import PROBE_MESSAGE, PTA
from mpagent.hal.mp.examination import XTEST_MP_SIGN, judge_signature
from mpwire import codec, mp, p256
from mpwire.errors import Malformed
from tests.mpagent.tee_program import Start, class_point, starting

SOON_S = 0.4
"""A deadline that is waited for."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with starting(tmp_path / "board") as make:
        yield make


def test_working_board_is_examined_whole(start: Start) -> None:
    _, program = start()
    found = program.examine()
    assert (found.cause, found.door, found.public_key, found.mpmr) == (None, PTA, class_point(), mp.MPMR_OPTEE)
    assert found.key_readable and found.xtest_ta == "missing"


def test_xtest_ta_on_the_image_is_found_even_where_the_pta_is_closed(start: Start) -> None:
    """T-345 Anyone who may open the node signs with it, whatever the access control of the pseudo-TA says."""
    _, program = start(access_control=True, applications={str(XTEST_MP_SIGN): "mp_sign"})
    found = program.examine()
    assert found.xtest_ta == "answers" and found.key_readable and found.public_key is None
    assert found.cause is not None and found.cause.name == causes.ACCESS_CONTROLLED.name
    assert program.call("is_key_readable") is True


def test_key_behind_access_control_is_not_readable(start: Start) -> None:
    _, program = start(access_control=True)
    assert program.examine().key_readable is False
    assert program.call("is_key_readable") is False


@pytest.mark.parametrize("scenario", [{"abi": "old"}, {"curve": "P-521"}, {"sizes": {"key": 96}}])
def test_key_that_we_refuse_is_readable_all_the_same(start: Start, scenario: dict[str, Any]) -> None:
    """T-345 A production image fails for it: what is useless to us is not to a thief."""
    _, program = start(**scenario)
    assert program.examine().key_readable and program.call("is_key_readable") is True


def test_chip_that_hides_its_key_and_signs_gives_it_away(start: Start) -> None:
    """T-345 An ECDSA signature gives the public key to whoever computes."""
    tee, program = start()
    tee.break_next("NOT_SUPPORTED", command=1, times=None)
    found = program.examine()
    assert found.cause is not None and found.cause.name == causes.KEY_HIDDEN.name
    assert found.public_key is None and found.key_readable


def test_xtest_ta_cannot_be_ruled_out_without_tee_supplicant(start: Start) -> None:
    tee, program = start(supplicant=False)
    assert program.find_xtest_ta(SOON_S) == "unknown"
    tee.break_next("SECURITY", call="open")
    assert program.find_xtest_ta(SOON_S) == "refuses"


def test_examination_names_the_cause_and_keeps_what_worked(start: Start) -> None:
    tee, program = start()
    tee.break_next("GENERIC", command=0, times=None)
    found = program.examine()
    assert found.cause is not None and found.cause.name == causes.JOB_FAILED.name
    assert found.public_key == class_point() and found.mpmr is None and found.key_readable


def test_signature_that_does_not_hold_is_found_by_the_examination() -> None:
    """The engine's MPMR is not the one that came with the signature, or a relay TA changed the message."""
    key = p256.SoftKey.generate()
    signature = key.sign_digest(mp.digest(PROBE_MESSAGE, mp.MPMR_OPTEE))
    assert judge_signature(key.public_key(), mp.MPMR_OPTEE, signature) is None
    assert judge_signature(key.public_key(), mp.MPMR_ZERO, signature) is causes.SIGNATURE_FALSE
    changed = key.sign_digest(mp.digest(b"relay:" + PROBE_MESSAGE, mp.MPMR_OPTEE))
    assert judge_signature(key.public_key(), mp.MPMR_OPTEE, changed) is causes.SIGNATURE_FALSE


def test_examined_message_is_no_statement() -> None:
    """T-346 A Sig_structure is an array of CBOR; this begins like a text, and no reader takes it."""
    assert PROBE_MESSAGE[0] >> 5 == 3
    with pytest.raises(Malformed):
        codec.decode(PROBE_MESSAGE)


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        (0x00000000, None),
        (0x00010000, causes.FUSES_MISPROGRAMMED),
        (0x01FF0000, causes.FUSES_MISPROGRAMMED),
        (0x08000000, causes.FUSES_EMPTY),
        (0x0000FFFF, None),
    ],
)
def test_fuse_check_register_tells_wrong_fuses_from_empty_ones(word: int, cause: Cause | None) -> None:
    """No result of OP-TEE tells it: the value is read in U-Boot."""
    assert causes.explain_mpecc(word) is cause


def test_every_cause_has_a_name_of_its_own_and_one_clause_of_advice() -> None:
    assert len({cause.name for cause in CAUSES}) == len({cause.text for cause in CAUSES}) == len(CAUSES)
    for cause in CAUSES:
        assert cause.advice and not cause.advice.endswith(".") and "\n" not in cause.advice + cause.text


def test_every_cause_is_met_by_a_test() -> None:
    told = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_mp*.py"))
    names = {value.name: name for name, value in vars(causes).items() if isinstance(value, Cause)}
    assert [name for name in names.values() if f"causes.{name}" not in told] == []
