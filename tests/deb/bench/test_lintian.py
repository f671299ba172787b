"""What Debian's own reviewer says."""

import re

from tests.deb.layer import Layer
from tests.walls.rooms import ROOT

LINTIAN = "lintian --allow-root --display-info --fail-on none /packages/*.deb"


def test_lintian_says_nothing(builder: Layer) -> None:
    said = builder.shell(LINTIAN)
    assert [line for line in said.splitlines() if re.match(r"[EWI]: ", line)] == []


def test_no_override_is_left_over(builder: Layer) -> None:
    """One that nothing needs any more would hide the next."""
    assert "unused-override" not in builder.shell(LINTIAN + " --show-overrides")


def test_every_override_says_why() -> None:
    files = list((ROOT / "packaging" / "debian").glob("*.lintian-overrides"))
    assert files
    for file in files:
        lines = file.read_text().splitlines()
        tags = [number for number, line in enumerate(lines) if not line.startswith("#")]
        first_tags = [number for number in tags if number - 1 not in tags]
        assert all(number and lines[number - 1].startswith("# ") for number in first_tags), file


def test_a_package_with_a_fault_is_named(builder: Layer) -> None:
    """The reviewer is awake."""
    builder.shell("cd /var/tmp && dpkg-deb -R /packages/mpagent_*.deb broken")
    builder.shell("cd /var/tmp && rm broken/usr/share/doc/mpagent/copyright /packages/*")
    builder.shell("cd /var/tmp && dpkg-deb -b broken /packages")
    assert "E: mpagent: no-copyright-file" in builder.shell(LINTIAN)
