"""A finished board whose secrets are asked for: real sockets, real users, a service in a process of its own."""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mpagent.belonging import note_choice
from mpagent.compose import read_device
from mpagent.proof import name_board
from mpagent.record import Record, Stage
from mpagent.slots import VaultSlot
from mpsim.board import BoardPlan, make_board
from mpwire.secret import Secret

MANAGER: Final = Path(__file__).with_name("manager.py")
NOBODY: Final = 65_534
CLOUD: Final = b"\x00\nthe cloud key\r\n\x00of this board\n\n"
DISK: Final = secrets.token_bytes(32)
BIG: Final = secrets.token_bytes(32_768)
VALUES: Final[Mapping[str, tuple[str, bytes]]] = {
    "cloud": ("credential", CLOUD),
    "disk": ("sealed", DISK),
    "big": ("credential", BIG),
    "wifi": ("keyring", b"wifi\x00key\n"),
}
"""Destination and value by slot."""
ALLOWED: Final = """
[[credential]]
unit = "app.service"
id = "cloud-key"
slot = "cloud"

[[credential]]
unit = "app@one.service"
id = "big"
slot = "big"

[[credential]]
unit = "late.service"
id = "late"
slot = "late"

[[credential]]
volume = "data"
slot = "disk"

[[credential]]
key = "mpagent-test:wifi"
type = "user"
slot = "wifi"
"""
ASKED: Final = "unit/app.service/cloud-key"
SHIM: Final = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True); "
    "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); os.execv(sys.argv[2], sys.argv[2:])"
)
"""What systemd does between fork and exec: the socket becomes number 3, and two variables say so (sd_listen_fds(3))."""


def make_disk(folder: Path, tcti: str | None = None, pcrs: str = "") -> Path:
    """A board with this image on its disk; returns the disk. Nothing is in its vault yet."""
    make_board(folder, BoardPlan(closed=True))
    disk = folder / "disk"
    part = '"sim"' if tcti is None else '"tpm"'
    chip = f'sim_chip = "../chip"\n{"" if tcti is None else f"tpm_tcti = {tcti!r}"}\n'
    slots = "".join(
        f'[[slot]]\nname = "{name}"\nkind = "static"\ndestination = "{destination}"\n'
        for name, (destination, _) in {**VALUES, "late": ("credential", b"")}.items()
    )
    (disk / "usr/lib/mpagent/anchors.toml").write_text(
        f'realm = "lab"\nproduct = "camera"\nbuild_time = 1700000000\nroots = ["04{"11" * 64}"]\n'
        'tls_roots = ["-----BEGIN CERTIFICATE-----"]\nallow_open = true\n'
        f'[board]\nattest = {part}\nseal = {part}\nkeys = "sealed"\nsoc = "sim"\n{chip}{pcrs}{slots}{ALLOWED}'
    )
    return disk


def provision(disk: Path, values: Mapping[str, bytes] | None = None) -> int:
    """Fill the vault and finish the record, as an enrollment would; returns the generation."""
    device = read_device(disk)
    given = {name: value for name, (_, value) in VALUES.items()} if values is None else values
    slots = [
        VaultSlot(name, "static", VALUES[name][0] if name in VALUES else "credential", 1, Secret(value))
        for name, value in given.items()
    ]
    with device.hold("test"), device.open_board() as board:
        journal = device.journal(lambda _text: None)
        ueid, before = name_board(board), journal.load().generation
        number = device.vault(board).write(ueid, slots, above=before)
        journal.save(Record(stage=Stage.DONE, ueid=ueid, generation=number, chosen=note_choice(board)))
        device.vault(board).discard_others(number)
    return number


def ask(path: Path, name: str, uid: int = 0) -> bytes:
    """What a peer gets who names himself so. Raises where the service did not take the connection."""
    named = name if name == "-" else f"{secrets.token_hex(8)}/{name}"
    command = [sys.executable, "-I", "-S", str(MANAGER), str(path), named, str(uid)]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


@dataclass
class Running:
    """A service and the socket that systemd would own."""

    process: "subprocess.Popen[bytes]"
    path: Path
    log: Path
    disk: Path

    @property
    def told(self) -> str:
        return self.log.read_text()

    def ask(self, name: str = ASKED, uid: int = 0) -> bytes:
        return ask(self.path, name, uid)

    def wait_until_it_serves(self) -> None:
        """Start-up is over when a question that unseals nothing is answered."""
        assert self.ask("unit/nobody.service/x", uid=NOBODY) == b""


@contextmanager
def serving(disk: Path, folder: Path, idle_s: float = 600.0, mode: int = 0o666) -> Iterator[Running]:
    """The service as systemd starts it, on a socket that anybody may connect to: a mode must not be what protects."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "s"
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        here = os.open(folder, os.O_RDONLY)  # the kernel's limit of 107 bytes is less than pytest's folders
        stack.callback(os.close, here)
        listener.bind(f"/proc/self/fd/{here}/s")
        path.chmod(mode)
        folder.chmod(0o755)
        listener.listen(128)
        log = folder / "log"
        command = [sys.executable, "-c", SHIM, str(listener.fileno()), sys.executable, "-m", "mpagent"]
        command += ["--root", str(disk), "credentials", "serve", "--idle", str(idle_s)]
        with log.open("wb") as stream:
            process = subprocess.Popen(command, stderr=stream, stdout=stream, pass_fds=[listener.fileno()])
        try:
            yield Running(process, path, log, disk)
        finally:
            process.terminate()
            process.wait(30)


def list_state(disk: Path) -> dict[str, bytes]:
    """Every file of the state partition."""
    state = disk / "var/lib/mpagent"
    return {str(one.relative_to(state)): one.read_bytes() for one in sorted(state.rglob("*")) if one.is_file()}
