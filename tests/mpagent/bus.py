"""A probe on the bus: it stands between the TSS and a TPM, hears every byte, and changes none."""

import shutil
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from mpsim.swtpm import SoftTpm

_HEAD_BYTES = 10
"""Tag, size and code of a command or an answer (TPM 2.0 Library, Part 1, section 18)."""
_CHUNK_BYTES = 65_536


@dataclass
class Probe:
    """What went over the data line."""

    tcti: str
    asked: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)

    def heard(self, secret: bytes) -> bool:
        """Whether these bytes went by, whole, in either direction."""
        return secret in self.asked or secret in self.answered

    def commands(self) -> list[tuple[int, bytes]]:
        """(command code, what follows it) in the order they were sent."""
        found, at = [], 0
        while at < len(self.asked):
            _, size, code = struct.unpack_from(">HII", self.asked, at)
            found.append((code, bytes(self.asked[at + _HEAD_BYTES : at + size])))
            at += size
        return found


@contextmanager
def listen_to(tpm: SoftTpm) -> Iterator[Probe]:
    """A second address of this TPM, under which everything is heard."""
    folder = Path(tempfile.mkdtemp(prefix="mpbus-"))
    path, real = folder / "s", tpm.tcti.removeprefix("swtpm:path=")
    probe = Probe(f"swtpm:path={path}")
    listeners = []
    for suffix, asked, answered in (("", probe.asked, probe.answered), (".ctrl", bytearray(), bytearray())):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"{path}{suffix}")
        listener.listen()
        listeners.append(listener)
        Thread(target=_accept, args=(listener, f"{real}{suffix}", asked, answered), daemon=True).start()
    try:
        yield probe
    finally:
        for listener in listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        shutil.rmtree(folder)


def _accept(listener: socket.socket, real: str, asked: bytearray, answered: bytearray) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # the probe was taken off
        upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        upstream.connect(real)
        for source, target, heard in ((client, upstream, asked), (upstream, client, answered)):
            Thread(target=_pump, args=(source, target, heard), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket, heard: bytearray) -> None:
    """Until either end hangs up; what arrived is kept before it is passed on."""
    try:
        while chunk := source.recv(_CHUNK_BYTES):
            heard += chunk
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
