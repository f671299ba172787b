"""The vault in files: closed to others, reached by an opened state, and damage is named."""

import stat
from pathlib import Path

import pytest

from mpserver.errors import SetUp, StoreDamaged
from mpserver.state import open_state
from mpserver.vault import FileVault
from mpwire.secret import Secret
from tests.mpserver.desk import Desk

PRK = Secret(b"p" * 32)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    made = Desk(tmp_path, capsys)
    assert made.run("init", "--realm", "lab")[0] == 0
    return made


def test_an_opened_state_has_a_vault_that_outlives_it(desk: Desk) -> None:
    for first in (True, False):
        state = open_state(desk.state)
        if first:
            state.vault.keep("mp", PRK)
        assert state.vault.names() == ("mp",)
        state.close()
    for path in (desk.state / "keys" / "vault").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_vault_that_others_could_use_is_refused(desk: Desk) -> None:
    vault, folder = FileVault(desk.state / "keys"), desk.state / "keys" / "vault"
    vault.keep("mp", PRK)
    (file,) = folder.iterdir()
    file.chmod(0o640)
    with pytest.raises(StoreDamaged, match="open to others"):
        vault.expand("mp", b"")
    file.chmod(0o600)
    folder.chmod(0o770)
    with pytest.raises(StoreDamaged, match="open to others"):
        vault.names()


def test_a_damaged_or_foreign_file_is_named_and_left(desk: Desk) -> None:
    vault, folder = FileVault(desk.state / "keys"), desk.state / "keys" / "vault"
    vault.keep("mp", PRK)
    (file,) = folder.iterdir()
    file.write_bytes(b"70" * 31)
    with pytest.raises(StoreDamaged, match="32 bytes"):
        vault.expand("mp", b"")
    assert file.read_bytes() == b"70" * 31
    (folder / "notes.prk").write_bytes(b"")
    with pytest.raises(StoreDamaged, match=r"notes\.prk was not written by mpserver"):
        vault.names()


def test_a_keystore_that_is_gone_takes_the_vault_with_it(tmp_path: Path) -> None:
    """Accident: the disk with the keys is not mounted. Nothing is made in its place."""
    vault = FileVault(tmp_path / "keys")
    assert vault.names() == ()
    with pytest.raises(Exception, match="cannot make") as raised:
        vault.keep("mp", PRK)
    assert not isinstance(raised.value, SetUp) and list(tmp_path.iterdir()) == []
