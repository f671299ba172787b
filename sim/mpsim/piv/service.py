"""A PC/SC service of our own: pcscd with vsmartcard's reader, apart from the machine's own service and readers.

vpcd listens on every address and pcscd has one fixed socket, so both run in a network and a mount namespace of theirs.
The socket's folder stays reachable from outside: `socket` is for PCSCLITE_CSOCK_NAME, which libpcsclite reads once in a
process. Works as root, and as any user where the kernel lets users make namespaces.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from mpsim.piv import vpcd
from mpwire.errors import MpError, Retry

READERS: Final = ("Virtual PCD 00 00", "Virtual PCD 00 01")
"""As PC/SC lists the two slots of vpcd, which keeps slots by number alone: a second reader would take them over."""
START_MAX_S: Final = 10.0
HAND_S: Final = 1.0
"""Between one card and the next. pcscd looks every 0.4 s and takes what is faster for the card that stood there."""
_DRIVER: Final = Path("/usr/lib/pcsc/drivers/serial/libifdvpcd.so")
_POLL_S: Final = 0.01
_AS_USER: Final = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
_ENTER: Final = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
# Both end with us, even when we are killed.
# /run and the drivers are covered: our pcscd must neither meet the machine's socket nor take its readers.
_SCRIPT: Final = """
set -e
ip link set lo up
mount -t tmpfs tmpfs /usr/lib/pcsc/drivers
mount -t tmpfs tmpfs /run
mkdir /run/pcscd
mount --bind "$1" /run/pcscd
exec setpriv --pdeathsig KILL pcscd --foreground --config "$2"
"""
_CARD: Final = "import sys; from mpsim.cli import main; sys.exit(main(sys.argv[1:]))"


class CardServiceBroke(MpError):
    """pcscd or its virtual reader is missing or died."""

    exit_code: ClassVar[int] = 74
    retry: ClassVar[Retry] = Retry.OPERATOR


class CardService:
    """One pcscd with empty readers. Cards go in and out as processes that this object starts and ends."""

    def __init__(self, *, readers: bool = True) -> None:
        self._has_readers = readers
        self._folder = Path(tempfile.mkdtemp(prefix="mpcard-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._cards: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def socket(self) -> Path:
        """pcscd's socket, as this side sees it; the same after every restart of this object."""
        return self._folder / "pcscd" / "pcscd.comm"

    def start(self) -> None:
        """Returns when pcscd answers. Raises CardServiceBroke with the end of its log."""
        self._write_configuration()
        command = ["unshare", *_AS_USER, "--net", "--mount", "sh", "-c", _SCRIPT, "sh"]
        command += [str(self.socket.parent), str(self._folder / "readers")]
        log = self._folder / "pcscd.log"
        with open(log, "ab") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        deadline = time.monotonic() + START_MAX_S
        while not _listens(self.socket):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise CardServiceBroke("pcscd did not start", detail=log.read_text(errors="replace")[-2000:])
            time.sleep(_POLL_S)

    def insert(self, card: Path, reader: str = READERS[0]) -> None:
        """Put this card into a reader; one that left it by an accident is cleared away first.

        pcscd notices within half a second.
        """
        if self._process is None:
            raise CardServiceBroke("pcscd does not run")
        if reader in self._cards:
            self.remove(reader)
            time.sleep(HAND_S)
        port = str(_port_of(reader))
        command = ["nsenter", "--target", str(self._process.pid), *_ENTER, "--net"]
        command += ["setpriv", "--pdeathsig", "KILL", sys.executable, "-c", _CARD]
        command += ["card", "run", str(card), "--port", port]
        self._cards[reader] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def remove(self, reader: str = READERS[0]) -> None:
        """Pull the card, whatever it is doing."""
        card = self._cards.pop(reader)
        card.kill()
        card.wait()

    def kill(self) -> None:
        """End pcscd and its cards at once; the socket is left behind as a crash leaves it."""
        for reader in list(self._cards):
            self.remove(reader)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End everything and remove the folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _write_configuration(self) -> None:
        shutil.rmtree(self.socket.parent, ignore_errors=True)
        (self._folder / "readers").mkdir(exist_ok=True)
        self.socket.parent.mkdir()
        if not self._has_readers:
            return
        driver = self._folder / _DRIVER.name
        try:
            shutil.copy(_DRIVER, driver)
        except OSError as missing:
            raise CardServiceBroke("vsmartcard-vpcd is not installed", detail=str(missing)) from missing
        name = READERS[0].removesuffix(" 00 00")
        port = f"0x{vpcd.PORT:X}"
        text = f'FRIENDLYNAME "{name}"\nDEVICENAME /dev/null:{port}\nLIBPATH {driver}\nCHANNELID {port}\n'
        (self._folder / "readers" / "vpcd").write_text(text)


def _port_of(reader: str) -> int:
    return vpcd.PORT + READERS.index(reader)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
