"""docs/operate.md tells an operator what every refusal means; the code refuses by these names and no others."""

import ast
import re
from collections.abc import Iterator

from mpserver.token.faults import TokenAway
from tests.walls.rooms import ROOT, modules

NAMED_BY = {"Refused": 0, "step": 0, "Refusal": 0, "_insist": 0, "require": 1, "NotNow": 0}
"""Which argument is the check's name."""
PASSES_ON = {
    "step.__exit__": "Refused",
    "require": "Refused",
    "SqlBooks._insist": "Refused",
    "write_refusal": "Refusal",
}
"""Where a name that was given elsewhere is passed on."""
LATER = "NotNow"
ROW = re.compile(r"^\| `([a-z-]+)` \| (.+?) \| (.+?) \|$", re.MULTILINE)


def calls(source: str) -> Iterator[tuple[str, str, ast.Call]]:
    """(function around it, name called, call) for every call that names a check."""

    def walk(node: ast.AST, around: str) -> Iterator[tuple[str, str, ast.Call]]:
        for one in ast.iter_child_nodes(node):
            inner = around
            if isinstance(one, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                inner = f"{around}.{one.name}".lstrip(".")
            elif isinstance(one, ast.Call):
                name = getattr(one.func, "id", getattr(one.func, "attr", ""))
                if name in NAMED_BY:
                    yield around, name, one
            yield from walk(one, inner)

    return walk(ast.parse(source), "")


def names(*rooms: str) -> tuple[set[str], set[str], list[str]]:
    """Names of refusals, names of "later", and calls whose name cannot be read."""
    refusals, later, unread = set[str](), set[str](), []
    for module, source in modules(*rooms).items():
        for around, called, call in calls(source):
            given = call.args[NAMED_BY[called]] if len(call.args) > NAMED_BY[called] else None
            if isinstance(given, ast.Constant) and isinstance(given.value, str):
                (later if called == LATER else refusals).add(given.value)
            elif called != LATER and PASSES_ON.get(around) != called:
                unread.append(f"{module}: {ast.unparse(call)}")
    return refusals, later, unread


def read_table(section: str) -> dict[str, tuple[str, str]]:
    text = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    _, _, body = text.partition(f"\n## {section}\n")
    assert body, section
    return {name: (meaning, act) for name, meaning, act in ROW.findall(body.partition("\n## ")[0])}


REFUSALS, LATERS, UNREAD = names("mpissuer", "mpserver")
LATERS.add(str(TokenAway("")))  # a NotNow that gives itself its name


def test_every_refusal_is_told_to_the_operator_and_none_that_does_not_exist() -> None:
    assert set(read_table("What a refusal means")) == REFUSALS


def test_every_reason_to_come_later_is_told_and_none_that_does_not_exist() -> None:
    assert set(read_table("When the server says: later")) == LATERS


def test_no_check_makes_its_name_at_run_time() -> None:
    assert UNREAD == []


def test_each_row_says_what_to_do() -> None:
    rows = {**read_table("What a refusal means"), **read_table("When the server says: later")}
    assert [name for name, (meaning, act) in rows.items() if len(meaning.split()) < 3 or not act.strip(" -")] == []


def test_the_reading_finds_names_in_every_form() -> None:
    source = """
require(a, "one", "x")
with step("two"):
    raise Refused("three", "")
self._insist("four", "")
NotNow(f"{a}")
"""
    assert [call.args[NAMED_BY[name]].value for _, name, call in calls(source) if name != LATER] == [
        *("one", "two", "three", "four")
    ]
