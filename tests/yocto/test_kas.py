"""The KAS files by KAS itself: schema, includes, and what bitbake would be given; upstream is a folder."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.walls.rooms import ROOT

from .recipes import LAYER

TOOLS: Final = ROOT / "out/env/oelint/bin"
KAS: Final = LAYER / "kas"
RELEASES: Final = {"scarthgap": KAS / "imx8mm-evk.yml", "wrynose": KAS / "imx8mm-evk-wrynose.yml"}
VALIDATE: Final = """
import json, sys, yaml, jsonschema, kas.configschema
content = yaml.safe_load(open(sys.argv[1]))
jsonschema.validate(content, kas.configschema.CONFIGSCHEMA)
print(json.dumps(content))
"""
START: Final = '#!/bin/sh\nmkdir -p "$1" && cd "$1" && export BBPATH="$PWD"\n'
REPOSITORIES: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "poky": (("scarthgap",), ("meta", "meta-poky")),
    "openembedded-core": (("wrynose",), ("meta",)),
    "bitbake": (("2.18",), ()),
    "meta-yocto": (("wrynose",), ("meta-poky",)),
    "meta-openembedded": (("scarthgap", "wrynose"), ("meta-oe", "meta-python")),
    "meta-freescale": (("scarthgap", "wrynose"), (".",)),
}
"""Branches and layers, as upstream has them: poky, with bitbake and oe-core inside, ends before wrynose."""
LAYERS: Final = {
    "scarthgap": {"poky/meta", "poky/meta-poky"},
    "wrynose": {"openembedded-core/meta", "meta-yocto/meta-poky"},
}
COMMON: Final = {"meta-openembedded/meta-oe", "meta-openembedded/meta-python", "meta-freescale", "yocto-layer"}


def read_kas(path: Path) -> "subprocess.CompletedProcess[str]":
    """The file as JSON, if KAS's schema takes it."""
    return subprocess.run(
        [str(TOOLS / "python"), "-c", VALIDATE, str(path)], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("path", sorted(KAS.glob("*.yml")), ids=lambda path: path.name)
def test_kas_takes_the_file(path: Path, tmp_path: Path) -> None:
    assert read_kas(path).returncode == 0, read_kas(path).stderr
    spoiled = tmp_path / "spoiled.yml"
    spoiled.write_text(path.read_text() + "no_such_key: 1\n")
    assert read_kas(spoiled).returncode != 0


def test_kas_builds_both_images_each_in_its_configuration() -> None:
    targets = json.loads(read_kas(KAS / "imx8mm-evk-common.yml").stdout)["target"]
    assert targets == ["mpagent-image-production", "mc:mpagent-provisioning:mpagent-image-provisioning"]
    for target in targets:
        assert (LAYER / f"recipes-mpagent/images/{target.split(':')[-1]}.bb").is_file()
    assert (LAYER / "conf/multiconfig/mpagent-provisioning.conf").is_file()


def git(folder: Path, *words: str) -> None:
    name = ["-c", "user.name=upstream", "-c", "user.email=upstream@example.com"]
    subprocess.run(["git", "-C", str(folder), *name, *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each repository with its branches, its layers, and where it has one, the script that begins a build."""
    folder = tmp_path_factory.mktemp("upstream")
    for name, (branches, layers) in REPOSITORIES.items():
        made = folder / name
        for layer in layers:
            (made / layer / "conf").mkdir(parents=True)
            (made / layer / "conf/layer.conf").write_text("")
        if "meta" in layers:
            (made / "oe-init-build-env").write_text(START)
            (made / "oe-init-build-env").chmod(0o755)
        made.mkdir(exist_ok=True)
        (made / "README").write_text(name)
        git(made, "init", "-q")
        git(made, "add", "--all")
        git(made, "commit", "-q", "-m", "all of it")
        for branch in branches:
            git(made, "branch", branch)
        git(made, "checkout", "-q", "--detach")
    return folder


def check_out(upstream: Path, work: Path, *files: Path) -> "subprocess.CompletedProcess[str]":
    """`kas checkout`, which ends where bitbake would begin; no address but the folder's is asked."""
    work.mkdir()
    mirror = rf"https?://(?:.*/)?([^/]+)$ file://{upstream}/\1"
    environment = {"PATH": os.environ["PATH"], "HOME": str(work), "KAS_WORK_DIR": str(work), "KAS_PREMIRRORS": mirror}
    command = [str(TOOLS / "kas"), "checkout", ":".join(map(str, files))]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


def read_layers(work: Path) -> set[str]:
    """Of bblayers.conf, below the work folder or the checkout."""
    words = (work / "build/conf/bblayers.conf").read_text().replace('"', " ").split()
    paths = [Path(os.path.normpath(word.replace("${TOPDIR}", str(work / "build")))) for word in words if "/" in word]
    return {str(one.relative_to(work if one.is_relative_to(work) else ROOT)) for one in paths}


@pytest.mark.parametrize("release", RELEASES)
def test_kas_gives_bitbake_the_layers_and_settings_of_the_release(release: str, upstream: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    done = check_out(upstream, work, RELEASES[release], KAS / "site.example.yml")
    assert done.returncode == 0, done.stderr
    assert read_layers(work) == LAYERS[release] | COMMON
    for name in {one.split("/")[0] for one in LAYERS[release] | COMMON} - {"yocto-layer"}:
        head = subprocess.check_output(["git", "-C", str(work / name), "branch", "--show-current"], text=True)
        assert head.strip() == release
    lines = set((work / "build/conf/local.conf").read_text().splitlines())
    # meta-freescale's default for this board is mainline, and its MACHINE_FEATURES then lack optee.
    wanted = {'IMX_DEFAULT_BSP = "nxp"', 'DISTRO_FEATURES:append = " mpagent"', 'WKS_FILE = "mpagent-imx8m.wks.in"'}
    assert wanted <= lines and 'MPAGENT_TAG = "v0.1.0"' in lines
    assert {'MACHINE ??= "imx8mm-lpddr4-evk"', 'DISTRO ??= "poky"'} <= lines
    assert 'BBMULTICONFIG ?= "mpagent-provisioning"' in lines


def test_a_release_that_upstream_does_not_have_ends_there(upstream: Path, tmp_path: Path) -> None:
    spoiled = tmp_path / "spoiled.yml"
    spoiled.write_text(_without_include(RELEASES["wrynose"]).replace("branch: wrynose", "branch: walnascar"))
    done = check_out(upstream, tmp_path / "work", spoiled)
    assert done.returncode != 0 and "walnascar" in done.stderr


def _without_include(path: Path) -> str:
    text = path.read_text()
    before, _, rest = text.partition("  includes:\n")
    return before + rest.partition("\n")[2]


def test_every_release_of_the_layer_has_a_file() -> None:
    found: dict[str, Any] = {
        release: json.loads(read_kas(path).stdout)["defaults"]["repos"]["branch"] for release, path in RELEASES.items()
    }
    assert found == {release: release for release in RELEASES}
    series = next(line for line in (LAYER / "conf/layer.conf").read_text().splitlines() if "SERIES_COMPAT" in line)
    assert series.split('"')[1].split() == list(RELEASES)
