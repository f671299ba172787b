"""A virtual card in a virtual reader: the client side of vsmartcard's vpcd.

Each message is its length in 2 bytes and that many bytes. One byte is a control: 0 power off, 1 power on, 2 reset,
4 ATR wanted; all else is an APDU, answered in the same form.
"""

import socket
from pathlib import Path
from typing import ClassVar, Final

from mpsim.piv.applet import ATR, Removed, SoftCard
from mpwire.errors import MpError, Retry

PORT: Final = 0x8C7B
"""35963: vpcd's own."""


class NoReader(MpError):
    """No vpcd listens there."""

    exit_code: ClassVar[int] = 74
    retry: ClassVar[Retry] = Retry.OPERATOR


_OFF, _ON, _RESET, _ATR_WANTED = 0, 1, 2, 4


def run_card(folder: Path, port: int = PORT, host: str = "127.0.0.1") -> None:
    """Put the card into the reader that listens there; returns when one of them leaves. Raises OSError."""
    card = SoftCard(folder)
    with socket.create_connection((host, port)) as line:
        while (message := _receive(line)) is not None:
            if len(message) == 1 and message[0] in (_OFF, _ON, _RESET):
                card.reset()
                continue
            try:
                said = ATR if message == bytes([_ATR_WANTED]) else card.answer(message)
            except Removed:
                return
            line.sendall(len(said).to_bytes(2, "big") + said)


def _receive(line: socket.socket) -> bytes | None:
    """The next message; None when the reader is gone."""
    size = _receive_exactly(line, 2)
    return None if size is None else _receive_exactly(line, int.from_bytes(size, "big"))


def _receive_exactly(line: socket.socket, size: int) -> bytes | None:
    received = b""
    while len(received) < size:
        # vpcd sends length and body apart: without this the kernel delays each acknowledgement by 40 ms.
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        part = line.recv(size - len(received))
        if not part:
            return None
        received += part
    return received
