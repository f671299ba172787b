"""mpissuer.ports.SecretVault: what every vault promises, in files and in a token."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from mpissuer.errors import KeptAlready, NotKept
from mpissuer.ports import SecretVault
from mpserver.authority import open_safe
from mpserver.vault import FileVault
from mpwire.errors import Malformed
from mpwire.secret import Secret
from tests.mpserver.tokens import Office

Reopen = Callable[[], SecretVault]
PRK = Secret(bytes.fromhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"))
"""RFC 5869 appendix A.1: the PRK, its info, and the first 32 bytes of its OKM."""
INFO = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9")
OKM = Secret(bytes.fromhex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"))
NAMES = ("mp/imx8mm", "ä", "../up", ".", "x" * 64, "MP/imx8mm", "00")


@pytest.fixture
def reopen(room: Office | None, tmp_path: Path) -> Reopen:
    """The vault under contract as each start of a process finds it."""
    if room is not None:
        return lambda: open_safe(room.store).vault
    (tmp_path / "keys").mkdir(mode=0o700)
    return lambda: FileVault(tmp_path / "keys")


def test_expansion_is_the_one_of_the_standard(reopen: Reopen) -> None:
    reopen().keep("mp", PRK)
    assert reopen().expand("mp", INFO) == OKM
    for size in (0, 1, 63, 64, 65, 4_096):
        info = os.urandom(size)
        expected = HKDFExpand(SHA256(), 32, info).derive(PRK.reveal())
        assert reopen().expand("mp", info) == Secret(expected), size


def test_every_name_has_a_secret_of_its_own(reopen: Reopen) -> None:
    assert reopen().names() == ()
    for name in NAMES:
        reopen().keep(name, Secret(os.urandom(32)))
    assert reopen().names() == tuple(sorted(NAMES))
    expanded = [reopen().expand(name, INFO) for name in NAMES]
    assert all(one != other for one, other in itertools.combinations(expanded, 2))


def test_a_name_is_used_once(reopen: Reopen) -> None:
    """An import typed twice, or another key under a known name: what is kept is not replaced."""
    reopen().keep("mp", PRK)
    for secret in (PRK, Secret(os.urandom(32))):
        with pytest.raises(KeptAlready, match="'mp' already"):
            reopen().keep("mp", secret)
    assert reopen().expand("mp", INFO) == OKM


def test_a_destroyed_secret_expands_no_more_and_leaves_the_others(reopen: Reopen) -> None:
    for name in ("mp", "other"):
        reopen().keep(name, PRK)
    opened = reopen()
    assert opened.expand("mp", INFO) == OKM
    reopen().destroy("mp")  # as another process would, while `opened` has used it
    for vault in (opened, reopen()):
        for verb in (lambda vault=vault: vault.expand("mp", INFO), lambda vault=vault: vault.destroy("mp")):
            with pytest.raises(NotKept, match="no secret named 'mp'"):
                verb()
        assert vault.names() == ("other",)
    reopen().keep("mp", Secret(os.urandom(32)))
    assert reopen().expand("mp", INFO) != OKM
    assert reopen().expand("other", INFO) == OKM


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_what_is_no_prk_is_not_kept(reopen: Reopen, size: int) -> None:
    with pytest.raises(Malformed, match="32 bytes"):
        reopen().keep("mp", Secret(os.urandom(size)))
    assert reopen().names() == ()


@pytest.mark.parametrize("name", ["", "x" * 65, "ä" * 33])
def test_a_name_has_bounds(reopen: Reopen, name: str) -> None:
    for verb in (lambda: reopen().keep(name, PRK), lambda: reopen().expand(name, b""), lambda: reopen().destroy(name)):
        with pytest.raises(Malformed, match="1 to 64 bytes"):
            verb()
    assert reopen().names() == ()


def test_nothing_that_is_raised_or_shown_tells_the_secret(reopen: Reopen) -> None:
    vault = reopen()
    vault.keep("mp", PRK)
    with pytest.raises(KeptAlready) as raised:
        vault.keep("mp", PRK)
    told = "".join((repr(vault), repr(vars(vault)), str(raised.value), raised.value.detail))
    assert PRK.reveal().hex() not in told and repr(PRK.reveal()) not in told
