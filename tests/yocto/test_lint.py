"""The recipes as oelint-adv reads them, for both releases, and the KAS file by KAS's own schema."""

import json
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.walls.rooms import ROOT

from .recipes import LAYER, metadata

TOOLS: Final = ROOT / "out/env/oelint/bin"
RELEASES: Final = ("scarthgap", "wrynose")
# The one rule left out asks every HOMEPAGE by network, and ours is a placeholder.
OPTIONS: Final = ("--quiet", "--jobs", "1", "--hide", "info", "--suppress", "oelint.vars.homepageping")
VALIDATE: Final = """
import json, sys, yaml, jsonschema, kas.configschema
content = yaml.safe_load(open(sys.argv[1]))
jsonschema.validate(content, kas.configschema.CONFIGSCHEMA)
print(json.dumps(content))
"""


def lint(release: str, *paths: Path) -> "subprocess.CompletedProcess[str]":
    command = [str(TOOLS / "oelint-adv"), "--release", release, *OPTIONS, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


@pytest.mark.parametrize("release", RELEASES)
def test_the_linter_finds_neither_error_nor_warning(release: str) -> None:
    done = lint(release, *metadata())
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_recipe_without_a_licence_would_be_noticed(tmp_path: Path) -> None:
    good = LAYER / "recipes-mpagent/mpagent/mpagent_0.1.0.bb"
    bad = tmp_path / "recipes-a/mpagent/mpagent_0.1.0.bb"
    bad.parent.mkdir(parents=True)
    bad.write_text("".join(line for line in good.open() if not line.startswith("LICENSE =")))
    done = lint("wrynose", bad)
    assert done.returncode != 0
    assert "mandatoryvar.LICENSE" in done.stdout + done.stderr


def test_no_file_switches_a_rule_off_but_the_one_that_cannot_see_a_conditional_include() -> None:
    switched = {
        (path.name, line.split(":", 1)[1].strip())
        for path in metadata()
        for line in path.read_text().splitlines()
        if "nooelint" in line
    }
    assert switched == {
        ("linux-mpagent.inc", "oelint.vars.noncoreoverride"),
        ("optee-os-mpagent.inc", "oelint.vars.noncoreoverride"),
    }


def read_kas(path: Path) -> "subprocess.CompletedProcess[str]":
    """The file as JSON, if KAS's schema takes it."""
    return subprocess.run(
        [str(TOOLS / "python"), "-c", VALIDATE, str(path)], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("path", sorted((LAYER / "kas").glob("*.yml")), ids=lambda path: path.name)
def test_kas_takes_the_file(path: Path, tmp_path: Path) -> None:
    assert read_kas(path).returncode == 0, read_kas(path).stderr
    spoiled = tmp_path / "spoiled.yml"
    spoiled.write_text(path.read_text() + "no_such_key: 1\n")
    assert read_kas(spoiled).returncode != 0


def test_kas_builds_both_images_each_in_its_configuration() -> None:
    targets = json.loads(read_kas(LAYER / "kas/imx8mm-evk.yml").stdout)["target"]
    assert targets == ["mpagent-image-production", "mc:mpagent-provisioning:mpagent-image-provisioning"]
    for target in targets:
        assert (LAYER / f"recipes-mpagent/images/{target.split(':')[-1]}.bb").is_file()
    assert (LAYER / "conf/multiconfig/mpagent-provisioning.conf").is_file()


def test_kas_chooses_the_bsp_that_has_an_optee() -> None:
    """meta-freescale's default for this board is mainline, and its MACHINE_FEATURES then lack optee."""
    lines = json.loads(read_kas(LAYER / "kas/imx8mm-evk.yml").stdout)["local_conf_header"]["mpagent"].splitlines()
    assert 'IMX_DEFAULT_BSP = "nxp"' in lines
    assert 'DISTRO_FEATURES:append = " mpagent"' in lines
