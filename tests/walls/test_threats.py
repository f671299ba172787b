"""docs/threats.md and the tests name the same threats: no row without a test, no attack test without its row."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.walls.rooms import ROOT

TESTS = ROOT / "tests"
ROW = re.compile(r"^\| T-(\d+) \| (.+) \|$", re.MULTILINE)
NAMED = re.compile(r"`([\w/]+\.py::test_\w+)`")
ID = re.compile(r"T-(\d+)\b")
RESIDUAL = "residual: "


def read_rows(text: str) -> list[tuple[int, list[str]]]:
    """(id, cells after it) of every row, in order."""
    return [(int(number), rest.split(" | ")) for number, rest in ROW.findall(text)]


def named_tests(rows: list[tuple[int, list[str]]]) -> dict[int, set[str]]:
    """Tests that each row names; residual rows have none."""
    return {number: set(NAMED.findall(cells[-1])) for number, cells in rows if not cells[0].startswith(RESIDUAL)}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The test functions of a file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node


def threat_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int | None:
    """The id that its docstring begins with."""
    found = ID.match(ast.get_docstring(function) or "")
    return int(found[1]) if found else None


ROWS = read_rows((ROOT / "docs" / "threats.md").read_text(encoding="utf-8"))
FILES = {path.relative_to(TESTS).as_posix(): path for path in sorted(TESTS.rglob("test_*.py"))}
ATTACKS = {
    f"{name}::{function.name}": threat_of(function)
    for name, path in FILES.items()
    if name.startswith("attacks/")
    for function in functions(path)
}


def test_every_row_has_an_id_of_its_own_and_all_its_cells() -> None:
    numbers = [number for number, _ in ROWS]
    assert len(numbers) == len(set(numbers)) >= 50
    for number, cells in ROWS:
        expected = 3 if cells[0].startswith(RESIDUAL) else 4
        assert len(cells) == expected and all(cell.strip() for cell in cells), number


def test_every_threat_has_a_test_and_every_residual_one_a_reason() -> None:
    assert {number: tests for number, tests in named_tests(ROWS).items() if not tests} == {}
    residual = [cells for _, cells in ROWS if cells[0].startswith(RESIDUAL)]
    assert residual and all(len(reason.split()) > 3 for _, reason, _ in residual)
    bounds = {int(number) for _, _, bound in residual for number in ID.findall(bound)}
    assert bounds <= named_tests(ROWS).keys() | {number for number, _ in ROWS}


def test_every_test_that_a_row_names_is_there() -> None:
    there = {
        f"{name}::{function.name}"
        for name in {test.split("::")[0] for tests in named_tests(ROWS).values() for test in tests}
        if name in FILES
        for function in functions(FILES[name])
    }
    named = {test for tests in named_tests(ROWS).values() for test in tests}
    assert named - there == set()


def test_attack_tests_and_rows_name_each_other() -> None:
    told = {
        (test, number) for number, tests in named_tests(ROWS).items() for test in tests if test.startswith("attacks/")
    }
    assert told == set(ATTACKS.items())


def test_every_id_in_any_test_is_a_row() -> None:
    known = {number for number, _ in ROWS}
    used = {
        (name, threat)
        for name, path in FILES.items()
        if name != "walls/test_threats.py"
        for function in functions(path)
        if (threat := threat_of(function)) is not None
    }
    assert {(name, threat) for name, threat in used if threat not in known} == set()


@pytest.mark.parametrize(
    ("text", "tests"),
    [
        ("| T-01 | a | b | c | `attacks/test_x.py::test_y` |", {1: {"attacks/test_x.py::test_y"}}),
        ("| T-02 | a | b | c | none |", {2: set()}),
        ("| T-250 | residual: a | b | T-01 |", {}),
    ],
)
def test_reading_of_the_table_sees_a_missing_test(text: str, tests: dict[int, set[str]]) -> None:
    assert named_tests(read_rows(text)) == tests
