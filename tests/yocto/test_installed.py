"""The tests that travel to the board (ptest), run here against an installation of the wheel and nothing else of us."""

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

import pytest

from tests.walls.test_exit_codes import TABLE
from tests.walls.test_wheels import build, export

from .recipes import LAYER

FILES: Final = LAYER / "recipes-mpagent/mpagent/files"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, a `mpagent` and a `python3` that see it and third-party libraries alone."""
    folder = tmp_path_factory.mktemp("board")
    export(folder / "tree")
    build(folder / "tree", folder / "built")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(folder / "site"),
    ]
    subprocess.run([*command, *map(str, (folder / "built").glob("*.whl"))], check=True, timeout=100)
    (folder / "bin").mkdir()
    # -S: the links of this checkout's editable rooms are not followed.
    start = f"#!/bin/sh\nPYTHONPATH={folder}/site:{sysconfig.get_path('purelib')} exec {sys.executable} -S "
    for name, words in (("python3", '"$@"'), ("mpagent", '-m mpagent "$@"')):
        program = folder / "bin" / name
        program.write_text(f"{start}{words}\n")
        program.chmod(0o755)
    return folder


def ptest(board: Path) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": f"{board}/bin:/usr/bin:/bin"}
    return subprocess.run([str(FILES / "run-ptest")], capture_output=True, text=True, timeout=110, env=environment)


def test_all_of_them_pass_on_a_whole_installation(board: Path) -> None:
    done = ptest(board)
    assert "FAIL" not in done.stdout, done.stdout + done.stderr
    assert (done.returncode, done.stdout.count("PASS: test_")) == (0, 5)


def test_a_broken_installation_fails_by_name(board: Path) -> None:
    module = board / "site/mpagent/vault.py"
    whole = module.read_text()
    module.write_text("import no_such_module\n")
    try:
        done = ptest(board)
    finally:
        module.write_text(whole)
    assert done.returncode == 1
    assert "FAIL: test_every_module_imports" in done.stdout


def test_the_exit_codes_it_takes_are_the_documented_ones() -> None:
    names: dict[str, object] = {"__name__": "installed"}
    exec((FILES / "installed.py").read_text(), names)
    assert names["DOCUMENTED"] == {int(code) for code in TABLE}
