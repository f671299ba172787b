"""docs/offline.md tells the OEM what to type; here it is typed."""

import os
import re
import subprocess
from pathlib import Path

from tests.walls.rooms import ROOT

PAGE = (ROOT / "docs/offline.md").read_text(encoding="utf-8")


def test_what_the_page_says_to_type_loads_a_board_without_a_line(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", block],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("PASS ") for line in lines) >= 2, done.stdout
    assert "32" in lines
    assert not list(tmp_path.glob("*/mp-key.json")), "the key's file was wiped"


def test_every_link_of_the_page_leads_somewhere() -> None:
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", PAGE)]
    assert len(links) > 8
    assert [link for link in links if link and not (ROOT / "docs" / link).exists()] == []
