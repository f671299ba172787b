"""The real service manager asks: LoadCredential= of units, from the socket unit and the sandboxed service we ship."""

import hashlib
import sys
from pathlib import Path

from tests.systemd.machine import boot

from .credential_desk import CLOUD, NOBODY, make_disk, provision

PYTHON = f"/trial/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
UNIT = """cat >/run/systemd/system/{name} <<'UNIT'
[Service]
Type=oneshot
User=nobody
LoadCredential=cloud-key:/run/mpagent-credentials/socket
StandardOutput=append:/trial/out/trial.log
ExecStart=/bin/sh -c 'sha256sum <"$CREDENTIALS_DIRECTORY/cloud-key"'
UNIT
"""
BEGIN = """
mount --make-rshared /  # as a system of its own has it: a unit's credentials are mounted by a child of PID 1
systemctl daemon-reload
systemctl start mpagent-credentials.socket
start() { systemctl start "$1" && echo "started $1" || systemctl show "$1" --property=Result,ExecMainStatus; }
"""


def test_unit_is_started_with_its_secret_and_no_other_unit_is(tmp_path: Path) -> None:
    """T-521 Mix-up: under the sandbox of our unit, as its own user; what is refused fails at CREDENTIALS (243)."""
    disk = make_disk(tmp_path / "board")
    provision(disk)
    trial = f"""{UNIT.format(name="app.service")}{UNIT.format(name="other.service")}{BEGIN}
    start app.service; start other.service; start app.service
    systemctl show mpagent-credentials.service --property=NRestarts,ActiveState,User
    {PYTHON} -I -S /trial/source/tests/mpagent/manager.py /run/mpagent-credentials/socket \\
        d7067f78d9827418/unit/app.service/cloud-key {NOBODY}; echo "nobody: $?"
    journalctl --no-pager -o cat -u mpagent-credentials.service
    """
    lines = boot(tmp_path / "board", tmp_path / "out", trial)
    digest = f"{hashlib.sha256(CLOUD).hexdigest()}  -"
    assert lines.count(digest) == 2 and lines.count("started app.service") == 2
    assert "started other.service" not in lines and "ExecMainStatus=243" in lines
    assert {"NRestarts=0", "ActiveState=active", "User=mpagent", "nobody: 3"} <= set(lines)
    assert not [line for line in lines if CLOUD.hex() in line]
    assert [line for line in lines if "refused" in line and "/unit/other.service/cloud-key" in line]


def test_unit_does_not_start_before_the_board_is_provisioned(tmp_path: Path) -> None:
    """It is started again by its own Restart=; never with an empty secret."""
    trial = f"{UNIT.format(name='app.service')}{BEGIN}start app.service"
    lines = boot(make_disk(tmp_path / "board").parent, tmp_path / "out", trial)
    assert "ExecMainStatus=243" in lines and "started app.service" not in lines
