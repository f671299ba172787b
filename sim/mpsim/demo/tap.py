"""A TLS-terminating proxy as a manufacturer might put on its line: it reads every message, and may change one.

It holds a certificate under the OEM's root, which no manufacturer has; the design promises that even so it sees
ciphertext, and that what it changes is refused (docs/wire.md, section 1).
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, ClassVar, Final, Self
from urllib.parse import urlsplit

from mpwire import limits, registry
from mpwire.errors import MpError, Retry

ANSWER_MAX_S: Final = 20.0
HOST: Final = "127.0.0.1"


class LineBroke(MpError):
    """The OEM's server is not there, or fell silent."""

    exit_code: ClassVar[int] = 69
    retry: ClassVar[Retry] = Retry.LATER


@dataclass(frozen=True, slots=True)
class Oem:
    """Where the real server is, and by what it is known."""

    address: str
    tls_root: str
    """PEM."""

    def ask(self, message: bytes) -> tuple[int, bytes]:
        """Say one message over a fresh connection: status and answer. Raises LineBroke."""
        place = urlsplit(self.address)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.tls_root)
        line = HTTPSConnection(str(place.hostname), place.port, timeout=ANSWER_MAX_S, context=context)
        try:
            line.request("POST", registry.PATH, message, {"Content-Type": registry.CONTENT_TYPE})
            answer = line.getresponse()
            return answer.status, answer.read(limits.MESSAGE_MAX_BYTES + 1)
        except (OSError, HTTPException) as error:
            raise LineBroke(f"{self.address} does not answer", detail=repr(error)) from error
        finally:
            line.close()


@dataclass(frozen=True, slots=True)
class Identity:
    """A TLS certificate and its key, in PEM files."""

    certificate: Path
    key: Path


class Tap:
    """Listens on a free loopback port for as long as the block lasts. `heard` and `said` are in order."""

    def __init__(self, oem: Oem, identity: Identity, change: Callable[[bytes], bytes] = lambda answer: answer) -> None:
        self.heard: list[bytes] = []
        self.said: list[bytes] = []
        self._oem, self._change = oem, change
        self._server = _Server((HOST, 0), _make_handler(self._answer))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity.certificate, identity.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def address(self) -> str:
        """For a board's mpagent.toml."""
        return f"https://{HOST}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, message: bytes) -> tuple[int, bytes]:
        self.heard.append(message)
        status, answer = self._oem.ask(message)
        self.said.append(answer)
        return status, self._change(answer)


class _Server(HTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A line that breaks on one side breaks on the other; the board says so in its own log."""


def _make_handler(answer: Callable[[bytes], tuple[int, bytes]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """HTTP/1.1; one board at a time."""

        protocol_version = "HTTP/1.1"
        timeout = ANSWER_MAX_S

        def do_POST(self) -> None:
            status, body = answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Type", registry.CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """The boards and the server keep their own logs."""

    return Handler
