"""The pipe between the finisher, which has disks and no network, and the fetcher, which has the network and no disk.

One connection is one byte range. The finisher names it, and the path that a verified manifest told; the fetcher answers
with one byte, 0 and the bytes of the range, or an exit code and a sentence. Nothing that comes this way is believed:
its length is bounded here and its hash is taken from the medium.
"""

import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from mpagent.errors import NoServer
from mpwire.errors import Malformed, PeerBroke
from mpwire.shape import Field, Integer, MapOf, Text

SOCKET: Final = Path("run/mpagent-fetch/socket")
"""Below the root; root's alone, served by the service manager (mpagent-fetch.socket)."""
REQUEST_MAX_BYTES: Final = 512
TEXT_MAX_BYTES: Final = 1_024
SILENCE_S: Final = 120.0
"""The fetcher itself gives a silent server up after 30 s, and says so."""
_PATH: Final = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
"""Below the server's address and nowhere else: no query, no dot first, no empty part."""
_FINE: Final = b"\x00"


class Range(NamedTuple):
    """Bytes `start` to `end` of a file of `size` bytes, the end not included."""

    path: str
    start: int
    end: int
    size: int


RANGE = MapOf(
    "range",
    Range,
    Field(1, "path", Text(256), "path below the server's address"),
    Field(2, "start", Integer(), "first byte"),
    Field(3, "end", Integer(), "first byte no longer wanted"),
    Field(4, "size", Integer(), "of the whole file"),
    constants={0: 1},
)


def check_range(wanted: Range) -> None:
    """Raises Malformed for a path that could lead elsewhere, or for no range."""
    if not _PATH.fullmatch(wanted.path):
        raise Malformed("manifest: path is not one below the server's address")
    if not wanted.start < wanted.end <= wanted.size:
        raise Malformed("manifest: no such range")


def fetch(socket_path: Path, wanted: Range, chunk_bytes: int) -> Iterator[bytes]:
    """The range in pieces of `chunk_bytes`, the last one shorter. Raises NoServer where the line ends before it."""
    check_range(wanted)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(SILENCE_S)
            line.connect(str(socket_path))
            line.sendall(RANGE.encode(wanted))
            line.shutdown(socket.SHUT_WR)
            _hear_status(line)
            left = wanted.end - wanted.start
            while left:
                piece = _take(line, min(left, chunk_bytes))
                left -= len(piece)
                yield piece
                if len(piece) < chunk_bytes and left:
                    raise NoServer(f"the download broke {left} bytes before the end of its range")
    except OSError as error:
        why = f"{error.strerror or error} (the fetcher's own log: journalctl -u 'mpagent-fetch@*')"
        raise NoServer(f"nobody fetches the image by {socket_path}: {why}") from error


def _hear_status(line: socket.socket) -> None:
    status = line.recv(1)
    if status == _FINE:
        return
    said = _take(line, TEXT_MAX_BYTES).decode("utf-8", "replace")
    text = "".join(one if one.isprintable() else "?" for one in said)
    raise NoServer(text or "the fetcher ended without a word")


def _take(line: socket.socket, count: int) -> bytes:
    """`count` bytes, or fewer where the other side ends."""
    taken = bytearray(count)
    view, place = memoryview(taken), 0
    while place < count and (got := line.recv_into(view[place:])):
        place += got
    view.release()
    return bytes(taken[:place])


Download = Callable[[Range], Iterator[bytes]]
"""The network's half; the first piece comes once the server answered as it should."""


def serve(reading: int, writing: int, download: Download) -> None:
    """Answer the one request of this connection. Raises what ended it, after saying so to the finisher."""
    raw = b""
    while len(raw) <= REQUEST_MAX_BYTES and (part := os.read(reading, REQUEST_MAX_BYTES + 1)):
        raw += part
    wanted = RANGE.decode(raw, REQUEST_MAX_BYTES)
    check_range(wanted)
    began = False
    try:
        for piece in download(wanted):
            if not began:
                _put(writing, _FINE)
                began = True
            _put(writing, piece)
    except (NoServer, PeerBroke) as error:
        if not began:
            _put(writing, bytes([error.exit_code]) + str(error).encode()[:TEXT_MAX_BYTES])
        raise


def _put(descriptor: int, content: bytes) -> None:
    """Raises NoServer where the finisher is gone: nobody waits for the rest."""
    view = memoryview(content)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise NoServer("the finisher has ended this download") from error
