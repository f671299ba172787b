"""What the packages say, beside what the tree says; what they do is seen in bench/, by `make deb`."""

import importlib
import re
import tomllib
from argparse import ArgumentParser
from collections.abc import Iterator

import pytest

import mpserver.errors
from mpwire.errors import MpError, Retry
from scripts.manual import write_page
from tests.deb.building import VENDORED
from tests.walls.rooms import ROOT

DEBIAN = ROOT / "packaging" / "debian"


def commands(parser: ArgumentParser, path: str) -> Iterator[str]:
    """Each command and each verb below it, as typed."""
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for name, one in action.choices.items():
                yield f"{path} {name}"
                yield from commands(one, f"{path} {name}")


@pytest.mark.parametrize("pyproject", ["pyproject.toml", "server/pyproject.toml"])
def test_the_changelog_is_of_this_version(pyproject: str) -> None:
    version = tomllib.loads((ROOT / pyproject).read_text())["project"]["version"]
    newest = (DEBIAN / "changelog").read_text().splitlines()[0]
    assert newest.startswith(f"mpagent ({version}-")


def test_what_is_vendored_has_its_licence_in_the_copyright_file() -> None:
    text = (DEBIAN / "copyright").read_text()
    assert [name for name in VENDORED if f"Files: vendor/{name.replace('-', '_')}-*" not in text] == []
    assert text.count("License: BSD-3-Clause") == len(VENDORED) + 1


@pytest.mark.parametrize("program", ["mpagent", "mpserver"])
def test_the_manual_names_every_command(program: str) -> None:
    page = write_page(program, "2026-01-01")
    every = list(commands(importlib.import_module(f"{program}.cli").make_parser(), program))
    assert len(every) > 8
    assert [name for name in every if f"\n.SS {name.replace('-', chr(92) + '-')}\n" not in page] == []


def test_the_unit_starts_again_what_time_can_heal() -> None:
    unit = (ROOT / "packaging" / "mpserver.service").read_text()
    found = re.search(r"^RestartPreventExitStatus=([\d ]+)$", unit, re.MULTILINE)
    assert found is not None
    prevented = {int(code) for code in found[1].split()}
    kinds = [kind for kind in vars(mpserver.errors).values() if isinstance(kind, type) and issubclass(kind, MpError)]
    final = {kind.exit_code for kind in kinds if kind is not MpError and kind.retry is not Retry.LATER}
    assert prevented == final
