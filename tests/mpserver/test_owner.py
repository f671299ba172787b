"""The state folder belongs to the server's own user; what another user makes there, it could not read."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpserver.cli import main

NEEDS_PERSON = 77
NOBODY = 65_534


@pytest.fixture
def office() -> Iterator[Path]:
    """An issuer that belongs to another user than the one who types here."""
    folder = Path(tempfile.mkdtemp(prefix="mpowner-"))
    assert main(["--dir", str(folder / "oem"), "init", "--realm", "lab"]) == 0
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    yield folder / "oem"
    shutil.rmtree(folder)


def list_files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_uid, path.stat().st_size) for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(
    "words",
    [["job", "create", "lot", "--product", "camera", "--quota", "2"], ["device", "list"], ["ledger", "verify"]],
)
def test_root_leaves_no_file_that_the_server_cannot_read(
    office: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """Reading too: SQLite makes its own files beside the ledger."""
    before = list_files(office)
    assert main(["--dir", str(office), *words]) == NEEDS_PERSON
    said = capsys.readouterr().err
    assert "belongs to user nobody" in said and "sudo -u nobody mpserver" in said
    assert list_files(office) == before
