"""mpagent-finish.service at work: root in the unit's sandbox, on a real partition, by an order of mpagent.service."""

import os
import subprocess
from pathlib import Path

from tests.mpagent.conftest import AS_ROOT, authority, make_peer  # noqa: F401  # of the next ones
from tests.mpagent.finish_bench import attach, do
from tests.mpagent.test_cli import STATE, Counter, counter  # noqa: F401  # the fixture

from .machine import boot

BOOT_ID = "proc/sys/kernel/random/boot_id"


def prepare(counter: Counter, board: Path, loop: Path) -> Path:  # noqa: F811
    """A finished board whose image encrypts p2 and keeps its state on p1; its kernel is this machine's."""
    disk = counter.make_board(board)
    counter.enroll(disk)
    anchors = disk / "usr/lib/mpagent/anchors.toml"
    table = f'[finish]\nluks = "{loop}p2"\nluks_slot = "disk"\nstate = "{loop}p1"\nafter = "stay"\n'
    anchors.write_text(f"{anchors.read_text()}\n{table}")
    for name in ("sys", "dev", "proc/self", BOOT_ID, "usr/sbin/cryptsetup"):
        (disk / name).parent.mkdir(parents=True, exist_ok=True)
        (disk / name).symlink_to(f"/{name}")
    return disk


def make_node(path: Path) -> str:
    number = path.stat().st_rdev
    return f"mknod {path} b {os.major(number)} {os.minor(number)}"


def test_the_sandbox_lets_the_finisher_encrypt_a_disk_and_leaves_the_state_to_its_user(
    counter: Counter,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The same unit again changes nothing, and the agent still reads its own folder."""
    with attach(tmp_path) as loop:
        disk = prepare(counter, tmp_path / "board", loop)
        do("mkfs.ext4", "-q", f"{loop}p1")
        state = f"/trial/board/disk/{STATE}"
        trial = f"""
        wait_for systemctl is-active --quiet mpagent-provisioned.target
        {make_node(Path(f"{loop}p1"))}; {make_node(Path(f"{loop}p2"))}
        mkdir /run/new && mount {loop}p1 /run/new && cp -a {state}/. /run/new/ && umount /run/new
        mount {loop}p1 {state}
        folder=/etc/systemd/system/mpagent-finish.service.d
        mkdir $folder && printf '[Service]\\nReadWritePaths=/trial/board\\n' > $folder/trial.conf
        systemctl daemon-reload
        systemctl start mpagent-finish.service
        systemctl show mpagent-finish.service --property=ActiveState,ExecMainStatus
        systemctl restart mpagent-finish.service
        journalctl --no-pager -o cat -u mpagent-finish.service
        stat -c '%U %a %n' {state}/finish {state}/order; stat -c '%U %n' {state}
        systemctl restart mpagent.service && echo "agent reads its folder"
        """
        lines = boot(disk.parent, tmp_path / "out", trial)
        secret = counter.run(disk, "secret", "get", "disk").stdout
        opened = subprocess.run(
            [*AS_ROOT, "cryptsetup", "open", "--test-passphrase", "--key-file", "-", f"{loop}p2"],
            input=secret,
            capture_output=True,
            check=False,
        )
    said = "\n".join(lines)
    assert {"ActiveState=active", "ExecMainStatus=0", "DONE luks-format", "DONE before"} <= set(lines), said
    assert {f"root 700 {state}/finish", f"mpagent 600 {state}/order", f"mpagent {state}"} <= set(lines), said
    assert "agent reads its folder" in lines and secret.hex() not in said
    assert opened.returncode == 0, said
