"""A Debian root for arm64 with the libraries that a device carries: packaged Python only, no pip, no kernel.

Without linux-image there is no initramfs, whose making forks thousands of times under emulation.
"""

import os
import subprocess
from pathlib import Path
from typing import Final

from tests.qemu import cache

SUITE: Final = "trixie"
DISK: Final = "2G"
"""Sparse; about 400 MiB are written."""
_HERE: Final = Path(__file__).parent
_PACKAGES: Final = _HERE / "packages.txt"
_BINFMT: Final = Path("/proc/sys/fs/binfmt_misc")
_HANDLER: Final = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
"""Of qemu-user-static: how the host runs arm64 programs while it unpacks them."""
_LEAN: Final = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


def find_base() -> Path:
    """The image of a file system, never to be written. A quarter of an hour, most of it in emulated scripts."""
    return cache.find_or_build("base", cache.key_of(_PACKAGES, Path(__file__), SUITE), _build) / "base.raw"


def _build(folder: Path) -> None:
    _enable_arm64()
    packages = ",".join(_PACKAGES.read_text().split())
    command = ["nice", "mmdebstrap", "--quiet", "--mode=root", "--arch=arm64", "--variant=minbase"]
    command += [f"--include={packages}", '--aptopt=APT::Install-Recommends "false"']
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEAN]
    command += [f'--customize-hook=chroot "$1" dpkg-query --show >"{folder}/manifest"']
    _run([*_as_root(), *command, SUITE, "tree", _mirror()], folder)
    _run([*_as_root(), "mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", "tree", "-F", "base.raw", DISK], folder)
    _run([*_as_root(), "rm", "-rf", "tree"], folder)


def _mirror() -> str:
    """Where this machine's own packages come from."""
    shown = subprocess.check_output(["apt-get", "indextargets", "--format", "$(SITE)", "Label: Debian"], text=True)
    sites = shown.split()
    if not sites:
        raise RuntimeError("apt knows no Debian mirror: run apt-get update")
    return sites[0]


def _enable_arm64() -> None:
    """Register qemu-user for arm64, as systemd-binfmt would; it stays registered until the machine is rebooted."""
    if (_BINFMT / "qemu-aarch64").exists():
        return
    mount = f"mountpoint -q {_BINFMT} || mount -t binfmt_misc binfmt_misc {_BINFMT}"
    script = f"{mount}; cat {_HANDLER} >{_BINFMT}/register"
    subprocess.run([*_as_root(), "sh", "-ec", script], check=True)


def _as_root() -> list[str]:
    return [] if os.geteuid() == 0 else ["sudo"]


def _run(command: list[str], folder: Path) -> None:
    log = folder / "log"
    # Ours would have the guest's modules compiled into a folder of this machine, and in every boot once more.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPYCACHEPREFIX"}
    with open(log, "ab") as output:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env)
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{log.read_text(errors='replace')[-3000:]}")
