"""Every dependency is pinned by name and version, and the floor is where the wheel says it is."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.walls.rooms import ROOT

OURS = {"mpagent", "mpagent-server", "mpagent-sim"}
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][A-Za-z0-9.]*)")


def read_pins(text: str) -> dict[str, str]:
    """Version by canonical name. Raises ValueError for a line that is neither a pin, a comment nor blank."""
    pins = {}
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        if not (match := PIN.fullmatch(line)):
            raise ValueError(line)
        pins[canonicalize_name(match[1])] = match[2]
    return pins


def pins_of(name: str) -> dict[str, str]:
    return read_pins((ROOT / "constraints" / name).read_text())


def required(*pyprojects: Path) -> list[Requirement]:
    """What the wheels and their builds ask for, without our own distributions."""
    found = []
    for path in pyprojects:
        content = tomllib.loads(path.read_text())
        project = content["project"]
        lines = [*project["dependencies"], *content["build-system"]["requires"]]
        lines += [line for extra in project.get("optional-dependencies", {}).values() for line in extra]
        found += [Requirement(line) for line in lines]
    return [requirement for requirement in found if requirement.name not in OURS]


@pytest.mark.parametrize("path", sorted((ROOT / "constraints").iterdir()), ids=lambda path: path.name)
def test_constraints_hold_names_and_versions_alone(path: Path) -> None:
    assert read_pins(path.read_text())


@pytest.mark.parametrize(
    "line", ["x @ file:///x", "x==1 --hash=sha256:00", "--index-url x", "x>=1", "https://example.org/x.whl", "-e ."]
)
def test_a_line_that_says_more_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        read_pins(f"a==1\n{line}\n")


def test_every_dependency_is_pinned_within_its_range() -> None:
    pins = pins_of("current.txt")
    wanted = required(*(ROOT / folder / "pyproject.toml" for folder in (".", "server", "sim")))
    assert {r.name for r in wanted} >= {"cryptography", "requests", "tpm2-pytss", "granian", "hatchling"}
    assert [str(r) for r in wanted if not r.specifier.contains(pins.get(canonicalize_name(r.name), "0"))] == []


def test_the_floor_pins_are_the_lower_bounds_of_the_device_wheel() -> None:
    pins = pins_of("floor.txt")
    bounds = {r.name: str(r.specifier) for r in required(ROOT / "pyproject.toml") if r.name != "hatchling"}
    assert bounds == {name: f">={pins.get(canonicalize_name(name))}" for name in bounds}
    assert set(bounds) == {"cryptography", "requests", "tpm2-pytss", "python-pkcs11", "pyscard"}
