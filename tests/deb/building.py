"""The Debian packages, built from a clean export by Debian's own tools: see packaging/debian/rules."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.deb.layer import Layer
from tests.deb.trees import find_builder
from tests.qemu import cache
from tests.walls.rooms import ROOT

PINS: Final = ROOT / "constraints" / "current.txt"
VENDORED: Final = ("granian", "google-re2")
"""The HTTP server, and what searches images, as the wheels their authors publish: Debian 13 has neither."""
TARGET: Final = (
    *("--python-version", "3.13", "--implementation", "cp", "--abi", "cp313", "--only-binary", ":all:"),
    *("--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_17_x86_64"),
)
PACKAGES: Final = {"mpagent": "--build=all", "all": "--build=binary"}
"""What can be asked for, as dpkg-buildpackage knows it: `mpagent` alone is what fits every architecture."""


def build(wanted: str, folder: Path, commit: str = "HEAD") -> list[Path]:
    """The packages, put into the folder. Some 30 s where the tree to build in is there."""
    layer = Layer(find_builder(), Path(tempfile.mkdtemp(prefix="mpagent-deb-")))
    try:
        _export(commit, layer.path("build/tree"))
        if wanted == "all":
            for wheel in map(_find_vendored, VENDORED):
                layer.put("build/tree/vendor", wheel)
        said = layer.shell(f"cd /build/tree && dpkg-buildpackage --unsigned-changes {PACKAGES[wanted]}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "build.log").write_text(said)
        built = sorted(layer.path("build").glob("*.deb"))
        for package in built:
            _remove_others(folder, package.name.split("_")[0])
        return [Path(shutil.copy(package, folder)) for package in built]
    finally:
        layer.remove()


def _remove_others(folder: Path, name: str) -> None:
    """A package of an earlier version would be taken for this one's."""
    for earlier in folder.glob(f"{name}_*.deb"):
        earlier.unlink()


def _export(commit: str, target: Path) -> None:
    """The committed tree alone, debian/ where Debian's tools look for it."""
    target.mkdir(parents=True)
    archive = subprocess.Popen(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE)
    subprocess.run(["tar", "--extract", "--directory", str(target)], stdin=archive.stdout, check=True)
    if archive.wait():
        raise RuntimeError(f"git archive {commit} failed")
    shutil.move(target / "packaging" / "debian", target / "debian")


def _find_vendored(name: str) -> Path:
    """The wheel in the pinned version, from the user's cache or from the registry that pip is set up for."""
    (pin,) = (line for line in PINS.read_text().splitlines() if line.startswith(f"{name}=="))
    folder = cache.find_or_build("deb-wheel", cache.key_of(pin, *TARGET), lambda made: _download(pin, made))
    (wheel,) = folder.glob("*.whl")
    return wheel


def _download(pin: str, folder: Path) -> None:
    command: Sequence[str] = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *TARGET)
    subprocess.run([*command, "--dest", str(folder), pin], check=True)
