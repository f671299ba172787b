"""Reads the little of bitbake's language that the recipes of yocto-layer/ use. bitbake itself is not here."""

import re
from pathlib import Path
from typing import Final

from tests.walls.rooms import ROOT

LAYER: Final = ROOT / "yocto-layer"
RECIPE: Final = LAYER / "recipes-mpagent/mpagent/mpagent_0.1.0.bb"
TPM_APPEND: Final = LAYER / "dynamic-layers/tpm-layer/recipes-mpagent/mpagent/mpagent_%.bbappend"
ASSIGNMENT: Final = re.compile(r'^([A-Z][\w:${}\[\]-]*?)(?:\[[\w-]+\])? *(\?=|\+=|:=|=|\.=) *"(.*)"$')
METADATA: Final = (".bb", ".bbappend", ".bbclass", ".inc", ".conf")


class Recipe:
    """Its assignments, in order; `+=` joins by a space, `?=` is a default."""

    def __init__(self, *paths: Path) -> None:
        self.values: dict[str, str] = {}
        for line in (line for path in paths for line in _logical_lines(path.read_text())):
            if match := ASSIGNMENT.match(line):
                name, operator, value = match.groups()
                before = self.values.get(name)
                joined = f"{before or ''} {value}" if operator == "+=" else value
                self.values[name] = before if operator == "?=" and before is not None else joined

    def words(self, name: str) -> list[str]:
        return self.values.get(name, "").split()


def function(path: Path, head: str) -> str:
    """The body of one function of a recipe or class, which ends with a brace in the first column."""
    _, _, rest = path.read_text().partition(f"\n{head} {{\n")
    assert rest, f"{path} has no {head}"
    return rest.partition("\n}\n")[0]


def metadata() -> list[Path]:
    """Every file of the layer that bitbake parses."""
    return sorted(path for path in LAYER.rglob("*") if path.suffix in METADATA and path.is_file())


def _logical_lines(text: str) -> list[str]:
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return "\n".join(lines).replace("\\\n", " ").splitlines()
