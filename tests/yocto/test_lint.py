"""The recipes as oelint-adv reads them, for both releases."""

import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.walls.rooms import ROOT

from .recipes import LAYER, metadata

TOOLS: Final = ROOT / "out/env/oelint/bin"
RELEASES: Final = ("scarthgap", "wrynose")
# The one rule left out asks every HOMEPAGE by network, and ours is a placeholder.
OPTIONS: Final = ("--quiet", "--jobs", "1", "--hide", "info", "--suppress", "oelint.vars.homepageping")


def lint(release: str, *paths: Path) -> "subprocess.CompletedProcess[str]":
    command = [str(TOOLS / "oelint-adv"), "--release", release, *OPTIONS, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


@pytest.mark.parametrize("release", RELEASES)
def test_the_linter_finds_neither_error_nor_warning(release: str) -> None:
    done = lint(release, *metadata())
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_recipe_without_a_licence_would_be_noticed(tmp_path: Path) -> None:
    good = LAYER / "recipes-mpagent/mpagent/mpagent_0.1.0.bb"
    bad = tmp_path / "recipes-a/mpagent/mpagent_0.1.0.bb"
    bad.parent.mkdir(parents=True)
    bad.write_text("".join(line for line in good.open() if not line.startswith("LICENSE =")))
    done = lint("wrynose", bad)
    assert done.returncode != 0
    assert "mandatoryvar.LICENSE" in done.stdout + done.stderr


def test_no_file_switches_a_rule_off_but_the_one_that_cannot_see_a_conditional_include() -> None:
    switched = {
        (path.name, line.split(":", 1)[1].strip())
        for path in metadata()
        for line in path.read_text().splitlines()
        if "nooelint" in line
    }
    assert switched == {
        ("linux-mpagent.inc", "oelint.vars.noncoreoverride"),
        ("optee-os-mpagent.inc", "oelint.vars.noncoreoverride"),
    }
