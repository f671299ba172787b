"""A machine of namespaces with the real systemd as its first process, and our units on it."""

import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tests.mpagent.conftest import AS_ROOT
from tests.walls.rooms import ROOT

LIMIT_S: Final = 100
_NAMESPACES: Final = (
    "unshare",
    "--fork",
    "--kill-child",
    "--pid",
    "--mount",
    "--uts",
    "--ipc",
    "--net",
    "--cgroup",
    "--mount-proc",
)
_PROGRAM: Final = """#!/bin/sh
# The interpreter of the tests may lie in a home, which no unit sees, and its library with it.
LD_LIBRARY_PATH=/trial/python/lib
PYTHONPATH=/trial/source/agent:/trial/source/sim:/trial/packages
export LD_LIBRARY_PATH PYTHONPATH
exec /trial/python/bin/{python} -B -m mpagent --root /trial/board/disk "$@"
"""
_DEPENDENT: Final = """[Unit]
Requires=mpagent-provisioned.target
After=mpagent-provisioned.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
"""
WAIT: Final = """
wait_for() { # COMMAND..., until it holds; 30 s at most
    for _ in $(seq 300); do
        if "$@"; then return; fi
        sleep 0.1
    done
    echo "never: $*"
}
shows() { [ "$(systemctl show mpagent.service --property="$1" --value)" = "$2" ]; }
ask() { systemctl show mpagent.service --property=ActiveState,SubState,Result,NRestarts,ExecMainStatus,StatusText; }
reached() { systemctl is-active --quiet "$1" && echo "reached $1" || echo "not reached $1"; }
"""


def boot(
    board: Path, folder: Path, trial: str, service: str = "", files: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Lines that `trial`, a shell script, wrote in a machine with this board; `service` is added to [Service].

    `files` lie in /trial/out there."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "mpagent").write_text(_PROGRAM.format(python=version))
    # The board lies in a folder of this test, where an installation has it at the root.
    (folder / "trial.conf").write_text(f"[Service]\nReadWritePaths=/trial/board\n{service}\n")
    (folder / "dependent.service").write_text(_DEPENDENT)
    (folder / "trial.sh").write_text(WAIT + trial)
    places = (ROOT / "systemd", ROOT, sys.base_prefix, sysconfig.get_path("purelib"), board, folder)
    command = [*AS_ROOT, *_NAMESPACES, str(Path(__file__).with_name("machine.sh")), *map(str, places)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S)
    log = folder / "trial.log"
    assert log.exists(), done.stdout + done.stderr
    return log.read_text().splitlines()
