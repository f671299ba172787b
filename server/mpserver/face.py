"""The HTTP face, RSGI under granian: one path, bounded bodies, a deadline. Knows nothing of what is said."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol

from mpserver.images import Piece, find_piece
from mpserver.service import Reply
from mpwire import limits, registry

BODY_DEADLINE_S: Final = 10.0
"""From the end of the header to the end of the body; a device sends at most 64 KiB."""
BODY_MAX_BYTES: Final = limits.PROOF_MAX_BYTES
"""The largest message a device says."""
BODIES_MAX_BYTES: Final = 64 * 1024 * 1024
"""Bodies held at once, bytes: a thousand of the largest. What comes beyond hears 503."""
SMALL_BODY_BYTES: Final = 8_192
"""A body that says it is no longer is read in one piece, which costs a third; 20,000 of them are 160 MiB."""
HEALTH: Final = "/healthz"
_START_OF_MESSAGE: Final = {
    bytes((0, registry.HELLO)): limits.HELLO_MAX_BYTES,
    bytes((0, registry.PROOF)): limits.PROOF_MAX_BYTES,
}
"""A plain message is a map whose first key is 0, the message's number; a Receipt is an envelope."""

Handle = Callable[[bytes], Awaitable[Reply]]
_CLOSE: Final = ("connection", "close")
_CBOR: Final = ("content-type", registry.CONTENT_TYPE)
_IMAGE: Final = ("content-type", "application/octet-stream")
_TEXT: Final = ("content-type", "text/plain; charset=utf-8")


class Protocol1(Protocol):
    """What is used of granian's RSGIHTTPProtocol."""

    def __call__(self) -> Awaitable[bytes]:
        """The whole body."""

    def __aiter__(self) -> Any:
        """The body, as it comes."""

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """The whole answer."""

    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None:
        """An answer without a body."""

    def response_file_range(self, status: int, headers: list[tuple[str, str]], file: str, start: int, end: int) -> None:
        """Part of a file, read as the line takes it; the end is not included."""


class TooLarge(Exception):
    """Ends reading a body; never leaves this module."""


class TooBusy(Exception):
    """As TooLarge: the budget of all bodies is used up."""


class Face:
    """The RSGI application."""

    def __init__(self, handle: Handle, images: Path) -> None:
        self._handle, self._images = handle, images
        self._held_bytes = 0
        self.at_work = 0

    async def __rsgi__(self, scope: Any, proto: Protocol1) -> None:
        """One request."""
        if scope.proto != "http":
            proto.close(404)  # type: ignore[attr-defined]  # a websocket: granian's other protocol class
            return
        status = _refuse_early(scope)
        if status:
            proto.response_bytes(status, [_TEXT, _CLOSE], b"")
        elif scope.path == HEALTH:
            proto.response_bytes(200, [_TEXT], b"ok\n")
        elif scope.path != registry.PATH:
            self._give_image(proto, scope)
        else:
            self.at_work += 1
            try:
                await self._speak(proto, _is_small(scope))
            finally:
                self.at_work -= 1

    def _give_image(self, proto: Protocol1, scope: Any) -> None:
        """Anybody who reaches the port may have it: an image holds no secret of a board."""
        piece = find_piece(self._images, scope.path, scope.headers.get("range"))
        if not isinstance(piece, Piece):
            return proto.response_bytes(piece, [_TEXT, _CLOSE], b"")
        headers = [_IMAGE, ("accept-ranges", "bytes"), ("content-length", str(piece.end - piece.start))]
        if piece.is_range:
            headers.append(("content-range", f"bytes {piece.start}-{piece.end - 1}/{piece.size}"))
        status = 206 if piece.is_range else 200
        if scope.method == "HEAD":
            return proto.response_empty(status, headers)
        proto.response_file_range(status, headers, str(piece.file), piece.start, piece.end)

    async def _speak(self, proto: Protocol1, is_small: bool) -> None:
        taken: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_DEADLINE_S):
                body = await proto() if is_small else await self._take(proto, taken)
        except TimeoutError:
            return _end(proto, 408)
        except TooLarge:
            return _end(proto, 413)
        except TooBusy:
            return proto.response_bytes(503, [_TEXT, _CLOSE, ("retry-after", "2")], b"")
        finally:
            self._held_bytes -= sum(map(len, taken))
        reply = await self._handle(body)
        headers = [_CBOR]
        if reply.retry_after_s:
            headers.append(("retry-after", str(reply.retry_after_s)))
        proto.response_bytes(reply.status, headers, reply.body)

    async def _take(self, proto: Protocol1, taken: list[bytes]) -> bytes:
        """The body, its pieces in `taken`: what is in it counts as held."""
        size, limit = 0, BODY_MAX_BYTES
        async for piece in proto:
            if not piece:
                continue
            size += len(piece)
            taken.append(bytes(piece))
            self._held_bytes += len(piece)
            limit = _limit_of(taken[0])
            if size > limit:
                raise TooLarge
            if self._held_bytes > BODIES_MAX_BYTES:
                raise TooBusy
        return b"".join(taken)


def _refuse_early(scope: Any) -> int:
    """The status that ends a request before its body is read, or 0."""
    if scope.path == HEALTH or scope.path.startswith(registry.IMAGE_PATH):
        return 0 if scope.method in ("GET", "HEAD") else 405
    if scope.path != registry.PATH:
        return 404
    if scope.method != "POST":
        return 405
    if scope.headers.get("content-type") != registry.CONTENT_TYPE:
        return 415
    length = scope.headers.get("content-length")
    if length is not None and (not length.isdecimal() or int(length) > BODY_MAX_BYTES):
        return 413
    return 0


def _is_small(scope: Any) -> bool:
    length = scope.headers.get("content-length")
    return length is not None and int(length) <= SMALL_BODY_BYTES


def _limit_of(start: bytes) -> int:
    return _START_OF_MESSAGE.get(start[1:3], limits.RECEIPT_MAX_BYTES)


def _end(proto: Protocol1, status: int) -> None:
    proto.response_bytes(status, [_TEXT, _CLOSE], b"")
