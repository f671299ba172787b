"""The disk that the guest boots: the base with our job in it, put there without mounting anything."""

import subprocess
from pathlib import Path
from typing import Final

from tests.qemu import cache
from tests.qemu.base import find_base
from tests.qemu.flash import write_files

_HERE: Final = Path(__file__).parent
_JOB: Final = _HERE / "bench-job"
_UNIT: Final = _HERE / "bench-job.service"
_WANTS: Final = "/etc/systemd/system/multi-user.target.wants"


def find_root() -> Path:
    """The disk, never to be written: boot it with snapshot=on. Two seconds where the base is built."""
    base = find_base()
    key = cache.key_of(base.parent.name, Path(__file__), _JOB, _UNIT)
    return cache.find_or_build("root", key, lambda folder: _build(folder, base)) / "root.raw"


def _build(folder: Path, base: Path) -> None:
    disk = folder / "root.raw"
    subprocess.run(["cp", "--sparse=always", str(base), str(disk)], check=True)
    files = {
        "/usr/local/sbin/bench-job": _JOB.read_bytes(),
        "/etc/systemd/system/bench-job.service": _UNIT.read_bytes(),
    }
    write_files(disk, files, {f"{_WANTS}/bench-job.service": "../bench-job.service"})
