"""A factory-flashed board in QEMU: our package on its root, a TPM with its maker's certificate, a state partition, a
data volume, and a network that leads to one server and nowhere else.
"""

import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

from mpsim.ek_authority import EkAuthority
from mpsim.swtpm import SoftTpm
from tests.qemu.flash import write_files
from tests.qemu.guest import GuestBroke, Machine
from tests.qemu.installed import find_installed
from tests.qemu.office import ADDRESS, PORT

STATE_BYTES: Final = 64 << 20
VOLUME_BYTES: Final = 64 << 20
"""The header of LUKS2 takes 16 MiB."""
_MKFS: Final = "/usr/sbin/mke2fs"
_UNITS: Final = "/etc/systemd/system"
_NETWORK: Final = """\
[Unit]
Description=Network of the bench
[Service]
Type=oneshot
ExecStart=/bin/sh -ec 'cd /sys/class/net; set -- e*; ip address add 10.0.2.15/24 dev $1; ip link set $1 up'
[Install]
WantedBy=multi-user.target
"""
_START_MAX_S: Final = 10.0
_ENABLED: Final = f"{_UNITS}/multi-user.target.wants"


class Partition(StrEnum):
    """What the state partition lies on."""

    FILE = "file"
    """A disk that keeps whatever it was given."""
    VOLATILE = "volatile"
    """A disk with a cache of its own, which a power cut empties first."""
    LYING = "lying"
    """The same, and it says that it flushed and did not. A control."""


def flash(disk: Path, anchors: str, files: Mapping[str, str] | None = None) -> Path:
    """A provisioning image: the installed disk with the product's anchors. Serves any number of boards."""
    subprocess.run(["cp", "--sparse=always", str(find_installed()), str(disk)], check=True)
    write_site(disk, anchors, files or {})
    return disk


def write_site(disk: Path, anchors: str, files: Mapping[str, str]) -> None:
    """What an image build puts into a root for one OEM: anchors, the server's address, a network."""
    written: dict[str, str] = {
        "/usr/lib/mpagent/anchors.toml": anchors,
        "/etc/mpagent/mpagent.toml": f'server = "https://{ADDRESS}:{PORT}"\n',
        f"{_UNITS}/bench-network.service": _NETWORK,
    }
    write_files(disk, {**written, **files}, {f"{_ENABLED}/bench-network.service": "../bench-network.service"})


class Board(Machine):
    """What survives a power cut: TPM, state partition, data volume. The root is as flashed at every start."""

    def __init__(self, folder: Path, image: Path, maker: EkAuthority, partition: Partition = Partition.FILE) -> None:
        super().__init__(folder)
        self.image, self.partition = image, partition
        self.state, self.volume = folder / "state.raw", folder / "volume.raw"
        self._port = folder / "port"
        self._calls = folder / "calls"
        self._root = folder / "root.qcow2"
        self._disk_server: subprocess.Popen[bytes] | None = None
        self.make_state()
        _make_disk(self.volume, VOLUME_BYTES)
        tpm = SoftTpm(folder / "tpm")
        tpm.start()
        tpm.install_ek_certificate(maker)
        tpm.stop()
        self.plug_line(0)

    def make_state(self) -> None:
        """The disk with the state partition: nothing but that."""
        format_state(self.state)

    def plug_line(self, port: int, breaks_after: int | None = None) -> None:
        """Where the line leads, from the next connection on: a port of this machine; 0: nowhere.

        `breaks_after`: each connection is torn when so many bytes came to the board."""
        aside = self._port.with_suffix(".new")
        aside.write_text(f"{port}\n")
        aside.rename(self._port)
        line = self.folder / "line.new"
        end = "" if breaks_after is None else f",readbytes={breaks_after}"
        line.write_text(f'#!/bin/sh\necho >>{self._calls}\nexec socat - "TCP:127.0.0.1:$(cat {self._port}){end}"\n')
        line.chmod(0o755)
        line.rename(self.folder / "line")

    def calls(self) -> int:
        """Connections that the board ever made."""
        return self._calls.stat().st_size if self._calls.exists() else 0

    def root_drive(self) -> str:
        """An overlay of its own for each boot; it stays until the next, for a test to look into."""
        self._root.unlink(missing_ok=True)
        backing = ["-F", "raw", "-b", str(self.image)]
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(self._root)], check=True)
        return f"file={self._root},format=qcow2,cache=unsafe"

    def connect(self, sockets: Path) -> Sequence[str]:
        """Partition, volume, and a network in which each connection to the server's address is one of ours."""
        state = f"file={self.state}"
        if self.partition is not Partition.FILE:
            state = f"file=nbd+unix:///?socket={self._start_disk_server(sockets / 'disk')}"
        line = f"guestfwd=tcp:{ADDRESS}:{PORT}-cmd:{self.folder / 'line'}"
        drives = ((state, "d0"), (f"file={self.volume}", "d1"))
        words = [f"-drive={file},format=raw,if=none,id={name},cache=writeback" for file, name in drives]
        words += [f"-device=virtio-blk-pci,drive={name}" for _, name in drives]
        words += [f"-netdev=user,id=n0,restrict=on,{line}", "-device=virtio-net-pci,netdev=n0,romfile="]
        return [part for word in words for part in word.split("=", 1)]

    def disconnect(self) -> None:
        """The disk loses what it was not told to keep, before QEMU could send another flush."""
        if self._disk_server is not None:
            self._disk_server.kill()
            self._disk_server.wait()
            self._disk_server = None

    def kept(self) -> dict[str, bytes]:
        """All that this board's disks hold, what the last boot wrote over the root included."""
        return {disk.name: disk.read_bytes() for disk in (self.state, self.volume, self._root) if disk.exists()}

    def _start_disk_server(self, socket: Path) -> Path:
        command = ["nbdkit", "--foreground", "--unix", str(socket), "--filter=cache", "file", str(self.state)]
        command += ["cache=unsafe"] if self.partition is Partition.LYING else []
        with open(self.folder / "nbdkit.log", "ab") as output:
            self._disk_server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        deadline = time.monotonic() + _START_MAX_S
        while not socket.exists():
            if self._disk_server.poll() is not None or time.monotonic() > deadline:
                raise GuestBroke(f"nbdkit did not start: {(self.folder / 'nbdkit.log').read_text()}")
            time.sleep(0.02)
        return socket


def format_state(path: Path) -> None:
    """An empty state partition, found by its label."""
    _make_disk(path, STATE_BYTES)
    subprocess.run([_MKFS, "-q", "-t", "ext4", "-L", "mpagent-state", "-F", str(path)], check=True)


def _make_disk(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size)


def scrap(board: Board) -> None:
    """Remove a board that is done with; its disks are the most of it."""
    shutil.rmtree(board.folder)
