"""OP-TEE's attestation pseudo-TA as attester, in a process of its own over the emulated ioctls."""

import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mpagent.errors import HardwareBusy
from mpsim.optee.attestation import hash_of_build, put_key, storage_file
from mpsim.optee.bench import EmulatedTee
from mpwire import optee
from tests.mpagent.tee_program import DEADLINE_S, Failed, TeeProgram
from tests.mpsim.tee_bench import tee_of_board

MESSAGE = b"a statement\0with a zero in it"
SOON_S = 0.4
"""A deadline that is waited for."""


@pytest.fixture
def tee(tmp_path: Path) -> Iterator[EmulatedTee]:
    with tee_of_board(tmp_path / "board") as made:
        yield made


@pytest.fixture
def program(tee: EmulatedTee) -> Iterator[TeeProgram]:
    with TeeProgram(tee.environment()) as started:
        yield started


def begin(program: TeeProgram, deadline_s: float = DEADLINE_S) -> None:
    program.call("open_attestation", deadline_s)


def refuse(program: TeeProgram, verb: str, *arguments: object) -> Failed:
    with pytest.raises(Failed) as failed:
        program.call(verb, *arguments)
    return failed.value


def test_signature_covers_the_hash_of_the_message_and_the_measurement(program: TeeProgram) -> None:
    """Spelled out beside mpwire.optee: nonce = SHA-256(message), signed digest = SHA-256(nonce || measurement)."""
    begin(program)
    material, attestation = program.describe(), program.attest(MESSAGE)
    assert material.rsa_public is not None and attestation.measurement is not None
    assert (material.kind, material.attester_id) == ("optee", sha256(material.rsa_public).digest())
    assert attestation.measurement == hash_of_build("4.10.0")
    key = load_der_public_key(material.rsa_public)
    assert isinstance(key, rsa.RSAPublicKey)
    digest = sha256(sha256(MESSAGE).digest() + attestation.measurement).digest()
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    key.verify(attestation.signature, digest, scheme, Prehashed(hashes.SHA256()))
    optee.verify_optee(material.rsa_public, MESSAGE, attestation.measurement, attestation.signature)


def test_another_release_of_op_tee_is_seen_in_the_measurement(tee: EmulatedTee, program: TeeProgram) -> None:
    begin(program)
    before = program.attest(MESSAGE).measurement
    tee.change(build="4.11.0")
    assert program.attest(MESSAGE).measurement not in (None, before)


def test_a_reflash_of_the_storage_makes_another_attester(tee: EmulatedTee) -> None:
    ids = []
    for _ in range(2):
        with TeeProgram(tee.environment()) as program:
            begin(program)
            ids.append(program.describe().attester_id)
        tee.reflash()
    assert ids[0] != ids[1]


def test_a_key_replaced_under_a_running_agent_is_told_and_its_signature_kept_back(
    tee: EmulatedTee, program: TeeProgram
) -> None:
    """T-360 Swap: the secure storage is written anew between Hello and Proof, so another key signs."""
    begin(program)
    before = program.describe()
    tee.reflash()
    failed = refuse(program, "attest", MESSAGE)
    assert failed.is_gone and not failed.is_absent
    assert "another key signed" in str(failed) and "register it again" in failed.advice
    assert program.describe() == before


def test_op_tee_without_the_pseudo_ta_is_absent(tee: EmulatedTee, program: TeeProgram) -> None:
    tee.change(built_in=("mp", "ocotp"))
    failed = refuse(program, "open_attestation", DEADLINE_S)
    assert failed.is_absent and "no attestation pseudo-TA" in str(failed)


@pytest.mark.parametrize(("refused", "kind", "absent"), [("ENOENT", "NoNode", True), ("EACCES", "NoPermission", False)])
def test_missing_node_and_missing_permission_are_two_things(
    tee: EmulatedTee, program: TeeProgram, refused: str, kind: str, absent: bool
) -> None:
    tee.change(open_errno=refused)
    failed = refuse(program, "open_attestation", DEADLINE_S)
    assert (failed.kind, failed.is_absent, failed.is_gone) == (kind, absent, True)


