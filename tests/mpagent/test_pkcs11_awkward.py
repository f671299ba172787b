"""Tokens that SoftHSM2 is not: a module of ours stands before it and changes one answer (awkward_token.c).

Each case is a process of its own: python-pkcs11 0.7 knows one module a process.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mpsim.softhsm import SoftHsm
from tests.awkward import build_module

AGENT = """
import sys
from pathlib import Path
from mpagent.errors import NotMine
from mpagent.hal.pkcs11 import open_pkcs11
from mpsim.shelf import MemoryShelf
from mpwire import p256
from mpwire.errors import MpError
from mpwire.secret import Secret
DEK = Secret(bytes(range(32)))
peer = p256.SoftKey.generate()
try:
    with open_pkcs11(Path(sys.argv[1]), "mpagent", Path(sys.argv[2]), MemoryShelf()) as parts:
        print(parts.sealer.name)
        blob = parts.sealer.seal(DEK)
        print(blob[21:33].hex(), parts.sealer.unseal(blob) == DEK)
        try:
            parts.sealer.unseal(blob[:-1] + bytes([blob[-1] ^ 1]))
        except NotMine as error:
            print(error)
        key = parts.keyring.find_or_make("kem")
        print(key.ecdh(peer.public_key()) == peer.ecdh(key.public_key()))
except MpError as error:
    print(type(error).__name__, error)
"""
"""What an agent does with a token, and how it ends; bytes 21 to 32 of the blob are the nonce."""

DAMAGED = "a sealed blob that was damaged"
Live = Callable[[str], tuple[list[str], int]]


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_module(tmp_path_factory.mktemp("awkward"))


@pytest.fixture
def live(module: Path, tmp_path: Path) -> Live:
    """Lines an agent prints with a token of this trait, and how often it logged in."""
    token, log = SoftHsm(tmp_path / "token"), tmp_path / "logins"
    token.initialize()

    def run(trait: str) -> tuple[list[str], int]:
        log.write_text("")
        settings = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "SOFTHSM2_CONF": str(token.folder / "softhsm2.conf"),
            "AWKWARD": trait,
            "AWKWARD_LOG": str(log),
        }
        command = [sys.executable, "-c", AGENT, str(module), str(token.pin_file)]
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.splitlines(), len(log.read_text().splitlines())

    return run


def test_module_that_changes_nothing_is_softhsm(live: Live) -> None:
    """Without this the refusals below could come from the module in between."""
    (name, sealed, damaged, agreed), logins = live("")
    assert (name, sealed[-4:], damaged, agreed, logins) == ("pkcs11", "True", DAMAGED, "True", 1)


@pytest.mark.parametrize(
    "trait, text",
    [
        ("final-try", "HardwareGone the PKCS#11 token 'mpagent' has one PIN try left, which is not spent here"),
        ("locked", "HardwareGone the user PIN of the PKCS#11 token 'mpagent' is locked"),
        ("no-pin", "HardwareGone the PKCS#11 token 'mpagent' has no user PIN yet"),
    ],
)
def test_no_login_is_tried_where_the_last_one_could_be_lost(live: Live, trait: str, text: str) -> None:
    """T-446 Last try burnt: with a wrong PIN in its file each start would bring a board nearer to scrap."""
    assert live(trait) == ([text], 0)


@pytest.mark.parametrize(
    "trait, text",
    [
        ("login-locked", "HardwareGone the user PIN of the PKCS#11 token 'mpagent' is locked"),
        ("login-broken", "HardwareGone the PKCS#11 token went away while logging in (DeviceError)"),
    ],
)
def test_failed_login_is_tried_once(live: Live, trait: str, text: str) -> None:
    assert live(trait) == ([text], 1)


@pytest.mark.parametrize(
    "trait, text",
    [
        ("no-slots", "HardwareGone the PKCS#11 token went away while listing tokens (DeviceError)"),
        ("dead-slot", "HardwareGone the PKCS#11 token went away while listing tokens (DeviceError)"),
        ("pulled", "HardwareAbsent no PKCS#11 token is labelled 'mpagent'; initialised here: none"),
        ("unknown-make", "HardwareAbsent no PKCS#11 token is labelled 'mpagent'; initialised here: none"),
    ],
)
def test_slot_that_fails_is_told_from_an_empty_one(live: Live, trait: str, text: str) -> None:
    assert live(trait) == ([text], 0)


def test_token_that_says_it_is_optee_is_named_so(live: Live) -> None:
    """With its serial number of sixteen zeros, by which no token can be told from another."""
    (name, sealed, damaged, agreed), _ = live("optee")
    assert (name, sealed[-4:], damaged, agreed) == ("optee", "True", DAMAGED, "True")


def test_nonce_the_token_put_in_place_of_ours_is_the_one_kept(live: Live) -> None:
    assert live("own-nonce")[0][1] == f"{'a5' * 12} True"


def test_token_exchanged_after_the_login_is_gone_and_not_another_boards(live: Live) -> None:
    lines, _ = live("exchanged")
    assert lines[-1] == "HardwareGone the PKCS#11 token 'mpagent' was exchanged or emptied while it was in use"


@pytest.mark.parametrize("trait", ["tells-little", "bare-point", "says-why"])
def test_token_that_spells_things_otherwise_is_taken(live: Live, trait: str) -> None:
    """Birth attributes are told by tokens that know them; some give the point without the DER around it,
    and some have a return value of their own for a wrong tag."""
    (_, sealed, damaged, agreed), _ = live(trait)
    assert (sealed[-4:], damaged, agreed) == ("True", DAMAGED, "True")


@pytest.mark.parametrize(
    "trait, text",
    [
        (
            "tells-nothing",
            "HardwareGone the PKCS#11 token made mpagent-root otherwise than it was asked to: CKA_SENSITIVE is None",
        ),
        ("short-signature", "HardwareGone the PKCS#11 token gave a signature of 63 bytes"),
        ("long-secret", "HardwareGone the PKCS#11 token gave a shared secret of 33 bytes"),
    ],
)
def test_nonsense_is_refused(live: Live, trait: str, text: str) -> None:
    assert live(trait)[0][-1] == text
