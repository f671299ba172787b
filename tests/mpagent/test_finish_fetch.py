"""The way of an image: what the fetcher asks the server, what it takes for an answer, and what it is asked for."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mpagent.errors import NoServer
from mpagent.finish.download import make_download
from mpagent.finish.fetch import RANGE, REQUEST_MAX_BYTES, Range, check_range, fetch, serve
from mpagent.link import Route
from mpwire.errors import Malformed, MpError, Unauthentic

from .conftest import BUILD_TIME, Authority, Peer

MakePeer = Callable[..., Peer]
IMAGE = bytes(range(256)) * 8
WANTED = Range("/mpagent/1/image/abc", 100, 300, len(IMAGE))
PATHS = ("", "/", "//other/x", "/../x", "/a/../b", "/.git", "/a?b", "/a#b", "/a%2e", "/a b", "a/b", "@other/x", "/a/")


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


RIGHT = answer("206 Partial Content", f"Content-Range: bytes 100-299/{len(IMAGE)}", body=IMAGE[100:300])


class Server:
    """TLS that answers any GET with fixed bytes, then closes."""

    def __init__(self, authority: Authority, said: bytes) -> None:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.issue())
        self.listener, self.heads = socket.create_server(("127.0.0.1", 0)), list[bytes]()
        self.address = f"https://127.0.0.1:{self.listener.getsockname()[1]}"

        def run() -> None:
            try:
                raw, _ = self.listener.accept()
                with context.wrap_socket(raw, server_side=True) as line:
                    self.heads.append(line.recv(65_536))
                    line.sendall(said)
            except OSError:
                return

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.listener.close()
        self.thread.join(5)


def download(server: Server, authority: Authority, wanted: Range = WANTED) -> bytes:
    route = Route(server.address, (authority.pem,), BUILD_TIME, connect_s=3.0, read_s=1.0, answer_s=3.0)
    try:
        return b"".join(make_download(route, time.monotonic)(wanted))
    finally:
        server.close()


def test_a_range_is_asked_for_and_comes_back(authority: Authority) -> None:
    server = Server(authority, RIGHT)
    assert download(server, authority) == IMAGE[100:300]
    head = server.heads[0].lower()
    assert head.startswith(b"get /mpagent/1/image/abc http/1.1") and b"range: bytes=100-299" in head
    assert b"accept-encoding: identity" in head and b"cookie" not in head


def test_a_server_without_ranges_gives_the_whole_file(authority: Authority) -> None:
    whole = WANTED._replace(start=0, end=len(IMAGE))
    assert download(Server(authority, answer("200 OK", body=IMAGE)), authority, whole) == IMAGE


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (answer("206 Partial", "Content-Range: bytes 0-199/2048", body=IMAGE[:200]), "another range"),
        (answer("206 Partial", "Content-Range: bytes 100-299/4096", body=IMAGE[:200]), "another range"),
        (answer("206 Partial", body=IMAGE[:200]), "another range"),
        (answer("200 OK", body=IMAGE), "answers 200"),
        (answer("404 Not Found"), "has no image at /mpagent/1/image/abc"),
        (answer("302 Found", "Location: https://elsewhere/"), "answers 302"),
        (answer("206 Partial", "Content-Encoding: gzip", "Content-Range: bytes 100-299/2048"), "compresses"),
        (RIGHT[:-50], "before"),
        (b"", "broke|closed"),
        (b"SSH-2.0-x\r\n", "broke|closed"),
    ],
)
def test_an_answer_that_is_not_the_range_asked_is_no_image(authority: Authority, said: bytes, words: str) -> None:
    """T-552 Proxies, other servers, redirects, and a line that breaks in the middle: try again later."""
    with pytest.raises(NoServer, match=words):
        download(Server(authority, said), authority)


def test_a_server_under_other_roots_gives_no_byte(authority: Authority, stranger: Authority) -> None:
    """T-551 Interception."""
    server = Server(stranger, RIGHT)
    with pytest.raises(Unauthentic):
        download(server, authority)
    assert server.heads == []


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_leads_elsewhere_is_refused_on_both_sides(path: str, tmp_path: Path) -> None:
    """T-551 A manifest, or a finisher, that names a query, another host or a folder above."""
    wanted = Range(path, 0, 1, 1)
    with pytest.raises(Malformed):
        check_range(wanted)
    with pytest.raises(Malformed):
        list(fetch(tmp_path / "nobody", wanted, 1))
    if path:
        with pytest.raises(Malformed):
            converse(RANGE.encode(wanted), lambda _wanted: iter(()))


@pytest.mark.parametrize(("start", "end", "size"), [(1, 1, 2), (2, 1, 2), (0, 3, 2)])
def test_no_range_is_refused(start: int, end: int, size: int) -> None:
    with pytest.raises(Malformed):
        check_range(Range("/a", start, end, size))


def converse(request: bytes, source: Callable[[Range], Iterator[bytes]]) -> bytes:
    """What the fetcher answers; raises what ended it."""
    here, there = socket.socketpair()
    with here, there:
        here.sendall(request)
        here.shutdown(socket.SHUT_WR)
        try:
            serve(there.fileno(), there.fileno(), source)
        finally:
            there.shutdown(socket.SHUT_WR)
            said = b""
            while part := here.recv(65_536):
                said += part
            converse.said = said  # type: ignore[attr-defined]
        return said


def test_the_fetcher_says_why_it_has_nothing(authority: Authority) -> None:
    def nothing(_wanted: Range) -> Iterator[bytes]:
        raise NoServer("nobody there")
        yield b""

    with pytest.raises(NoServer):
        converse(RANGE.encode(WANTED), nothing)
    assert converse.said == b"\x45nobody there"  # type: ignore[attr-defined]


@pytest.mark.parametrize("request_bytes", [b"", b"\xa0", b"\x17" * 100, bytes(REQUEST_MAX_BYTES + 50)])
def test_the_fetcher_takes_no_garbage_for_a_request(request_bytes: bytes) -> None:
    with pytest.raises(MpError):
        converse(request_bytes, lambda _wanted: iter((b"never",)))
    assert converse.said == b""  # type: ignore[attr-defined]


def test_a_finisher_that_is_gone_ends_the_download() -> None:
    here, there = socket.socketpair()
    here.sendall(RANGE.encode(WANTED))
    here.close()
    with there, pytest.raises(NoServer, match="the finisher has ended"):
        serve(there.fileno(), there.fileno(), lambda _wanted: iter([bytes(65_536)] * 100))
