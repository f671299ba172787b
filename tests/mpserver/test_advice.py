"""Commands that our own texts tell people to type: each has to be there."""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpserver
from mpserver.cli import make_parser
from mpserver.errors import Usage

_TOLD = re.compile(r"mpserver ((?:[a-z-]+ ?)+)")


def find_verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands below one, none below a last one."""
    below = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    return below[0] if below else {}


def find_told() -> Iterator[tuple[str, list[str]]]:
    """Every text of ours that names a command, with the words of it."""
    for path in sorted(Path(mpserver.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from ((f"{path.name}: {node.value}", one.split()) for one in _TOLD.findall(node.value))


def test_every_command_that_a_text_names_is_there() -> None:
    """A next step that is an unknown command is worse than none."""
    commands, seen = find_verbs(make_parser()), 0
    for text, (first, *rest) in find_told():
        if first not in commands:
            continue  # a label, such as that of the keystore
        seen += 1
        verbs = find_verbs(commands[first])
        while verbs and rest:
            assert rest[0] in verbs, text
            verbs, rest = find_verbs(verbs[rest[0]]), rest[1:]
    assert seen > 50


@pytest.mark.parametrize(
    "words",
    [
        "bundle create --product p --job j --expires 9 --out f --version 0",
        "bundle create --product p --job j --expires 9 --out f --version 1 --minimum x",
        "bundle create --product p --job j --expires 9 --out f --version 1 --quantity -",
        "product anchors p --bundle-minimum 0",
    ],
)
def test_a_wrong_number_is_told_with_its_option(words: str) -> None:
    with pytest.raises(Usage, match=rf"argument {words.split()[-2]}: .* whole number"):
        make_parser().parse_args(words.split())
