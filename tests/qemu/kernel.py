"""An arm64 kernel from Debian's linux-source with the product's fragment and the machine's, everything built in.

None of Debian's own kernels has trusted keys, and the arm64 ones have no driver for QEMU's TPM.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.qemu import cache

SOURCE: Final = "linux-source-6.12"
_HERE: Final = Path(__file__).parent
_FRAGMENTS: Final = (
    _HERE.parent.parent / "agent" / "mpagent" / "hal" / "caam" / "kernel.config",
    _HERE / "machine.config",
)
_MAKE: Final = ("ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-")
_STAMP: Final = {"KBUILD_BUILD_USER": "bench", "KBUILD_BUILD_HOST": "bench"}


def find_kernel() -> Path:
    """The Image, built when the fragments, this file, the source or the compiler changed. About 10 minutes of CPU."""
    version = _source_version()
    compiler = subprocess.check_output(["aarch64-linux-gnu-gcc", "-dumpfullversion"], text=True)
    key = cache.key_of(_read_fragment(), Path(__file__), version, compiler)
    return cache.find_or_build("kernel", key, lambda folder: _build(folder, version)) / "Image"


def missing_lines(fragment: str, configuration: str) -> list[str]:
    """Lines of the fragment that the configuration does not have: an option that was renamed, or misses another."""
    have = set(configuration.splitlines())
    return [line for line in fragment.splitlines() if line not in have]


def _read_fragment() -> str:
    """Without its comments, for which nobody builds a kernel anew."""
    lines = (line for part in _FRAGMENTS for line in part.read_text().splitlines())
    return "".join(f"{line}\n" for line in lines if line.startswith("CONFIG_"))


def _source_version() -> str:
    """What apt would install now: a security update is another kernel."""
    shown = subprocess.check_output(["apt-cache", "policy", SOURCE], text=True, env={**os.environ, "LC_ALL": "C"})
    found = re.search(r"Candidate: (\d\S*)", shown)
    if found is None:
        raise RuntimeError(f"apt knows no {SOURCE}: run apt-get update, with the security suite among the sources")
    return found[1]


def _build(folder: Path, version: str) -> None:
    source, output = folder / "source", folder / "output"
    source.mkdir()
    output.mkdir()
    _run(["apt-get", "--quiet", "download", f"{SOURCE}={version}"], folder)
    (package,) = folder.glob("*.deb")
    _run(["dpkg", "-x", str(package), "package"], folder)
    tar = folder / "package" / "usr" / "src" / f"{SOURCE}.tar.xz"
    _run(["tar", "--extract", "--file", str(tar), "--directory", str(source), "--strip-components=1"], folder)
    fragment = _read_fragment()
    (folder / "fragment").write_text(fragment)
    make = ["nice", "make", "-s", "-C", str(source), f"O={output}", *_MAKE]
    _run([*make, f"KCONFIG_ALLCONFIG={folder / 'fragment'}", "allnoconfig"], folder)
    missing = missing_lines(fragment, (output / ".config").read_text())
    if missing:
        raise RuntimeError(f"the kernel would lack {', '.join(missing)}")
    _run([*make, f"-j{os.cpu_count() or 1}", "Image"], folder)
    shutil.copy(output / ".config", folder / "config")
    shutil.copy(output / "arch" / "arm64" / "boot" / "Image", folder / "Image")
    for spent in (source, output, folder / "package"):
        shutil.rmtree(spent)
    package.unlink()


def _run(command: list[str], folder: Path) -> None:
    """One step; what it said is in the folder's log, whose end is shown when it fails."""
    log = folder / "log"
    with open(log, "ab") as output:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **_STAMP}
        )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{log.read_text(errors='replace')[-3000:]}")
