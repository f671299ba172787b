"""The units at work: the real systemd, its sandbox and its journal, over boards of simulated silicon."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.mpagent.conftest import AS_ROOT, authority, make_peer  # noqa: F401  # of the next one
from tests.mpagent.test_cli import STATE, Counter, counter  # noqa: F401  # the fixture

from .machine import boot

TARGET = "mpagent-provisioned.target"


def test_finished_board_reaches_the_target_and_starts_who_waits_for_it(
    counter: Counter,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Under all of the unit's sandbox, as its own user."""
    board = counter.make_board(tmp_path / "board").parent
    counter.enroll(board / "disk")
    trial = f"""
    wait_for systemctl is-active --quiet dependent.service
    ask; reached {TARGET}; reached dependent.service
    journalctl --no-pager -o cat MP_STAGE=done PRIORITY=6
    stat -c '%U %a' /run/mpagent
    """
    lines = boot(board, tmp_path / "out", trial)
    assert "ActiveState=active" in lines and "ExecMainStatus=0" in lines and "NRestarts=0" in lines
    assert "StatusText=PASS: 4 slots unsealed in this boot, ledger index 1" in lines
    assert f"reached {TARGET}" in lines and "reached dependent.service" in lines
    assert "provisioned; 4 slots unsealed just now" in lines
    assert "mpagent 755" in lines


def test_cloned_disk_reaches_nothing_and_is_not_started_again(counter: Counter, tmp_path: Path) -> None:  # noqa: F811
    """T-501 Cloned disk: the whole disk of a finished board, on another chip."""
    disk = counter.make_board(tmp_path / "board")
    counter.enroll(disk)
    clone = counter.make_board(tmp_path / "clone")
    shutil.rmtree(clone / STATE)
    shutil.copytree(disk / STATE, clone / STATE)
    trial = f"""
    wait_for shows ActiveState failed
    sleep 2
    ask; reached {TARGET}; reached dependent.service
    journalctl --no-pager -o cat MP_REASON=ForeignDisk PRIORITY=3
    """
    lines = boot(clone.parent, tmp_path / "out", trial, "RestartSec=1")
    assert {"ActiveState=failed", "ExecMainStatus=65", "NRestarts=0"} <= set(lines)
    assert f"not reached {TARGET}" in lines and "not reached dependent.service" in lines
    assert [line for line in lines if line.startswith("this disk belongs to another board")]


def test_board_without_a_server_waits_past_the_start_timeout(counter: Counter, tmp_path: Path) -> None:  # noqa: F811
    """The timeout is the watchdog: whoever waits shows that he lives, and is left alone."""
    disk = counter.make_board(tmp_path / "board")
    (disk / "etc/mpagent/mpagent.toml").write_text('server = "https://127.0.0.1:1"\n')
    trial = f"""
    wait_for journalctl --quiet --no-pager -o cat -n 1 MP_REASON=NoServer
    sleep 6
    ask; reached {TARGET}
    grep -o '"state": "[a-z]*"' /trial/board/disk/run/mpagent/standing
    """
    lines = boot(disk.parent, tmp_path / "out", trial, "TimeoutStartSec=3")
    assert {"ActiveState=activating", "SubState=start", "NRestarts=0", f"not reached {TARGET}"} <= set(lines)
    assert [line for line in lines if line.startswith("StatusText=") and "trying again in" in line]
    assert lines[-1] in ('"state": "waiting"', '"state": "working"')


def test_run_that_hangs_is_ended_and_started_again(counter: Counter, tmp_path: Path) -> None:  # noqa: F811
    """Stopped before its first word, as by a driver that never answers; nothing else in it feeds the watchdog."""
    board = counter.make_board(tmp_path / "board").parent
    counter.enroll(board / "disk")
    once = "/run/mpagent/once"
    command = f"test -e {once} || {{ touch {once}; kill -STOP $$$$; }}; exec mpagent enroll --wait"
    trial = f"""
    wait_for systemctl is-active --quiet {TARGET}
    ask; reached {TARGET}
    journalctl --no-pager -o cat -u mpagent.service --grep 'start operation timed out'
    """
    service = f"TimeoutStartSec=2\nTimeoutStopSec=2\nRestartSec=1\nExecStart=\nExecStart=/bin/sh -c '{command}'"
    lines = boot(board, tmp_path / "out", trial, service)
    assert {"ActiveState=active", "NRestarts=1", f"reached {TARGET}"} <= set(lines)
    assert [line for line in lines if "timed out. Terminating" in line]


def test_failure_that_heals_reaches_the_target_after_all(counter: Counter, tmp_path: Path) -> None:  # noqa: F811
    """The first start fails with 74, and with it the jobs of target and dependent; a later one brings them up."""
    disk = counter.make_board(tmp_path / "board")
    counter.enroll(disk)
    lock = f"/trial/board/disk/{STATE}/lock"
    (disk / STATE / "lock").unlink()
    (disk / STATE / "lock").mkdir()
    trial = f"""
    wait_for shows ExecMainStatus 74
    ask; reached {TARGET}
    rmdir {lock}
    wait_for systemctl is-active --quiet dependent.service
    ask; reached {TARGET}; reached dependent.service
    """
    lines = boot(disk.parent, tmp_path / "out", trial, "RestartSec=1")
    first, last = lines[: lines.index(f"not reached {TARGET}")], lines[lines.index(f"not reached {TARGET}") :]
    assert "ExecMainStatus=74" in first
    assert {"ActiveState=active", "ExecMainStatus=0", f"reached {TARGET}", "reached dependent.service"} <= set(last)


