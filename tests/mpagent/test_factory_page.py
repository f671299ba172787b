"""docs/factory.md answers for every name that a screen may show in brackets, once."""

import re
from collections import Counter

from mpagent.advice import _BY_CLASS
from mpagent.face.screen import _WORDS
from mpagent.offline.words import WORDS
from tests.walls.rooms import ROOT
from tests.walls.test_check_names import REFUSALS
from tests.walls.test_exit_codes import failures

TEXT = (ROOT / "docs" / "factory.md").read_text(encoding="utf-8")
NAMED = Counter(re.findall(r"^\| `([A-Za-z-]+)` \|", TEXT, re.MULTILINE))
OWN = {"rework", "Malformed"}
"""Said by the device of itself: in the words of a refusal, and the most frequent kind of PeerBroke."""
WORD = re.compile(r"^\| \*\*([A-Z]+)\*\* \|", re.MULTILINE)


def test_every_reason_has_one_answer() -> None:
    classes = {kind.__name__ for kind, _ in _BY_CLASS}
    bundles = set(WORDS)
    assert (REFUSALS | classes | bundles | OWN) - set(NAMED) == set()
    assert set(NAMED) - (REFUSALS | bundles | OWN | {kind.__name__ for kind in failures("mpwire", "mpagent")}) == set()
    assert {name: times for name, times in NAMED.items() if times > 1} == {}


def test_every_word_of_the_screen_is_explained() -> None:
    assert sorted(WORD.findall(TEXT)) == sorted(_WORDS.values())