def test_without_supplicant_it_says_so_soon_and_leaves_no_process(tee: EmulatedTee, program: TeeProgram) -> None:
    """T-363 Hang: making a key may take minutes; waiting for a supplicant that is not there may not."""
    tee.change(supplicant=False)
    begin(program)
    begin(program, SOON_S)
    began = time.monotonic()
    failed = refuse(program, "describe")
    assert time.monotonic() - began < 10 * SOON_S
    assert "waits for tee-supplicant" in str(failed) and "start tee-supplicant" in failed.advice
    assert program.call("children").split() == []
    assert not storage_file(tee.chip).exists()


def test_a_key_that_takes_its_time_to_be_made_is_waited_for(tee: EmulatedTee, program: TeeProgram) -> None:
    """Killed half-way, it would be made anew at every try; only its first use takes that long."""
    tee.change(key_making_s=3.0)
    begin(program, 2.0)
    assert program.time("describe").took_s > 3.0
    assert program.time("attest", MESSAGE).took_s < 2.0


def test_a_key_in_memory_needs_no_supplicant(tee: EmulatedTee, program: TeeProgram) -> None:
    """So does an RPMB that the kernel serves itself: only the pseudo-TA knows whether it needs one."""
    begin(program)
    before = program.describe()
    tee.change(supplicant=False)
    begin(program, SOON_S)
    assert program.describe() == before


@pytest.mark.parametrize("storage", ["full", "damaged"])
def test_a_storage_that_fails_is_named_with_what_follows_from_it(
    tee: EmulatedTee, program: TeeProgram, storage: str
) -> None:
    """T-361 Accident: OP-TEE goes on with a key that it did not store, and a reboot would make the board another."""
    begin(program)
    if storage == "damaged":
        program.describe()
        tee.power_cycle()
        begin(program)
    tee.change(storage=storage)
    failed = refuse(program, "describe")
    assert failed.is_gone and not failed.is_absent
    assert "cannot use its key" in str(failed) and "reboot before this board's key is registered" in failed.advice
    assert not storage_file(tee.chip).exists()


@pytest.mark.parametrize("call", ["open", "invoke"])
def test_a_busy_op_tee_is_asked_again(tee: EmulatedTee, program: TeeProgram, call: str) -> None:
    begin(program)
    program.describe()
    tee.break_next("BUSY", call=call)
    assert refuse(program, "attest", MESSAGE).kind == HardwareBusy.__name__
    program.attest(MESSAGE)
    tee.change(faults=())
    tee.break_next("OUT_OF_MEMORY", call="open")
    assert refuse(program, "open_attestation", DEADLINE_S).kind == HardwareBusy.__name__


def test_an_open_that_is_refused_for_another_reason_is_broken_and_not_absent(
    tee: EmulatedTee, program: TeeProgram
) -> None:
    begin(program)
    program.describe()
    tee.break_next("ACCESS_DENIED", call="open", times=2)
    for verb, argument in (("open_attestation", DEADLINE_S), ("attest", MESSAGE)):
        failed = refuse(program, verb, argument)
        assert (failed.kind, failed.is_absent) == ("TeeFailed", False)


@pytest.mark.parametrize("size", [0, 4097])
def test_a_message_out_of_bounds_is_refused_before_op_tee_is_asked(
    tee: EmulatedTee, program: TeeProgram, size: int
) -> None:
    begin(program)
    assert refuse(program, "attest", bytes(size)).kind == "Malformed"
    assert tee.server.answered("invoke") == []


@pytest.mark.parametrize("bits", [2048, 4096])
def test_a_key_of_another_size_is_refused_with_the_build_flag(tee: EmulatedTee, program: TeeProgram, bits: int) -> None:
    put_key(tee.chip, rsa.generate_private_key(65537, bits))
    begin(program)
    failed = refuse(program, "describe")
    assert failed.is_gone and "CFG_ATTESTATION_PTA_KEY_SIZE=3072" in failed.advice


@pytest.mark.parametrize(
    ("lie", "text"),
    [("false", "signed something else"), ("short", "have not 416 bytes"), ("other", "another algorithm")],
)
def test_an_answer_that_is_not_what_it_says_never_leaves_the_board(
    tee: EmulatedTee, program: TeeProgram, lie: str, text: str
) -> None:
    """T-362 Accident: what OP-TEE answers is another signature, size or algorithm than it says."""
    tee.change(attestation=lie)
    begin(program)
    failed = refuse(program, "attest", MESSAGE)
    assert failed.is_gone and not failed.is_absent and text in str(failed)
