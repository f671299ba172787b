"""A layer over a tree of trees.py: where packages are built, and where they are installed."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

BOOT_MAX_S: Final = 120
"""Some 5 s on an idle machine."""
_ENTER: Final = """
rm -rf "$2/work"
mkdir "$2/work"
overlay="lowerdir=$1,upperdir=$2/upper,workdir=$2/work,volatile"
mount -t overlay overlay -o "$overlay" "$2/whole"
mount -t proc proc "$2/whole/proc"
mount --rbind /sys "$2/whole/sys"
mount -t tmpfs tmpfs "$2/whole/tmp"
ip link set lo up
root=$2/whole
shift 2
exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/nonexistent \
    DEBIAN_FRONTEND=noninteractive SYSTEMD_OFFLINE=1 "$@"
"""
"""Arguments: the trees below, the layer, the command. All mounts end with the namespace.

`volatile`: no sync reaches the disk, which is most of what dpkg waits for; no layer has to outlive a power cut.
SYSTEMD_OFFLINE: there is no service manager, and starting a unit is passed over."""


class Layer:
    """What is written over a tree, in a folder of its own; commands come one after the other and find it again.

    Each runs as root of the tree, in namespaces of its own: no network but loopback, no process of the machine.
    """

    def __init__(self, below: "Path | Layer", folder: Path) -> None:
        """Over a tree, or over another layer, in which nothing may be run or written from now on."""
        self._below: str = str(below) if isinstance(below, Path) else f"{below.path('/')}:{below._below}"
        self._folder = folder
        for made in ("upper", "whole"):
            (folder / made).mkdir(parents=True)
        # The root of the tree takes the mode of this one.
        self.path("/").chmod(0o755)

    def path(self, inside: str) -> Path:
        """Where a file that was written in the layer lies; to be written only while no command runs."""
        return self._folder / "upper" / inside.lstrip("/")

    def put(self, inside: str, *files: Path) -> None:
        """Copies of files in a folder of the layer."""
        folder = self.path(inside)
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, folder)

    def run(self, *command: str, status: int = 0) -> str:
        """stdout and stderr together. Raises AssertionError when it does not end with this status."""
        spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts"]
        enter = ["sh", "-ec", _ENTER, "enter", self._below, str(self._folder)]
        done = subprocess.run(
            [*spaces, *enter, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != status:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}")
        return done.stdout

    def boot(self, trial: str) -> str:
        """What a script says that runs when the layer's own systemd has started what is enabled; then it powers off."""
        for spent in ("trial.log", "trial.sh"):
            self.path(spent).unlink(missing_ok=True)
        self.path("trial.sh").write_text(trial)
        spaces = ["unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup"]
        enter = [str(Path(__file__).with_name("boot.sh")), self._below, str(self._folder)]
        done = subprocess.run(
            [*spaces, *enter], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOOT_MAX_S
        )
        log = self.path("trial.log")
        assert log.exists(), done.stdout + done.stderr
        return log.read_text()

    def remove(self) -> None:
        """All of it."""
        shutil.rmtree(self._folder)

    def shell(self, script: str, status: int = 0) -> str:
        """`run` of a script."""
        return self.run("sh", "-ec", script, status=status)
