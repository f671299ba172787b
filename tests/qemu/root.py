"""The disk that the guest boots: the base with our job in it, put there without mounting anything."""

import subprocess
from pathlib import Path
from typing import Final

from tests.qemu import cache
from tests.qemu.base import find_base

_HERE: Final = Path(__file__).parent
_JOB: Final = _HERE / "bench-job"
_UNIT: Final = _HERE / "bench-job.service"
_WANTS: Final = "/etc/systemd/system/multi-user.target.wants"
_DEBUGFS: Final = "/usr/sbin/debugfs"
_COMMANDS: Final = f"""\
cd /usr/local/sbin
write {_JOB} bench-job
set_inode_field bench-job mode 0100755
cd /etc/systemd/system
write {_UNIT} bench-job.service
cd {_WANTS}
symlink bench-job.service ../bench-job.service
"""
"""For debugfs."""


def find_root() -> Path:
    """The disk, never to be written: boot it with snapshot=on. Two seconds where the base is built."""
    base = find_base()
    key = cache.key_of(base.parent.name, Path(__file__), _JOB, _UNIT)
    return cache.find_or_build("root", key, lambda folder: _build(folder, base)) / "root.raw"


def _build(folder: Path, base: Path) -> None:
    """debugfs says what went wrong and still ends well, so what it wrote is looked for."""
    disk = folder / "root.raw"
    subprocess.run(["cp", "--sparse=always", str(base), str(disk)], check=True)
    commands = folder / "commands"
    commands.write_text(_COMMANDS)
    said = subprocess.run([_DEBUGFS, "-w", "-f", str(commands), str(disk)], capture_output=True, text=True, check=True)
    for path, wanted in (("/usr/local/sbin/bench-job", "0755"), (f"{_WANTS}/bench-job.service", "symlink")):
        shown = subprocess.run([_DEBUGFS, "-R", f"stat {path}", str(disk)], capture_output=True, text=True, check=True)
        if wanted not in shown.stdout:
            raise RuntimeError(f"{path} is not in the disk:\n{said.stdout}{said.stderr}")
