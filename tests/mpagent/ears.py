"""Sockets that hear what a run says of itself, as systemd's do."""

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Ear:
    """A datagram socket; what it heard is kept by the kernel until it is read."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[bytes]:
        """Every datagram since the last call."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(1 << 16))
            except BlockingIOError:
                return found

    def words(self) -> list[list[str]]:
        """The same as lines of assignments: sd_notify(3)."""
        return [one.decode().split("\n") for one in self.heard()]

    def close(self) -> None:
        self._socket.close()


@contextmanager
def listening(address: str) -> Iterator[Ear]:
    """An ear for this block."""
    ear = Ear(address)
    try:
        yield ear
    finally:
        ear.close()


def make_addresses(folder: Path) -> list[str]:
    """One of each kind: a path, and an abstract name."""
    return [str(folder / "notify"), f"@mpagent-test-{secrets.token_hex(8)}"]


def read_entry(raw: bytes) -> list[tuple[str, str]]:
    """Fields of one entry of the journal's native protocol, as its specification reads them."""
    fields = []
    while raw:
        line, _, raw = raw.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
        else:
            name, size = line, int.from_bytes(raw[:8], "little")
            value, raw = raw[8 : 8 + size], raw[8 + size + 1 :]
        fields.append((name.decode(), value.decode()))
    return fields
