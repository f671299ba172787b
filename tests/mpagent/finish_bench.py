"""A board with a real disk: a loop device with partitions, a mounted state partition, real cryptsetup, a real mpserver
that serves the production image over TLS, and systemd's own socket activation between finisher and fetcher.

Doubles: the chip (mpsim), `systemctl`, and where a test asks for one, `rauc`.
"""

import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mpsim.board import BoardPlan, make_board
from tests.line import PRODUCT, fill_product
from tests.power.processes import Mpserver

from .conftest import AS_ROOT

MIB: Final = 1_048_576
STATE_MIB, DATA_MIB, ROOT_MIB = 8, 20, 16
IMAGE: Final = b"".join(
    (random.Random(1).randbytes(3 * MIB), bytes(4 * MIB), random.Random(2).randbytes(5 * MIB), b"tail" * 3_001)
)
"""Larger than a MiB of head, with a hole in it, and no multiple of any sector."""
RUN_MAX_S: Final = 120


def do(*command: str | Path) -> str:
    """A tool of the system, as root."""
    done = subprocess.run([*AS_ROOT, *map(str, command)], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@contextmanager
def attach(folder: Path) -> Iterator[Path]:
    """A disk of three partitions: p1 state, p2 data, p3 root."""
    file = folder / "medium"
    with file.open("wb") as medium:
        medium.truncate((STATE_MIB + DATA_MIB + ROOT_MIB + 2) * MIB)
    loop = Path(do("losetup", "--find", "--show", file))
    drop_partitions(loop)  # of a test that was killed
    try:
        start = 1
        for number, size in enumerate((STATE_MIB, DATA_MIB, ROOT_MIB), 1):
            do("addpart", loop, str(number), str(start * MIB // 512), str(size * MIB // 512))
            start += size
        yield loop
    finally:
        detach(loop)


def detach(loop: Path) -> None:
    """Where a mount namespace that somebody made holds a copy of our mount, the kernel does it later."""
    drop_partitions(loop)
    do("losetup", "--detach", loop)


def drop_partitions(loop: Path) -> None:
    """Those that are there and free."""
    for number in (1, 2, 3):
        subprocess.run([*AS_ROOT, "delpart", loop, str(number)], capture_output=True, check=False)


@dataclass
class Bench:
    """One board; `folder` is short, for the path of a socket has 107 bytes."""

    server: Mpserver
    folder: Path
    loop: Path
    stack: ExitStack
    said: list[str] = field(default_factory=list)
    boots: int = 0
    fetcher: Sequence[str] = ()
    """Another program than ours, where a test wants one."""
    _fetching: "subprocess.Popen[bytes] | None" = None

    @property
    def disk(self) -> Path:
        return self.folder / "b" / "disk"

    @property
    def state(self) -> Path:
        return self.disk / "var/lib/mpagent"

    @property
    def medium(self) -> Path:
        return self.folder / "medium"

    def partition(self, number: int) -> Path:
        """1 state, 2 data, 3 root."""
        return Path(f"{self.loop}p{number}")

    def read(self, number: int, size: int) -> bytes:
        """What the medium has."""
        do("sync")
        offset = {1: 1, 2: 1 + STATE_MIB, 3: 1 + STATE_MIB + DATA_MIB}[number] * MIB
        with self.medium.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def set_finish(self, text: str) -> None:
        """The [finish] table of the signed image; {state}, {data} and {root} become the partitions."""
        names = {"state": self.partition(1), "data": self.partition(2), "root": self.partition(3), "loop": self.loop}
        anchors = self.disk / "usr/lib/mpagent/anchors.toml"
        anchors.write_text(f"{self.server.anchors}\n[finish]\n{text.format(**names)}")

    def boot(self) -> None:
        """The kernel draws another boot id."""
        self.boots += 1
        path = self.disk / "proc/sys/kernel/random/boot_id"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{secrets.token_hex(4)}-0000-4000-8000-{self.boots:012d}\n")

    def mpagent(self, *words: str, prefix: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
        """One process, from start to end."""
        command = [*prefix, *AS_ROOT, sys.executable, "-m", "mpagent", "--root", str(self.disk), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_MAX_S, check=False)
        self.said.append(done.stderr + done.stdout)
        return done

    def enroll(self) -> None:
        """PASS, and with it the order of this boot."""
        done = self.mpagent("enroll", "--once")
        assert done.returncode == 0, done.stderr

    def finish(self, *, prefix: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
        """mpagent-finish.service."""
        return self.mpagent("finish", "run", prefix=prefix)

    def secret(self, name: str) -> bytes:
        """One slot."""
        command = [sys.executable, "-m", "mpagent", "--root", str(self.disk), "secret", "get", name]
        return subprocess.run([*AS_ROOT, *command], check=True, capture_output=True).stdout

    def opens(self, key: bytes, number: int = 2) -> bool:
        """Whether cryptsetup takes this key."""
        command = ["cryptsetup", "open", "--test-passphrase", "--key-file", "-", str(self.partition(number))]
        return subprocess.run([*AS_ROOT, *command], input=key, capture_output=True, check=False).returncode == 0

    def put_program(self, name: str, text: str) -> None:
        """A program of the image, as a shell script."""
        path = self.disk / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def systemctl_calls(self) -> list[str]:
        """What systemctl was asked."""
        log = self.folder / "systemctl.log"
        return log.read_text().splitlines() if log.exists() else []

    def serve_fetches(self) -> None:
        """mpagent-fetch.socket with Accept=yes, by systemd's own tool."""
        path = self.disk / "run/mpagent-fetch/socket"
        path.parent.mkdir(parents=True, exist_ok=True)
        words = list(self.fetcher) or [sys.executable, "-m", "mpagent", "--root", str(self.disk), "finish", "fetch"]
        path.unlink(missing_ok=True)
        with (self.folder / "fetch.log").open("ab") as log:
            self._fetching = subprocess.Popen(
                ["systemd-socket-activate", "--accept", "--inetd", f"--listen={path}", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 10
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def stop_fetches(self) -> None:
        """Nobody listens any more."""
        if self._fetching is not None:
            self._fetching.terminate()
            self._fetching.wait()
            self._fetching = None


@contextmanager
def open_bench(server: Mpserver) -> Iterator[Bench]:
    """A board of `server`'s product that has never enrolled."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="mpf"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        bench = Bench(server, folder, stack.enter_context(attach(folder)), stack)
        make_board(folder / "b", BoardPlan(closed=True))
        (bench.disk / "etc/mpagent/mpagent.toml").write_text(f'server = "{server.address}"\n')
        for name, target in {"sys": "/sys", "dev": "/dev", "proc/self": "/proc/self"}.items():
            (bench.disk / name).parent.mkdir(exist_ok=True)
            (bench.disk / name).symlink_to(target)
        (bench.disk / "usr/sbin").mkdir(parents=True)
        (bench.disk / "usr/sbin/cryptsetup").symlink_to(
            shutil.which("cryptsetup", path="/usr/sbin:/sbin") or "/missing"
        )
        bench.put_program("usr/bin/systemctl", f'echo "$@" >> {folder}/systemctl.log')
        do("mkfs.ext4", "-q", bench.partition(1))
        do("mount", bench.partition(1), bench.state)
        stack.callback(do, "umount", bench.state)
        bench.boot()
        stack.callback(lambda: bench.stop_fetches())
        bench.serve_fetches()
        yield bench


def make_server(folder: Path, image: bytes = IMAGE) -> Mpserver:
    """An OEM whose product names the image as the next one."""
    server = Mpserver(folder)
    file, product = folder / "production.img", folder / "next.toml"
    file.write_bytes(image)
    table = server.command("product", "image", str(file), "--version", "2.0.0")
    product.write_text(fill_product(PRODUCT) + "\n" + table)
    server.command("product", "add", str(product))
    server.start()
    return server
