"""The line to the issuer: HTTPS POST, where what a proxy or a stranger answers is only ever a delay.

`requests` is imported when the first message is asked: `status` and `secret get` never pay for it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from mpagent.errors import NoServer, Pending
from mpwire import limits, registry
from mpwire.errors import MpError, PeerBroke

if TYPE_CHECKING:
    from requests import Response

    from mpagent.transport import Transport

RETRY_AFTER_MAX_S: Final = 3_600
"""A longer wait is not believed: nothing protects this header."""
CHUNK_BYTES: Final = 16_384


class Route(NamedTuple):
    """Where the issuer is and how long to wait for it."""

    server: str
    """https://HOST[:PORT]"""
    tls_roots: tuple[str, ...]
    """PEM. No other authority counts, none of the system's either."""
    now: int
    """Seconds since 1970, UTC: max(image build time, time floor). Certificates that ended before are refused."""
    proxy: str | None = None
    connect_s: float = 10.0
    """One connection attempt, and one TLS handshake. A satellite line needs 2 s."""
    read_s: float = 30.0
    """Silence of a server in the middle of an answer. A group commit on a slow disk needs 1 s."""
    answer_s: float = 60.0
    """One whole answer from the first byte asked, however it drips."""


class HttpsLink:
    """One TLS connection, kept for the whole enrollment."""

    def __init__(self, find_route: Callable[[], Route], clock: Callable[[], float]) -> None:
        """`find_route` is called for the first message: a provisioned board needs no server."""
        self._find_route = find_route
        self._clock = clock
        self._transport: Transport | None = None

    def ask(self, outbox: bytes) -> bytes:
        """See ports.Link."""
        from mpagent import transport  # imports requests

        if self._transport is None:
            self._transport = transport.Transport(self._find_route(), self._clock)
        try:
            with self._transport.post(registry.PATH, outbox) as response:
                return _read_answer(response)
        except MpError:
            raise
        except Exception as error:
            translated = transport.translate(error, self._transport.route)
            self.close()
            if translated is None:
                raise
            raise translated from error

    def close(self) -> None:
        """Give the connection up; the next `ask` makes another."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None


def _read_answer(response: "Response") -> bytes:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    retry_after = response.headers.get("Retry-After", "")
    if response.status_code == 503 and retry_after.isascii() and retry_after.isdigit():
        seconds = min(int(retry_after[:9]), RETRY_AFTER_MAX_S)
        raise Pending(f"the server asks us to come again in {seconds} s", retry_after_s=seconds)
    if kind != registry.CONTENT_TYPE:
        _refuse_stranger(response.status_code, kind)
    return _read_body(response)


def _refuse_stranger(status: int, kind: str) -> NoReturn:
    """An answer that is not ours: nothing in it means anything, so it is a line that is not there yet."""
    shown = f"{status} {kind if kind.isprintable() and len(kind) <= 64 else 'of an unknown type'}".strip()
    if 300 <= status < 400:
        raise NoServer(f"{shown}: the server's address redirects elsewhere, which is not followed; correct `server`")
    if status == 407:
        raise NoServer(f"{shown}: the proxy wants a login, which mpagent does not give; open it for the server")
    if status == 503:
        raise NoServer(f"{shown}: the server, or a proxy before it, is not ready")
    raise NoServer(f"a proxy or another server answered: {shown}; check `server` and `proxy` in mpagent.toml")


def _read_body(response: "Response") -> bytes:
    """The body as sent, never more than the limit in memory."""
    high = limits.MESSAGE_MAX_BYTES
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise PeerBroke("the answer is compressed, which was not asked for")
    declared = response.headers.get("Content-Length", "0")
    if not declared.isascii() or not declared.isdigit() or int(declared[:12]) > high:
        raise PeerBroke(f"the answer says it is longer than {high} bytes")
    body = bytearray()
    while part := response.raw.read1(CHUNK_BYTES, decode_content=False):
        body += part
        if len(body) > high:
            raise PeerBroke(f"the answer is longer than {high} bytes")
    if "Content-Length" in response.headers and len(body) != int(declared):
        raise NoServer("the line broke in the middle of the answer")
    return bytes(body)
