"""README.md tells a stranger what to type; here it is typed."""

import os
import re
import subprocess
from pathlib import Path

from tests.walls.rooms import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_what_the_readme_says_to_type_provisions_a_board(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)

    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", block + "\nwait\n"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("PASS ") for line in lines)
    assert "32" in lines
    assert any(line.startswith("ledger verified: ") for line in lines)


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []
