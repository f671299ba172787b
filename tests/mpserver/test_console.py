"""The reader of U-Boot consoles: every paste of one log says the same, and nothing cut off or bent is taken."""

import contextlib
import re
import time
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpserver.console import FAILURES, LOG_MAX_BYTES, read_console
from mpserver.errors import LogWrong
from mpserver.mpfinding import LogFinding, weigh
from mpwire import mp
from tests.mpserver import consoles
from tests.mpserver.consoles import BOARD_A, BOARD_B, OTHER, P384_KEY, PASTES, pubk, seco, sign, sign_by
from tests.vectors.silicon import A_DIGEST, A_KEY, A_MESSAGE, A_SIGNATURE, B_DIGEST


def read(text: str | bytes) -> LogFinding:
    return weigh(read_console(text.encode() if isinstance(text, str) else text))


@pytest.mark.parametrize("paste", PASTES)
@pytest.mark.parametrize("log", [BOARD_A, BOARD_B, seco()], ids=["caam", "caam without its key", "seco"])
def test_however_a_log_was_pasted_it_says_the_same(paste: str, log: str) -> None:
    assert read(PASTES[paste](log)) == read(log)


def test_vector_a_as_a_log_is_verified_under_an_empty_mpmr() -> None:
    found = read(BOARD_A)
    assert (found.key, found.curve, found.verified, found.mpmr) == (A_KEY, "P-256", True, "zero")
    assert found.digest is not None and found.digest.hex() == A_DIGEST and found.signatures == 1


def test_vector_b_without_its_key_tells_the_mpmr_by_its_digest() -> None:
    console = read_console(BOARD_B.encode())
    found = weigh(console)
    assert console.redacted and found.key is None and found.verified is None
    assert found.mpmr == "optee-constant" and found.digest is not None and found.digest.hex() == B_DIGEST


def test_a_seco_log_tells_its_key_and_cannot_be_verified() -> None:
    found = read(seco())
    assert (found.key, found.curve, found.verified, found.mpmr) == (P384_KEY, "P-384", None, "unknown")
    assert found.digest is None and found.signatures == 1


def test_an_mpmr_of_the_oems_own_is_unknown_until_it_is_given() -> None:
    own = bytes(range(32))
    log = pubk(OTHER.public_key()[1:]) + sign_by(OTHER, b"hello", own)
    assert (read(log).mpmr, read(log).verified) == ("unknown", True)
    assert weigh(read_console(log.encode()), own).mpmr == "given"


def test_pubk_twice_is_one_key() -> None:
    assert read(pubk() + pubk()).key == A_KEY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (pubk() + pubk(OTHER.public_key()[1:]), "two different keys"),
        (pubk(bytes(64)), "all zeros"),
        (seco(bytes(96)), "all zeros"),
        (pubk(A_KEY[:-1] + b"\x00"), "no point of P-256"),
        (seco(P384_KEY[:-1] + b"\x00"), "no point of P-384"),
        (pubk(A_KEY[:-1]), "has 126 digits"),
        (pubk(A_KEY + b"\x00"), "has 130 digits"),
        (pubk().replace("F4C207AA", "F4C207A"), "has 127 digits"),
        (pubk().replace("F4C207AA", "F4C207A?"), "among the digits"),
        (pubk() + sign(digest=A_DIGEST[:-2]), "has 62 digits"),
        (pubk() + sign(digest="00" * 32), "not what the key in this log signed"),
        (pubk() + sign(message=b"\x7a\x5d\x4d")[:-90], "has|is missing"),
        (pubk() + sign(signature=A_SIGNATURE[:-1]), "d has 62 digits"),
        (pubk() + sign(signature=bytes(64)), "the signature is zero"),
        (pubk() + sign(signature=A_SIGNATURE[:32] + bytes(32)), "the signature is zero"),
        (pubk(OTHER.public_key()[1:]) + sign(), "not what the key in this log signed"),
        (seco(signed=False) + sign(), "beside a key of another curve"),
        (pubk() + sign().replace("7A 5D 4D A3 ", "7A 5D 4D A"), "number of bytes"),
        (pubk() + sign().replace("7A 5D 4D A3 ", ""), "number of bytes"),
        (pubk() + sign().split("Message Rep")[0], "cut off"),
        (pubk() + sign().split("d:")[0], "cut off: d is missing"),
        (re.sub(r"Message Rep.*\n.*\n", "", pubk() + sign()), "the digest is missing"),
        (
            pubk(OTHER.public_key()[1:]) + sign_by(OTHER, b"one", mp.MPMR_ZERO) + sign_by(OTHER, b"two", mp.MPMR_OPTEE),
            "two boot chains",
        ),
        (pubk() + re.sub(r"d:\n\w+", "d:\n" + "5A" * 48, sign()), "c has 64 digits and d has 96"),
        (pubk() + sign().split("Message Rep")[0] + "Message: 7A 5D \n" + sign(), "cut off"),
        ("Starting kernel ...\nPublic key:\n", "no output"),
        ("", "no output"),
        ("dmesg: Loaded X.509 cert, Public key: RSA\n", "no output"),
    ],
)
def test_a_log_that_is_cut_off_or_contradicts_itself_is_refused(text: str, said: str) -> None:
    """T-297 Accident: half a log, or the logs of two boards in one file."""
    with pytest.raises(LogWrong, match=said):
        read(text)


