"""The disk of a board: the bench's root with our Debian package in it, put there by the guest's own dpkg.

The package is that of the committed tree. Beside it goes systemd-cryptsetup, which crypttab needs: fetched for itself,
because another word in the base's package list is a quarter of an hour of building.
"""

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.deb import building
from tests.qemu import cache
from tests.qemu.base import SUITE, _mirror, find_base
from tests.qemu.guest import Machine
from tests.qemu.root import find_root
from tests.walls.rooms import ROOT

INSTALL_MAX_S: Final = 300.0
"""About 25 s on an idle machine: dpkg compiles the modules under emulation."""
_PACKED: Final = ("agent", "systemd", "packaging", "docs", "pyproject.toml", "README.md", "LICENSE")
"""What the package is made of; scripts and the rest do not change it."""
_KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
_MOUNT: Final = ROOT / "yocto-layer/recipes-mpagent/mpagent/files/var-lib-mpagent.mount"


class _Installer(Machine):
    """Boots the copy itself, so that what it writes stays."""

    def __init__(self, folder: Path, disk: Path) -> None:
        super().__init__(folder)
        self._disk = disk

    def root_drive(self) -> str:
        return f"file={self._disk},format=raw,cache=unsafe"


def find_package() -> Path:
    """The device's package of the commit that is checked out. Under a minute where the tree to build in is there."""
    trees = [_read_git("rev-parse", f"HEAD:{path}") for path in _PACKED]
    key = cache.key_of(Path(building.__file__), *trees)
    folder = cache.find_or_build("deb-device", key, lambda made: _build_package(made))
    (package,) = folder.glob("mpagent_*.deb")
    return package


def find_cryptsetup() -> Path:
    """systemd-cryptsetup for arm64, in the version of the base's systemd."""
    lines = (find_base().parent / "manifest").read_text().splitlines()
    version = dict(line.split("\t") for line in lines)["systemd"]
    key = cache.key_of(version, Path(__file__))
    folder = cache.find_or_build("cryptsetup", key, lambda made: _fetch_cryptsetup(version, made))
    (package,) = folder.glob("systemd-cryptsetup_*.deb")
    return package


@functools.cache
def find_installed() -> Path:
    """The disk, never to be written. A minute where its parts are there; one process sees one commit."""
    packages = (find_package(), find_cryptsetup())
    jobs = Path(__file__).parent / "bench" / "inside" / "install.sh"
    key = cache.key_of(find_root().parent.name, Path(__file__), jobs, _MOUNT, *packages)
    return cache.find_or_build("installed", key, lambda folder: _install(packages, folder)) / "installed.raw"


def _build_package(folder: Path) -> None:
    building.build("mpagent", folder)


def _install(packages: tuple[Path, ...], folder: Path) -> None:
    disk = folder / "installed.raw"
    subprocess.run(["cp", "--sparse=always", str(find_root()), str(disk)], check=True)
    machine = _Installer(folder / "machine", disk)
    for file in (*packages, _MOUNT):
        shutil.copy(file, machine.work)
    outcome = machine.run("install", limit_s=INSTALL_MAX_S)
    (folder / "log").write_text(outcome.output)
    if outcome.status:
        raise RuntimeError(f"the package does not install in the guest:\n{outcome.output[-3000:]}")
    shutil.rmtree(folder / "machine")


def _fetch_cryptsetup(version: str, folder: Path) -> None:
    """By an apt of its own, which knows nothing of the machine's packages and takes signed lists alone."""
    for made in ("lists/partial", "cache/archives/partial", "parts"):
        (folder / made).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources").write_text(f"deb [arch=arm64 signed-by={_KEYRING}] {_mirror()} {SUITE} main\n")
    places = {
        "APT::Architecture": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State": folder,
        "Dir::State::status": folder / "status",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": folder / "sources",
        "Dir::Etc::sourceparts": folder / "parts",
        "Acquire::Languages": "none",
    }
    options = [f"-o{name}={value}" for name, value in places.items()]
    options.append("-oAPT::Architectures::=arm64")
    for words in (["update"], ["download", f"systemd-cryptsetup={version}"]):
        done = subprocess.run(["apt-get", "-q", *options, *words], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"apt-get {words[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    for spent in ("lists", "cache"):
        shutil.rmtree(folder / spent)


def _read_git(*words: str) -> str:
    return subprocess.check_output(["git", *words], cwd=ROOT, text=True).strip()
