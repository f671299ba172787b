"""docs/bring-up.md leads a person with a board: every step says what it stands on, and quotes what we print."""

import ast
import re
from typing import Final

import pytest

from tests.walls.rooms import ROOT

TEXT: Final = (ROOT / "docs/bring-up.md").read_text(encoding="utf-8")
OPERATE: Final = (ROOT / "docs/operate.md").read_text(encoding="utf-8")
MAKEFILE: Final = (ROOT / "Makefile").read_text(encoding="utf-8")
VERIFIED: Final = ("verified in QEMU", "verified against emulation")
MARKS: Final = (*VERIFIED, "from documents")
MARK: Final = re.compile(rf"\*({'|'.join(MARKS)})\*([^*]*)", re.IGNORECASE)
STEP: Final = re.compile(r"^### (\d+)\. (.+)\n\n((?:.+\n)+)", re.MULTILINE)


def read_steps(text: str) -> list[tuple[int, str, str]]:
    """Number, title and first paragraph of each step."""
    return [(int(number), title, " ".join(first.split())) for number, title, first in STEP.findall(text)]


def faults_of(paragraph: str) -> list[str]:
    """What is wrong with the marks in a step's first paragraph."""
    marks = [(mark.lower(), rest) for mark, rest in MARK.findall(paragraph)]
    faults = [] if marks else ["no mark"]
    for mark, rest in marks:
        source = re.search(r"\(([^)]{6,})", rest)
        if source is None:
            faults.append(f"{mark}: no source")
        elif mark in [one.lower() for one in VERIFIED]:
            files = re.findall(r"tests/[\w/]+(?:\.py)?", source[1])
            targets = re.findall(r"`make ([\w-]+)`", source[1])
            faults += [f"{mark}: names no test"] if not files and not targets else []
            faults += [f"{name} is not there" for name in files if not (ROOT / name).exists()]
            faults += [f"make {name} is not there" for name in targets if f"\n{name}:" not in MAKEFILE]
    return faults


def test_every_step_carries_a_mark_and_what_it_rests_on() -> None:
    steps = read_steps(TEXT)
    assert [number for number, _, _ in steps] == list(range(1, len(steps) + 1))
    assert len(steps) == TEXT.count("\n### ") >= 15
    assert {title: found for _, title, first in steps if (found := faults_of(first))} == {}


def test_the_marks_are_explained_and_all_used() -> None:
    explained = re.findall(
        r"^\| (\S.*?) \| .+ \|$", TEXT.partition("| mark | means |")[2].partition("\n\n")[0], re.MULTILINE
    )
    assert [one for one in explained if one != "---"] == list(MARKS)
    used = {mark.lower() for _, _, first in read_steps(TEXT) for mark, _ in MARK.findall(first)}
    assert used == {mark.lower() for mark in MARKS}


@pytest.mark.parametrize(
    ("paragraph", "fault"),
    [
        ("Type this.", "no mark"),
        ("*From documents*.", "from documents: no source"),
        ("*Verified in QEMU* (somebody said so).", "verified in qemu: names no test"),
        (
            "*Verified against emulation* (tests/mpagent/test_of_nothing.py).",
            "tests/mpagent/test_of_nothing.py is not there",
        ),
        ("*Verified in QEMU* (`make nothing`).", "make nothing is not there"),
    ],
)
def test_a_step_without_one_would_be_noticed(paragraph: str, fault: str) -> None:
    assert fault in faults_of(paragraph)


def texts_of_the_doctor() -> str:
    """Every piece of text in the code that examines a board."""
    found = []
    for path in [*(ROOT / "agent/mpagent/checkup").rglob("*.py"), *(ROOT / "agent/mpagent/hal").rglob("*.py")]:
        found += [
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    return "\n".join(found)


def test_what_the_doctor_should_say_is_what_it_says() -> None:
    """Rows of the two tables: the line stands in the manual, and each quotation in the code."""
    said, rows = texts_of_the_doctor(), re.findall(r"^\| `([^`]+)` \| (.+) \| ([^|]*)\|$", TEXT, re.MULTILINE)
    lines = set(re.findall(r"`([^`]+)`", "".join(re.findall(r"^\| (`.+?) \|", OPERATE, re.MULTILINE))))
    assert len(rows) > 15
    for name, should, otherwise in rows:
        assert name in lines or f"{name.split()[0]} NAME" in lines, name
        quotations = re.findall(r"`([^`]+)`", should.replace("`life cycle` says`", "`life cycle says`")) + re.findall(
            r"`([^`]+)`", otherwise
        )
        for quotation in quotations:
            text = quotation.replace("life cycle says", "`life cycle` says")
            assert _fixed(text) in said, f"{name}: {text}"


def _fixed(text: str) -> str:
    """The part of a quotation that does not vary from board to board."""
    return text.replace("CAAM at 30900000", "CAAM at ")
