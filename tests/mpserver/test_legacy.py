"""NXP's old key files: what openssl encrypts as U-Boot's README says comes out, and nothing is shown on the way."""

import hashlib
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpserver import legacy
from mpserver.commands.legacy import READ_MAX_BYTES
from mpwire import hkdf
from mpwire.bundlekeys import make_mpk_id
from mpwire.mpk import HiddenMpKey
from tests.mpserver.consoles import OTHER, pubk, sign_by
from tests.mpserver.desk import Desk
from tests.vectors.silicon import A_KEY

VALUE = hashlib.sha256(b"disk key").digest()
PKEK = hashlib.sha256(A_KEY).hexdigest()
KEY_ID = make_mpk_id(lambda info: hkdf.expand(HiddenMpKey(A_KEY).extract(), info)).hex()


def encrypt(plain: bytes, key: str = PKEK) -> bytes:
    """As NXP's README tells the OEM to, by a tool that is not ours."""
    command = ["openssl", "enc", "-aes-256-ecb", "-nopad", "-K", key]
    return subprocess.run(command, input=plain, capture_output=True, check=True).stdout


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """An old file and its key, on a machine without a server."""
    made = Desk(tmp_path, capsys)
    made.write("old.bin", encrypt(VALUE))
    made.write("key.bin", A_KEY)
    return made


def words(desk: Desk, *more: str, key: str = "key.bin", file: str = "old.bin") -> list[str]:
    at = desk.folder
    return [
        *("legacy", "convert", str(at / file), "--key-file", str(at / key)),
        *("--slot", "disk-key", "--out", str(at / "value"), *more),
    ]


def test_what_openssl_encrypted_comes_out_in_a_file_of_ones_own(desk: Desk) -> None:
    shown = desk.read(*words(desk, "--confirm", KEY_ID))
    out = desk.folder / "value"
    assert out.read_bytes() == VALUE and stat.S_IMODE(out.stat().st_mode) == 0o600
    assert (shown["key_id"], shown["authenticated"], shown["slot"]) == (KEY_ID, False, "disk-key")
    assert sorted(one.name for one in desk.folder.iterdir()) == ["key.bin", "old.bin", "value"]


@pytest.mark.parametrize(
    "key",
    [A_KEY, b"\x04" + A_KEY, A_KEY.hex().encode() + b"\n", b"04" + A_KEY.hex().upper().encode(), pubk().encode()],
    ids=["raw", "with 04", "digits", "digits with 04", "console"],
)
def test_the_key_is_taken_in_every_form_people_have(desk: Desk, key: bytes) -> None:
    desk.write("form", key)
    assert desk.run(*words(desk, "--confirm", KEY_ID, key="form"))[0] == 0
    assert (desk.folder / "value").read_bytes() == VALUE


def test_nothing_is_written_before_the_key_is_confirmed(desk: Desk) -> None:
    """T-710 Legacy: without a MAC any key opens the file, to another value; so a person names the key."""
    desk.write("other", OTHER.public_key()[1:])
    assert desk.read(*words(desk), code=77)["written"] is None
    for more, key in (((), "other"), (("--confirm", KEY_ID), "other"), (("--confirm", KEY_ID[:16]), "key.bin")):
        code, out, err = desk.run(*words(desk, *more, key=key))
        assert code == 77 and "nothing was written" in out + err
    assert not (desk.folder / "value").exists()


def test_every_answer_says_that_nothing_is_proven(desk: Desk) -> None:
    """T-710 Legacy: a changed file opens as well, so nobody may take the value for the one that was encrypted."""
    old = desk.folder / "old.bin"
    changed = bytearray(old.read_bytes())
    changed[0] ^= 1
    desk.write("changed", bytes(changed))
    for file in ("old.bin", "changed"):
        for command in (
            ["legacy", "inspect", str(desk.folder / file)],
            words(desk, file=file),
            words(desk, "--confirm", KEY_ID, file=file),
        ):
            _, out, _ = desk.run(*command)
            assert legacy.UNPROVEN in out
        (desk.folder / "value").unlink()