@pytest.mark.parametrize(("text", "cause"), FAILURES)
def test_a_failure_of_the_boot_loader_is_named_with_its_cause(text: str, cause: str) -> None:
    log = f"=> mfgprot pubk\n\nGenerating Manufacturing Protection Public Key\n{text} -2\n=> "
    with pytest.raises(LogWrong) as caught:
        read(log)
    assert text in str(caught.value) and cause in str(caught.value) and "line 4" in str(caught.value)


def test_a_failure_of_another_command_far_away_is_none_of_ours() -> None:
    log = "=> mfgprot sign\n" + "boot\n" * 20 + "=> dek_blob 0x1\nexit not allowed from main input shell.\n"
    with pytest.raises(LogWrong, match="no output"):
        read(log)


def test_a_second_try_that_worked_counts_and_the_first_is_told() -> None:
    failed = "=> mfgprot pubk\nSEC Dequeue timed out\nexit not allowed from main input shell.\n"
    console = read_console((failed + BOARD_A).encode())
    assert [one.line for one in console.failures] == [2, 3] and weigh(console).key == A_KEY


def test_pubk_that_fails_where_sign_works_is_told_as_both() -> None:
    """community.nxp.com 1847143: a closed 8MM that signed and gave no key."""
    console = read_console(("=> mfgprot pubk\nexit not allowed from main input shell.\n=> " + sign()).encode())
    found = weigh(console)
    assert len(console.failures) == 1 and found.key is None and found.mpmr == "zero"


def test_an_open_part_is_noticed() -> None:
    opened = "=> hab_status\nSecure boot disabled\n\nHAB Configuration: 0xf0, HAB State: 0x66\n"
    closed = "=> hab_status\nSecure boot enabled\n\nHAB Configuration: 0xcc, HAB State: 0x99\n"
    assert read_console((opened + BOARD_A).encode()).is_open
    assert not read_console((closed + BOARD_A).encode()).is_open


def test_a_message_of_many_lines_is_joined() -> None:
    message = bytes(range(256)) * 4
    log = pubk(OTHER.public_key()[1:]) + sign_by(OTHER, message, mp.MPMR_OPTEE)
    assert read(consoles.wrap(log, 72)).mpmr == read(consoles.stamp(consoles.wrap(log, 72))).mpmr == "optee-constant"


def test_a_log_of_any_size_is_refused_before_it_is_read() -> None:
    with pytest.raises(LogWrong, match="longer than"):
        read_console(bytes(LOG_MAX_BYTES + 1))


@pytest.mark.parametrize(
    "line", ["\x1b]" * 100_000, "Public key: " * 50_000, "[" * 200_000 + "Public key:", "Message: " + "4D " * 300_000]
)
def test_one_endless_line_takes_no_endless_time(line: str) -> None:
    before = time.process_time()
    with contextlib.suppress(LogWrong):
        read(f"=> mfgprot pubk\n{line}\n")
    assert time.process_time() - before < 5


@settings(max_examples=300)
@given(raw=st.binary(max_size=400))
@example(b"=> mfgprot pubk\nPublic key:\n\n")
@example(b"Message: 4D")
def test_noise_is_refused_by_name(raw: bytes) -> None:
    try:
        read(raw)
    except LogWrong as error:
        assert 10 < len(str(error)) < 600 and "\n" not in str(error)


@settings(max_examples=300)
@given(seed=st.integers(0, 2**32 - 1), paste=st.sampled_from(sorted(PASTES)))
def test_a_bent_log_never_makes_another_key_or_verdict(seed: int, paste: str) -> None:
    """T-297 Accident: a byte that a line lost or changed is found out, or changed nothing that counts."""
    random, raw = Random(seed), bytearray(PASTES[paste](BOARD_A))
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(raw))
        match random.randrange(3):
            case 0:
                del raw[at]
            case 1:
                raw[at] = random.randrange(256)
            case _:
                raw.insert(at, random.randrange(256))
    try:
        found = read(bytes(raw))
    except LogWrong:
        return
    assert found.key in (A_KEY, None)
    assert found.verified is not True or found.mpmr in ("zero", "unknown")
    assert found.digest is None or found.digest.hex() == A_DIGEST or found.verified is None


@settings(max_examples=100)
@given(width=st.integers(40, 200), paste=st.sampled_from(["as printed", "CR LF", "in colours", "with times"]))
def test_a_terminal_of_any_width_shows_the_same(width: int, paste: str) -> None:
    assert read(PASTES[paste](consoles.wrap(BOARD_A, width))) == read(BOARD_A)


def test_the_message_of_vector_a_is_read_as_memory_holds_it() -> None:
    assert read_console(BOARD_A.encode()).signed[0].message == A_MESSAGE