def test_face_draws_on_its_terminal_as_a_user_who_sees_no_vault(counter: Counter, tmp_path: Path) -> None:  # noqa: F811
    """The other end of a pseudo-terminal is the screen."""
    disk = counter.make_board(tmp_path / "board")
    counter.enroll(disk)
    trial = f"""
    /trial/python/bin/python3 -c '
import os
master, slave = os.openpty()
os.symlink(os.ttyname(slave), "/dev/ttyFACE")
with open("/trial/out/screen", "wb", 0) as file:
    while True:
        file.write(os.read(master, 65536))
' &
    wait_for systemctl is-active --quiet {TARGET}
    wait_for test -e /dev/ttyFACE
    cp /trial/board/disk/run/mpagent/standing /run/mpagent/standing
    sed -i 's#--root /trial/board/disk##' /usr/bin/mpagent
    systemctl start mpagent-face@ttyFACE.service
    wait_for grep -q 'stage done' /trial/out/screen
    systemctl show mpagent-face@ttyFACE.service --property=ActiveState,NRestarts,User
    stat -c '%A' /var/lib/mpagent
    """
    lines = boot(disk.parent, tmp_path / "out", trial)
    assert {"ActiveState=active", "NRestarts=0", "User=mpagent-face", "drwx------"} <= set(lines)
    screen = (tmp_path / "out/screen").read_text()
    assert "#######     ####     ######    ######" in screen and "4 slots unsealed in this boot" in screen


PROBE = """
import os, socket
from mpagent.hal.caam.keyctl import SESSION, KernelKeys
from mpwire.guard import guard

def ask_key():
    keys = KernelKeys()
    keys.drop(keys.add("user", "probe", b"x", SESSION), SESSION)

def ask_cipher():
    with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET) as line:
        line.bind(("aead", "ccm(aes)"))

def ask_raw_line():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()

def ask_file(path, flags):
    os.close(os.open(path, flags))

def say(what, ask, *words):
    try:
        ask(*words)
        print(what, "given", flush=True)
    except OSError as error:
        print(what, os.strerror(error.errno), flush=True)

print("guard", *guard(), flush=True)
say("key", ask_key)
say("cipher", ask_cipher)
say("AF_PACKET", ask_raw_line)
for path in ("/dev/tpmrm0", "/dev/tee0", "/dev/teepriv0"):
    say(path, ask_file, path, os.O_WRONLY)
for path in ("/usr/probe", "/etc/probe"):
    say(path, ask_file, path, os.O_WRONLY | os.O_CREAT)
say("/root", os.listdir, "/root")
say("/proc/1/environ", ask_file, "/proc/1/environ", os.O_RDONLY)
"""


def test_sandbox_gives_what_hardware_needs_and_nothing_beside(counter: Counter, tmp_path: Path) -> None:  # noqa: F811
    """Device nodes are stand-ins for those of a TPM and of OP-TEE: kmsg, and fuse for the one that is refused. Keys,
    ciphers and the limit on locked memory are this machine's: what the unit lets through is what is had outside of it.
    """
    disk = counter.make_board(tmp_path / "board")
    counter.enroll(disk)
    (disk.parent / "probe.py").write_text(PROBE)
    alone = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=20)
    trial = f"""
    wait_for systemctl is-active --quiet {TARGET}
    sed 's#-m mpagent.*#/trial/board/probe.py#' /usr/bin/mpagent >/usr/bin/probe
    chmod 755 /usr/bin/probe
    mknod -m 660 /dev/tpmrm0 c 1 11 && chgrp tss /dev/tpmrm0
    mknod -m 660 /dev/tee0 c 1 11 && chgrp tee /dev/tee0
    mknod -m 660 /dev/teepriv0 c 10 229 && chgrp tee /dev/teepriv0
    systemctl restart mpagent.service
    journalctl --no-pager -o cat -u mpagent.service
    """
    lines = boot(disk.parent, tmp_path / "out", trial, "ExecStartPre=-/usr/bin/probe")
    told = dict(line.split(" ", 1) for line in lines if line.startswith(("guard", "key", "cipher", "AF_PACKET", "/")))
    raised = subprocess.run([*AS_ROOT, "prlimit", "--memlock=unlimited", "true"], stderr=subprocess.DEVNULL)
    assert (told["guard"] == "None None") is (raised.returncode == 0), "LimitMEMLOCK=infinity, where root may give it"
    assert told["guard"].endswith(" None"), "there is no core dump"
    for name in ("key", "cipher"):
        assert f"{name} {told[name]}" in alone.stdout.splitlines()
    assert told["/dev/tpmrm0"] == told["/dev/tee0"] == "given"
    refused = {"AF_PACKET", "/dev/teepriv0", "/usr/probe", "/etc/probe", "/root", "/proc/1/environ"}
    assert {name: told[name] for name in refused if told[name] == "given"} == {}
