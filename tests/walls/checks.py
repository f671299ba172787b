"""The names of the checks that either side can raise, read from source."""

import ast
import re
from pathlib import Path
from typing import Final

from tests.walls.rooms import ROOT

RAISERS: Final = {"Refused": 0, "Unauthentic": 0, "PeerBroke": 0, "step": 0, "require": 1, "verify_named": 3}
"""Who names a check, and in which of its arguments."""
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
            parts = ast.walk(node.args[RAISERS[node.func.id]]) if node.args else ()
            texts = [part for part in parts if isinstance(part, ast.Constant)]
            for text in texts[:1]:
                if isinstance(text.value, str) and (name := NAME.match(text.value)):
                    ends = len(name[0]) == len(text.value) or text.value[len(name[0])] == ":"
                    found |= {name[0]} if ends else set()
    return found
