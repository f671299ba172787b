"""Debian 13 beside the machine's own Debian: trees in the user's cache, to be worked in through a layer (layer.py)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

# The base of the QEMU bench is cached under this very file, so its helpers keep their names.
from tests.qemu import cache
from tests.qemu.base import _as_root as as_root
from tests.qemu.base import _mirror as find_mirror
from tests.qemu.base import _run as run_logged

SUITE: Final = "trixie"
ARCHITECTURE: Final = "amd64"
CARRIED: Final = (
    *("systemd", "python3-requests", "python3-urllib3", "python3-cryptography"),
    *("python3-tpm2-pytss", "python3-pkcs11", "python3-pyscard"),
    *("python3-lz4", "python3-zstandard"),
)
"""Packages that lie in the clean tree as archives, not unpacked: what ours depend on is installed without a network."""
TOOLS: Final = (
    *("build-essential", "debhelper", "dh-python", "lintian", "man-db"),
    *("pybuild-plugin-pyproject", "python3-all", "python3-hatchling", "python3-cryptography"),
)
"""What debian/control builds with, and what looks at the outcome."""
_LEAN: Final = '--aptopt=APT::Install-Recommends "false"'


def find_clean() -> Path:
    """A Debian 13 of essential packages and apt, never to be written. Some 40 s."""
    key = cache.key_of(Path(__file__), find_mirror())
    return cache.find_or_build("deb-clean", key, _build_clean) / "tree"


def find_builder() -> Path:
    """The same with the tools that build packages and judge them, never to be written. Some 90 s."""
    key = cache.key_of(Path(__file__), find_mirror())
    return cache.find_or_build("deb-builder", key, _build_builder) / "tree"


def _build_clean(folder: Path) -> None:
    download = f'chroot "$1" apt-get -q -y --download-only install {" ".join(CARRIED)}'
    _bootstrap(folder, ["--skip=cleanup/apt", f"--customize-hook={download}"])


def _build_builder(folder: Path) -> None:
    _bootstrap(folder, [f"--include={','.join(TOOLS)}"])


def _bootstrap(folder: Path, more: Sequence[str]) -> None:
    command = ["nice", "mmdebstrap", "--quiet", "--mode=root", f"--arch={ARCHITECTURE}", "--variant=minbase", _LEAN]
    run_logged([*as_root(), *command, *more, SUITE, "tree", find_mirror()], folder)
