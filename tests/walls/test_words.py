"""Tracked files name no machine, no registry and no workplace: the project must build anywhere."""

import re
import subprocess

from tests.walls.rooms import ROOT

# Each pattern is written so that it does not find itself.
WORDS = re.compile(
    r"/wor[k]/|/far[m]/|/roo[t]/|/hom[e]/[a-z]|\.librar[y]/|/op[t]/wheels|bash_job[s]"
    r"|pythonhoste[d]|registry\.npmj[s]|deb\.debia[n]|py[p]i\.org|anthropi[c]|claud[e]|chatgp[t]|copilo[t]",
    re.IGNORECASE,
)


def machine_words(text: str) -> list[str]:
    return [match.group() for match in WORDS.finditer(text)]


def test_no_tracked_file_names_a_machine_or_a_registry() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = {}
    for path in (ROOT / name for name in listed.split("\0") if name):
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        if words := machine_words(f"{path.relative_to(ROOT)}\n{text}"):
            found[path] = words
    assert listed
    assert found == {}


def test_a_file_that_names_one_is_found() -> None:
    for word in ("/wor" + "k/main", "https://py" + "pi.org/simple", "/hom" + "e/me/x", "files.pythonhoste" + "d.org"):
        assert machine_words(f"see {word} for more")
    assert machine_words("a network/ folder, /usr/lib and homework/") == []
