"""HKDF in a token: a real one that has it (NSS's software token) gives the bytes that HMAC gives, and is used only
where it gives them for a secret like ours."""

import hashlib
import hmac
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpserver.token import objects, policy, vault
from mpserver.token.module import Module
from mpserver.token.pool import Session
from mpwire.secret import Secret
from tests.mpserver.tokens import TokenOffice, safe_of

PIN = "2718-2818"


@pytest.fixture
def nss(tmp_path: Path) -> Iterator[Session]:
    """A session with NSS's token, whose keys lie in a database of this test."""
    (path,) = Path("/usr/lib").glob("*/libsoftokn3.so")
    folder = tmp_path / "nss"
    folder.mkdir()
    module = Module(path, f"configdir='sql:{folder}' certPrefix='' keyPrefix='' secmod='' flags=".encode())
    (slot,) = [one for one in module.library.get_slots() if "Key" in one.slot_description]
    officer = slot.get_token().open(rw=True, so_pin="")
    officer.init_pin(PIN)
    officer.close()
    token = slot.get_token()
    yield Session(module, token, token.open(rw=True, user_pin=PIN), b"", lambda _session, _name: None)
    module.stop()


def import_open(session: Session, secret: Secret, use: str) -> Any:
    """Not sensitive: NSS derives nothing readable from a key that is."""
    opened = {"TOKEN": False, "SENSITIVE": False, "EXTRACTABLE": True}
    return session.raw.create_object(objects.write_template(session, secret, use, opened))


@pytest.mark.parametrize("size", [0, 1, 10, 63, 64, 65, 1_000])
def test_both_ways_give_the_same_bytes(nss: Session, size: int) -> None:
    secret, info = Secret(os.urandom(32)), os.urandom(size)
    expected = Secret(hmac.digest(secret.reveal(), info + b"\x01", hashlib.sha256))
    assert vault.expand_by_hkdf(nss, import_open(nss, secret, "DERIVE"), info) == expected
    assert vault.expand_by_hmac(nss, import_open(nss, secret, "SIGN"), info) == expected


def test_a_token_that_lists_hkdf_and_keeps_its_result_to_itself_expands_by_hmac(nss: Session) -> None:
    """The mechanism in a list is a promise; what counts is the answer for a key that is closed as ours are."""
    assert vault.HKDF_DERIVE in {int(one) for one in nss.token.slot.get_mechanisms()}
    assert not vault.derives_as_told(nss, import_closed(nss, Secret(os.urandom(32)), "DERIVE"))
    assert vault.find_way(nss) == "SIGN"


def test_a_token_that_takes_a_key_apart_without_saying_so_is_found_out(nss: Session) -> None:
    """T-608 Insider with the PIN: CKM_EXTRACT_KEY_FROM_KEY makes a key of one octet out of a key that may derive, and
    256 guesses at an HMAC under it tell the octet. Thirty-two of them are the secret."""
    secret = Secret(os.urandom(32))
    key = import_closed(nss, secret, "DERIVE")
    assert bytes(steal_octet(nss, key, at) for at in range(32)) == secret.reveal()
    assert nss.p11.Mechanism.EXTRACT_KEY_FROM_KEY not in nss.token.slot.get_mechanisms()
    assert "EXTRACT_KEY_FROM_KEY" in vault.find_ways_out(nss, key)
    assert vault.find_way(nss) == "SIGN"


def import_closed(session: Session, secret: Secret, use: str) -> Any:
    """As ours are, but for this session alone."""
    return session.raw.create_object(objects.write_template(session, secret, use, {**policy.CLOSED, "TOKEN": False}))


def steal_octet(session: Session, key: Any, at: int) -> int:
    p11 = session.p11
    octet = key.derive_key(
        p11.KeyType.GENERIC_SECRET,
        8,
        store=False,
        capabilities=p11.MechanismFlag.SIGN,
        mechanism=p11.Mechanism.EXTRACT_KEY_FROM_KEY,
        mechanism_param=(8 * at).to_bytes(8, "little"),
    )
    told = bytes(octet.sign(b"?", mechanism=p11.Mechanism.SHA256_HMAC))
    (found,) = [one for one in range(256) if hmac.digest(bytes((one,)), b"?", hashlib.sha256) == told]
    return found


def test_softhsm_has_no_hkdf_and_expands_by_hmac(tmp_path: Path) -> None:
    safe = safe_of(TokenOffice(tmp_path / "oem").found().open())
    assert safe.pool.run("", vault.find_way) == "SIGN"