def test_neither_value_nor_any_key_is_printed(desk: Desk) -> None:
    """T-711 Legacy leak: SHA-256 of the MP public key, a fingerprint elsewhere, opens every old file."""
    said = ""
    for command in (
        ["legacy", "inspect", str(desk.folder / "old.bin")],
        words(desk),
        words(desk, "--confirm", "00"),
        words(desk, "--confirm", KEY_ID),
        words(desk, "--confirm", KEY_ID),
    ):
        for form in ([], ["--json"]):
            said += "".join(map(str, desk.run(*command, *form)[1:]))
    for secret in (VALUE, A_KEY, A_KEY[:32], bytes.fromhex(PKEK)):
        assert secret.hex() not in said.lower() and repr(secret) not in said
    assert KEY_ID in said


def test_a_key_that_signed_or_that_all_open_parts_share_is_refused(desk: Desk) -> None:
    signed = pubk(OTHER.public_key()[1:]) + sign_by(OTHER, b"nonce", bytes(32))
    desk.write("signed", signed)
    desk.write("open", "HAB Configuration: 0xf0, HAB State: 0x66\n" + pubk())
    for key, reason in (("signed", "gives the public key away"), ("open", "open part")):
        code, _, err = desk.run(*words(desk, "--confirm", KEY_ID, key=key))
        assert code == 77 and reason in err
    assert not (desk.folder / "value").exists()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "has 0"),
        (bytes(31), "has 31"),
        (bytes(33), "has 33"),
        (bytes(48), "has 48"),
        (encrypt(VALUE).hex().encode(), "xxd"),
        (bytes.fromhex("4f676154") + bytes(108), "black blob"),
        (bytes(112), "black blob"),
        (bytes(READ_MAX_BYTES + 1), "has 4096"),
    ],
)
def test_what_is_no_old_file_is_named(desk: Desk, raw: bytes, reason: str) -> None:
    desk.write("old.bin", raw)
    for command in (["legacy", "inspect", str(desk.folder / "old.bin")], words(desk, "--confirm", KEY_ID)):
        code, _, err = desk.run(*command)
        assert code == 65 and reason in err
    assert not (desk.folder / "value").exists()


@pytest.mark.parametrize("raw", [b"", bytes(64), b"\xff" * 64, bytes(65), b"05" * 65, b"zz" * 64, os.urandom(900)])
def test_what_is_no_key_is_refused_without_repeating_it(desk: Desk, raw: bytes) -> None:
    desk.write("key.bin", raw)
    code, _, err = desk.run(*words(desk))
    assert code in (64, 65) and len(err) < 300


def test_pipes_folders_and_what_stands_there_already_are_refused(desk: Desk) -> None:
    os.mkfifo(desk.folder / "pipe")
    for place in ("pipe", ".", "missing"):
        assert desk.run(*words(desk, file=place))[0] == 64
        assert desk.run(*words(desk, key=place))[0] == 64
    desk.write("value", "mine")
    code, _, err = desk.run(*words(desk, "--confirm", KEY_ID))
    assert code == 64 and "exists already" in err and (desk.folder / "value").read_bytes() == b"mine"
    assert desk.run(*words(desk, "--confirm", KEY_ID, "--slot", "no/slot"))[0] == 64


def test_a_folder_that_takes_no_file_leaves_none(desk: Desk) -> None:
    code, _, err = desk.run(*words(desk, "--confirm", KEY_ID, "--out", str(desk.folder / "none" / "value")))
    assert code == 74 and "cannot write" in err


def test_equal_halves_are_seen_through_the_encryption(desk: Desk) -> None:
    desk.write("old.bin", encrypt(VALUE[:16] * 2))
    assert any("both halves" in one for one in desk.read("legacy", "inspect", str(desk.folder / "old.bin"))["notes"])
    assert legacy.has_equal_halves(encrypt(VALUE[:16] * 2)) and not legacy.has_equal_halves(encrypt(VALUE))


def test_a_command_that_is_killed_leaves_the_whole_value_or_none(desk: Desk) -> None:
    """T-712 Legacy cut: half of a key, or an empty file, would go into a bundle as a value."""
    for wait in (0.0, 0.1, 0.2, 0.3, 0.4):
        command = [sys.executable, "-m", "mpserver", *words(desk, "--confirm", KEY_ID)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as started:
            time.sleep(wait)
            started.send_signal(signal.SIGKILL)
        out = desk.folder / "value"
        assert not out.exists() or out.read_bytes() == VALUE
        out.unlink(missing_ok=True)
