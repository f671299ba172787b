"""Bundles by an OEM whose keys are in a token: the same files, and nothing of a key outside it."""

import time
from pathlib import Path

import pytest

from mpserver.token.pool import LOOK_AGAIN_S
from mpsim.softhsm import SoftHsm
from mpwire import hkdf
from mpwire.messages.bundle import UPDATE_KEY
from mpwire.mpk import HiddenMpKey
from tests.mpserver.bundles import KEY, NAME, PRODUCT, STATIC, Lot, open_as_board, update_slot

LABEL = "oem"


@pytest.fixture
def token(tmp_path: Path) -> SoftHsm:
    made = SoftHsm(tmp_path / "token", LABEL)
    made.initialize()
    return made


@pytest.fixture
def lot(tmp_path: Path, capsys: pytest.CaptureFixture[str], token: SoftHsm) -> Lot:
    """Set up with a token."""
    words = ("--hsm", str(token.make_module()), "--token", LABEL, "--pin-file", str(token.pin_file))
    (tmp_path / "desk").mkdir()
    made = Lot(tmp_path / "desk", capsys, PRODUCT + update_slot("owner"), init=words)
    made.read("authority", "create", "owner", "--product", "camera")
    return made


def test_a_bundle_expanded_in_the_token_opens_on_the_board_that_makes_the_key_anew(lot: Lot) -> None:
    path = lot.make("--policy", lot.write("policy.toml", '[slots]\nlicence = "owner"\n'))
    values = open_as_board(path)
    assert values["licence"] == STATIC
    key = UPDATE_KEY.decode(values["update-owner"], 32_768).key
    update = lot.make("--authority", "owner", "--only", "licence", out="update")
    assert open_as_board(update, lambda info: hkdf.expand(key, info)) == {"licence": STATIC}
    for made in (path, update):
        assert lot.read("bundle", "verify", str(made))["in_ledger"]
        assert {one["result"] for one in lot.read("bundle", "extract-test", str(made))["components"]} == {"PASS"}


def test_no_key_of_bundles_lies_outside_the_token(lot: Lot) -> None:
    """T-672 Stolen disk: the server's files have neither the class key's PRK nor what update keys are made of."""
    lot.make()
    audited = {row["label"]: row["trouble"] for row in lot.read("hsm", "audit")}
    assert set(audited.values()) == {""}
    assert f"mpserver/vault/mpk-{NAME}" in audited and sum(one.startswith("mpserver/update-") for one in audited) == 1
    assert sum(one.startswith("mpserver/vault/update-") for one in audited) == 1
    told = b"".join(path.read_bytes() for path in sorted(lot.state.rglob("*")) if path.is_file())
    prk = HiddenMpKey(KEY).extract().reveal()
    for secret in (prk, KEY, KEY[:32]):
        assert secret not in told and secret.hex().encode() not in told.lower()
    assert not (lot.state / "keys/vault").exists() and not list((lot.state / "keys").glob("update-*"))


def test_a_token_that_is_away_leaves_nothing(lot: Lot, token: SoftHsm) -> None:
    """T-662 Torn: pulled before the bundle is made."""
    before = lot.left()
    token.pull()
    code, _, err = lot.run(*lot.words("--job-secret-out", str(lot.folder / "js")))
    assert code == 75 and err.count("\n") == 1
    token.put_back()
    time.sleep(LOOK_AGAIN_S)
    assert lot.left() == before
