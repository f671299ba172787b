"""The text of a job secret: what people and scanners do to it."""

import base64
import hashlib
import string

import pytest

from mpwire.jobsecret import TEXT_MAX_BYTES, Mistyped, read_job_secret, write_job_secret
from mpwire.secret import Secret

SECRET = Secret(bytes(range(16)))
TEXT = "MPJS1:AAAQ-EAYE-AUDA-OCAJ-BIFQ-YDIO-B6JW-CE7B"
ALPHABET = string.ascii_uppercase + "234567"


def spell(raw: bytes) -> str:
    return "MPJS1:" + base64.b32encode(raw).decode().rstrip("=")


def check_of(raw: bytes) -> bytes:
    return hashlib.sha256(b"mpagent/1/bundle-job-secret" + raw).digest()[:4]


def test_text_is_the_one_that_is_documented() -> None:
    assert write_job_secret(SECRET) == TEXT
    assert spell(bytes(range(16)) + check_of(bytes(range(16)))) == TEXT.replace("-", "")


@pytest.mark.parametrize("size", [16, 17, 18, 19, 20, 32, 63, 64])
def test_secret_of_any_length_comes_back(size: int) -> None:
    secret = Secret(hashlib.shake_128(b"job").digest(size))
    assert read_job_secret(write_job_secret(secret)) == secret


@pytest.mark.parametrize(
    "text",
    [
        TEXT + "\n",
        TEXT + "\r\n",
        TEXT.replace("-", ""),
        TEXT.replace("-", " "),
        "MPJS1: " + TEXT[6:] + "  ",
        "MPJS1:" + "--".join(TEXT[6:].replace("-", "")),
    ],
)
def test_gaps_and_line_ends_change_nothing(text: str) -> None:
    assert read_job_secret(text) == SECRET


def test_every_mistyped_character_is_noticed() -> None:
    """T-675 Accident: one character wrong, missing, doubled or exchanged with its neighbour opens nothing."""
    digits = TEXT[6:].replace("-", "")
    wrong = {digits[:at] + one + digits[at + 1 :] for at in range(len(digits)) for one in ALPHABET + "0189äa_"}
    wrong |= {digits[:at] + digits[at + 1 :] for at in range(len(digits))}
    wrong |= {digits[:at] + digits[at] + digits[at:] for at in range(len(digits))}
    wrong |= {digits[:at] + digits[at + 1] + digits[at] + digits[at + 2 :] for at in range(len(digits) - 1)}
    for one in wrong - {digits}:
        with pytest.raises(Mistyped, match=r"^job secret: ") as caught:
            read_job_secret("MPJS1:" + one)
        assert digits[:8] not in str(caught.value) and one not in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, 4, 15, 65, 100])
def test_length_that_no_job_secret_has_is_refused(size: int) -> None:
    raw = bytes(size)
    with pytest.raises(Mistyped, match=r"missing|nothing|none of"):
        read_job_secret(spell(raw + check_of(raw)))
    with pytest.raises(ValueError, match="16 to 64 bytes"):
        write_job_secret(Secret(raw))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is nothing"),
        (" \r\n", "there is nothing"),
        (TEXT[6:], "begins with MPJS1:"),
        (TEXT.replace(":", "Ö"), "keyboard layout"),
        (TEXT.lower(), "keyboard layout"),
        ("MPJS2:" + TEXT[6:], "begins with MPJS1:"),
        (TEXT + "\n" + TEXT + "\n", "one line"),
        (TEXT + " " * TEXT_MAX_BYTES, "one line"),
        ("MPJS1:" + TEXT[6:].lower(), "character 1 behind the colon"),
        ("MPJS1:" + TEXT[6:] + "====", "none of A-Z and 2-7"),
        ("MPJS1:", "missing"),
        ("\ufeff" + TEXT, "begins with"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(Mistyped, match=said):
        read_job_secret(text)


def test_second_spelling_of_the_same_bytes_is_refused() -> None:
    """The last character of base32 has bits that say nothing: they are zero, or it was typed by nobody we know."""
    raw = hashlib.shake_128(b"job").digest(17)
    digits = write_job_secret(Secret(raw)).replace("-", "")
    last = ALPHABET.index(digits[-1])
    assert base64.b32decode((digits[6:-1] + ALPHABET[last ^ 1]) + "=" * (-len(digits[6:]) % 8))[:17] == raw
    with pytest.raises(Mistyped, match="mistyped"):
        read_job_secret(digits[:-1] + ALPHABET[last ^ 1])
