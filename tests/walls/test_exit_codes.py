"""docs/operate.md tells an operator, and systemd, what each exit code means; the code agrees."""

import importlib
import re

from mpwire.errors import MpError, Retry
from tests.walls.rooms import ROOT, modules

NOT_AN_ERROR = {0, 64}
"""Success, and a command line that argparse refused before any of our code ran."""
ROW = re.compile(r"^\| (\d+) \| (\S+) \| (.+?) \| (yes|no) \|$", re.MULTILINE)


def read_table(text: str) -> dict[int, tuple[str, bool]]:
    """Meaning, and whether systemd starts the unit again, by exit code."""
    return {int(code): (meaning, again == "yes") for code, _, meaning, again in ROW.findall(text)}


def failures(*rooms: str) -> set[type[MpError]]:
    """MpError and everything these rooms derive from it."""
    for name in modules(*rooms):
        if not name.endswith("__main__"):
            importlib.import_module(name)
    found, waiting = set(), [MpError]
    while waiting:
        kind = waiting.pop()
        if kind.__module__.split(".")[0] in rooms:
            found.add(kind)
        waiting += kind.__subclasses__()
    return found


TABLE = read_table((ROOT / "docs" / "operate.md").read_text(encoding="utf-8"))


def test_the_table_and_the_failures_of_the_device_name_the_same_codes() -> None:
    codes = {kind.exit_code for kind in failures("mpwire", "mpagent")}
    assert codes | NOT_AN_ERROR == set(TABLE)
    assert codes & NOT_AN_ERROR == set()


def test_a_server_failure_uses_a_documented_code() -> None:
    assert {kind.exit_code for kind in failures("mpwire", "mpissuer", "mpserver")} <= set(TABLE)


def test_every_documented_code_is_described() -> None:
    assert [code for code, (meaning, _) in TABLE.items() if len(meaning.split()) < 3] == []
    assert {code for code, (_, again) in TABLE.items() if not again} == {0, 64, 65, 77, 78}


def test_systemd_starts_again_whatever_can_heal_by_waiting_and_nothing_that_never_heals() -> None:
    for kind in failures("mpwire", "mpagent"):
        if kind.exit_code == MpError.exit_code:
            continue  # unforeseen, or never meant to leave its module: a restart may help, nobody knows
        again = TABLE[kind.exit_code][1]
        assert kind.retry is not Retry.LATER or again, kind
        assert kind.retry is not Retry.NEVER or not again, kind


def test_a_table_with_a_code_missing_is_noticed() -> None:
    assert set(read_table("| 0 | EX_OK | all is done | no |\n| 70 | x | a bug | yes |\n| 75 | no row |")) == {0, 70}
