"""The names of the checks that either side can raise, read from source."""

import ast
import re
from pathlib import Path
from typing import Final

from tests.walls.rooms import ROOT

RAISERS: Final = {"Refused", "Unauthentic", "PeerBroke", "step", "require"}
NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
SPEAKING: Final = [
    *(ROOT / "server/mpissuer").rglob("*.py"),
    ROOT / "agent/mpagent/acceptance.py",
    ROOT / "agent/mpwire/trust.py",
    ROOT / "agent/mpwire/merkle.py",
    ROOT / "agent/mpwire/hpke.py",
]
"""Of the exchange."""
SPEAKING_OF_BUNDLES: Final = [*(ROOT / "agent/mpwire").glob("bundle*.py"), ROOT / "agent/mpwire/stream.py"]


def names_of_checks(path: Path) -> set[str]:
    """The literal check names that this source raises."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISERS:
            place = 1 if node.func.id == "require" else 0
            texts = [part for part in ast.walk(node.args[place]) if isinstance(part, ast.Constant)] if node.args else []
            for text in texts[:1]:
                if isinstance(text.value, str) and (name := NAME.match(text.value)):
                    ends = len(name[0]) == len(text.value) or text.value[len(name[0])] == ":"
                    found |= {name[0]} if ends else set()
    return found
