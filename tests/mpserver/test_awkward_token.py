"""Tokens that SoftHSM2 is not, and what a server makes of them: a module of ours changes one answer of SoftHSM2.

Each case is a process of its own, as a command is.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from mpsim.softhsm import PIN, SoftHsm
from tests.awkward import build_module

LABEL = "oem"

SERVER = """
import sys
from pathlib import Path
from threading import Thread
from mpserver.authority import IssuerAuthority, open_safe
from mpserver.errors import StoreDamaged
from mpserver.keystore import Keystore
from mpsim.clock import SetClock
from mpwire.errors import MpError
from mpwire.p256 import verify
from mpwire.secret import Secret

def say(name, act):
    try:
        print(name, act())
    except MpError as error:
        print(name, type(error).__name__, error, error.detail)

store = Keystore(Path(sys.argv[1]))
def open_all():
    return IssuerAuthority(open_safe(store), store, "lab", SetClock(1_800_000_000))
try:
    authority = open_all()
except MpError as error:
    sys.exit(f"{type(error).__name__} {error} {error.detail}".strip())
def sign():
    verify(authority.public_key("grant"), b"x", authority.sign("grant", b"x"))
    return "verified"
say("sign", sign)
authority.safe.make_job_key("lot")
blob = authority.wrap("lot", Secret(b"value"), b"context")
print("nonce", blob[:12].hex())
say("unwrap", lambda: authority.unwrap("lot", blob, b"context") == Secret(b"value"))
say("damaged", lambda: authority.unwrap("lot", blob[:-1] + bytes((blob[-1] ^ 1,)), b"context"))
wrong = []
def work():
    for _ in range(20):
        try:
            sign()
        except Exception as error:
            wrong.append(repr(error))
threads = [Thread(target=work) for _ in range(8)]
[one.start() for one in threads]
[one.join() for one in threads]
print("threads", wrong)
"""


class Told(NamedTuple):
    """How a process ended."""

    lines: list[str]
    fault: str
    logins: int


Live = Callable[..., Told]


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_module(tmp_path_factory.mktemp("awkward"))


@pytest.fixture
def live(module: Path, tmp_path: Path) -> Live:
    """What a server does with a token of this trait; set up with one that has none."""
    token, log, state = SoftHsm(tmp_path / "token", LABEL), tmp_path / "logins", tmp_path / "state"
    token.initialize()
    words = ["--hsm", str(module), "--token", LABEL, "--pin-file", str(token.pin_file)]
    init = [sys.executable, "-m", "mpserver", "--dir", str(state), "init", "--realm", "lab", *words]

    def run(trait: str, command: list[str] | None = None) -> Told:
        log.write_text("")
        paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
        settings = {**os.environ, **paths, **token.environment, "AWKWARD": trait, "AWKWARD_LOG": str(log)}
        wanted = command or [sys.executable, "-c", SERVER, str(state / "keys")]
        done = subprocess.run(wanted, env=settings, capture_output=True, text=True, timeout=120, check=False)
        assert PIN not in done.stdout + done.stderr
        return Told(done.stdout.splitlines(), done.stderr.strip(), len(log.read_text().splitlines()))

    made = run("", init)
    assert made.lines, made.fault
    return run


def test_module_that_changes_nothing_is_softhsm(live: Live) -> None:
    """Without this the refusals below could come from the module in between."""
    found = live("")
    (signed, _, opened, damaged, threads) = found.lines
    assert (signed, opened, threads, found.logins) == ("sign verified", "unwrap True", "threads []", 1)
    assert damaged.startswith("damaged StoreDamaged a stored value of job lot does not open")


@pytest.mark.parametrize(
    ("trait", "text"),
    [
        ("final-try", "SetUp the token 'oem' has one PIN try left, which is not spent here"),
        ("locked", "SetUp the user PIN of the token 'oem' is locked"),
        ("no-pin", "SetUp the token 'oem' has no user PIN yet"),
    ],
)
def test_no_login_is_tried_where_the_last_one_could_be_lost(live: Live, trait: str, text: str) -> None:
    """T-607 Tries burnt: with a wrong PIN in its file every start would bring the token nearer to being locked."""
    found = live(trait)
    assert found.fault.startswith(text) and found.logins == 0


@pytest.mark.parametrize("trait", ["login-locked", "login-broken"])
def test_a_login_that_fails_is_tried_once(live: Live, trait: str) -> None:
    assert live(trait).logins == 1


@pytest.mark.parametrize("trait", ["no-slots", "pulled", "unknown-make", "dead-slot"])
def test_a_slot_that_fails_is_a_token_that_is_away(live: Live, trait: str) -> None:
    found = live(trait)
    assert found.fault.startswith("TokenAway token ") and found.logins == 0


def test_another_token_of_that_label_is_not_given_the_pin(live: Live) -> None:
    """T-602 Exchanged token: label and maker are right, the serial number is not; its owner learns no PIN."""
    found = live("optee")  # a serial number of sixteen zeros
    assert "is another of that label: its serial number is 0000000000000000" in found.fault
    assert found.logins == 0


def test_two_sessions_are_enough_for_eight_threads(live: Live) -> None:
    """T-605 Session exhaustion: a small token, or one that others use too. Who gets none waits for one of ours."""
    assert live("two-sessions").lines[-1] == "threads []"


def test_no_session_at_all_is_said(live: Live) -> None:
    """T-605 Session exhaustion: other programs hold them all."""
    assert live("no-sessions").fault.startswith("TokenAway token no free sessions in the token while logging in")


def test_the_nonce_that_the_token_put_in_place_of_ours_is_the_one_kept(live: Live) -> None:
    lines = live("own-nonce").lines
    assert lines[1:3] == [f"nonce {'a5' * 12}", "unwrap True"]


@pytest.mark.parametrize("trait", ["bare-point", "says-why"])
def test_a_token_that_spells_things_otherwise_is_taken(live: Live, trait: str) -> None:
    """Some give the point without the DER around it, and some have a return value of their own for a wrong tag."""
    signed, _, opened, damaged, threads = live(trait).lines
    assert (signed, opened, threads) == ("sign verified", "unwrap True", "threads []")
    assert damaged.startswith("damaged StoreDamaged")


@pytest.mark.parametrize(
    ("trait", "text"),
    [
        ("tells-nothing", "CKA_SENSITIVE is not told, and has to be true"),
        ("tells-little", "is not told, and has to be true"),
        ("short-signature", "the token gave an HMAC of 31 bytes"),
        ("short-ecdsa", "the token gave a signature of 63 bytes"),
    ],
)
def test_nonsense_is_refused(live: Live, trait: str, text: str) -> None:
    """T-600 Smuggled key: what a token does not tell of a key is not taken for granted."""
    assert text in live(trait).fault
