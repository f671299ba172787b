"""The line: strangers, proxies, thieves of old certificates and servers that stop in the middle."""

import gzip
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpagent.errors import NoServer, Pending
from mpagent.link import HttpsLink, Route
from mpagent.transport import probe
from mpwire import limits
from mpwire.errors import MpError, PeerBroke, Unauthentic

from .conftest import BUILD_TIME, Authority, Peer, make_authority

MakePeer = Callable[..., Peer]
CBOR = b"Content-Type: application/cbor\r\n"


def http(status: bytes, head: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    """A whole HTTP answer."""
    size = len(body) if length is None else length
    return b"HTTP/1.1 " + status + b"\r\n" + head + b"Content-Length: " + str(size).encode() + b"\r\n\r\n" + body


def say(answer: bytes) -> Callable[[socket.socket, bytes], None]:
    """An answer that says these bytes and leaves the line open."""
    return lambda line, _body: line.sendall(answer)


def make_link(peer: Peer, authority: Authority, **options: Any) -> HttpsLink:
    values = {"now": BUILD_TIME, "connect_s": 3.0, "read_s": 1.0, "answer_s": 2.0, **options}
    return HttpsLink(lambda: Route(peer.address, (authority.pem,), **values), time.monotonic)


def test_three_messages_use_one_connection_and_come_back_whole(make_peer: MakePeer, authority: Authority) -> None:
    peer = make_peer(lambda line, body: line.sendall(http(b"200 OK", CBOR, b"\x01" + body)))
    link = make_link(peer, authority)
    assert [link.ask(one) for one in (b"a", b"b" * 60_000, b"c")] == [b"\x01a", b"\x01" + b"b" * 60_000, b"\x01c"]
    link.close()
    assert peer.connections == 1
    assert peer.heads[0].startswith(b"POST /mpagent/1 HTTP/1.1")
    assert b"accept-encoding: identity" in peer.heads[0].lower()


def test_chunked_answer_is_read_whole(make_peer: MakePeer, authority: Authority) -> None:
    chunked = b"HTTP/1.1 200 OK\r\n" + CBOR + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert make_link(make_peer(say(chunked)), authority).ask(b"x") == b"abcde"


def test_refusal_comes_back_whatever_the_status(make_peer: MakePeer, authority: Authority) -> None:
    peer = make_peer(say(http(b"403 Forbidden", CBOR, b"\xa1")))
    assert make_link(peer, authority).ask(b"x") == b"\xa1"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http(b"200 OK", b"Content-Type: text/html\r\n", b"<html>log in</html>"), "another server answered: 200 text"),
        (http(b"403 Forbidden", b"Content-Type: text/html\r\n", b"<html>no"), "another server answered: 403 text/html"),
        (http(b"502 Bad Gateway", b"", b""), "another server answered: 502"),
        (http(b"407 Proxy Authentication Required", b"", b""), "the proxy wants a login"),
        (http(b"302 Found", b"Location: https://evil.example/\r\n", b""), "redirects elsewhere, which is not followed"),
        (http(b"307 Temporary Redirect", b"Location: /mpagent/2\r\n", b""), "redirects elsewhere"),
        (b"not http at all\r\n\r\n", "broke before an answer was whole"),
    ],
)
def test_stranger_on_the_line_is_only_a_delay(
    make_peer: MakePeer, authority: Authority, answer: bytes, words: str
) -> None:
    """T: a captive portal or a proxy answers in the server's place."""
    peer = make_peer(say(answer))
    with pytest.raises(NoServer, match=words):
        make_link(peer, authority).ask(b"x")
    assert peer.bodies == [b"x"]  # said once, and not again to wherever a redirect points


def test_pending_tells_when_to_come_again_and_is_bounded(make_peer: MakePeer, authority: Authority) -> None:
    peer = make_peer(say(http(b"503 Service Unavailable", b"Retry-After: 7\r\n")))
    with pytest.raises(Pending) as found:
        make_link(peer, authority).ask(b"x")
    assert found.value.retry_after_s == 7
    peer.answer = say(http(b"503 Service Unavailable", b"Retry-After: 99999999999999\r\n"))
    with pytest.raises(Pending) as found:
        make_link(peer, authority).ask(b"x")
    assert found.value.retry_after_s == 3_600


def test_oversized_answer_is_refused_before_it_is_read(make_peer: MakePeer, authority: Authority) -> None:
    peer = make_peer(say(http(b"200 OK", CBOR, b"", length=limits.MESSAGE_MAX_BYTES + 1)))
    with pytest.raises(PeerBroke, match="longer than"):
        make_link(peer, authority).ask(b"x")


def test_endless_chunks_stop_at_the_limit(make_peer: MakePeer, authority: Authority) -> None:
    sent = []

    def flood(line: socket.socket, _body: bytes) -> None:
        line.sendall(b"HTTP/1.1 200 OK\r\n" + CBOR + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(10_000):
            line.sendall(b"1000\r\n" + bytes(4096) + b"\r\n")
            sent.append(4096)

    with pytest.raises(PeerBroke, match="longer than"):
        make_link(make_peer(flood), authority).ask(b"x")
    assert sum(sent) < 100 * limits.MESSAGE_MAX_BYTES  # the line was closed, not drained


def test_gzip_bomb_is_refused_unopened(make_peer: MakePeer, authority: Authority) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    peer = make_peer(say(http(b"200 OK", CBOR + b"Content-Encoding: gzip\r\n", bomb)))
    with pytest.raises(PeerBroke, match="compressed"):
        make_link(peer, authority).ask(b"x")


def test_stalled_body_ends_at_the_read_limit(make_peer: MakePeer, authority: Authority) -> None:
    peer = make_peer(say(http(b"200 OK", CBOR, b"half", length=100)))
    start = time.monotonic()
    with pytest.raises(NoServer, match="fell silent"):
        make_link(peer, authority).ask(b"x")
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("head", [http(b"200 OK", CBOR, b"", length=100), b"HTTP/1.1 200 OK\r\nX-Slow: "])
def test_dripped_answer_ends_at_the_deadline(make_peer: MakePeer, authority: Authority, head: bytes) -> None:
    """T: one byte each half second never meets a read timeout."""

    def drip(line: socket.socket, _body: bytes) -> None:
        line.sendall(head)
        for _ in range(50):
            line.sendall(b"a")
            time.sleep(0.3)

    start = time.monotonic()
    with pytest.raises(NoServer, match="fell silent"):
        make_link(make_peer(drip), authority).ask(b"x")
    assert time.monotonic() - start < 4


def test_server_gone_mid_answer_is_no_answer(make_peer: MakePeer, authority: Authority) -> None:
    def leave(line: socket.socket, _body: bytes) -> None:
        line.sendall(http(b"200 OK", CBOR, b"half", length=100))
        line.close()

    with pytest.raises(NoServer):
        make_link(make_peer(leave), authority).ask(b"x")


def test_next_message_after_a_broken_line_gets_a_new_connection(make_peer: MakePeer, authority: Authority) -> None:
    peer = make_peer(lambda line, _body: line.close())
    link = make_link(peer, authority)
    with pytest.raises(NoServer):
        link.ask(b"x")
    peer.answer = say(http(b"200 OK", CBOR, b"\x02"))
    assert link.ask(b"x") == b"\x02"
    assert peer.connections == 2


def test_server_under_another_authority_hears_nothing(
    make_peer: MakePeer, authority: Authority, stranger: Authority
) -> None:
    """T: wrong server CA."""
    peer = make_peer(say(http(b"200 OK", CBOR, b"\x01")), stranger.issue())
    with pytest.raises(Unauthentic, match="not under the roots of this image"):
        make_link(peer, authority).ask(b"x")
    assert peer.bodies == []


def test_certificate_for_another_name_hears_nothing(make_peer: MakePeer, authority: Authority) -> None:
    peer = make_peer(say(http(b"200 OK", CBOR, b"\x01")), authority.issue("other.example"))
    with pytest.raises(Unauthentic, match="for another name"):
        make_link(peer, authority).ask(b"x")
    assert peer.bodies == []


def test_stolen_certificate_that_ended_before_the_floor_hears_nothing(
    make_peer: MakePeer, authority: Authority
) -> None:
    """T: the clock is not asked, so an ended certificate must fall against the image's own time."""
    peer = make_peer(say(http(b"200 OK", CBOR, b"\x01")), authority.issue(ends=BUILD_TIME - 1))
    with pytest.raises(Unauthentic, match="ended on"):
        make_link(peer, authority).ask(b"x")
    assert peer.bodies == []
    assert make_link(peer, authority, now=BUILD_TIME - 1).ask(b"x") == b"\x01"  # at the floor itself it counts


def test_root_that_ended_before_the_floor_counts_no_more(make_peer: MakePeer, tmp_path: Path) -> None:
    """The whole verified chain is looked at, not the leaf alone."""
    old = make_authority(tmp_path, ends=BUILD_TIME - 5)
    peer = make_peer(say(http(b"200 OK", CBOR, b"\x01")), old.issue())
    with pytest.raises(Unauthentic, match="ended on"):
        make_link(peer, old).ask(b"x")
    assert peer.bodies == []


def test_nobody_there_is_no_server(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    route = Route(f"https://127.0.0.1:{port}", (authority.pem,), BUILD_TIME)
    with pytest.raises(NoServer, match="refuses the connection"):
        HttpsLink(lambda: route, time.monotonic).ask(b"x")


def test_unknown_name_is_no_server(authority: Authority) -> None:
    route = Route("https://no-such-host.invalid", (authority.pem,), BUILD_TIME)
    with pytest.raises(NoServer, match="not known to DNS"):
        HttpsLink(lambda: route, time.monotonic).ask(b"x")


def test_silent_server_ends_at_the_connect_limit(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        route = Route(f"https://127.0.0.1:{held.getsockname()[1]}", (authority.pem,), BUILD_TIME, connect_s=0.5)
        with pytest.raises(NoServer):
            HttpsLink(lambda: route, time.monotonic).ask(b"x")


def run_connect_proxy(answer: bytes | None) -> tuple[str, list[bytes]]:
    """A proxy that takes one CONNECT: it answers with `answer`, or joins the lines."""
    listener, heard = socket.create_server(("127.0.0.1", 0)), []

    def serve() -> None:
        near, _ = listener.accept()
        heard.append(near.recv(65_536))
        if answer is not None:
            near.sendall(answer)
            near.close()
            return
        host, port = heard[0].split()[1].decode().split(":")
        far = socket.create_connection((host, int(port)))
        near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=pump, args=(one, other), daemon=True).start()

    def pump(one: socket.socket, other: socket.socket) -> None:
        try:
            while part := one.recv(65_536):
                other.sendall(part)
        except OSError:
            return  # one side left

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", heard


def test_proxy_carries_ciphertext_only(make_peer: MakePeer, authority: Authority) -> None:
    peer = make_peer(say(http(b"200 OK", CBOR, b"\x01")))
    proxy, heard = run_connect_proxy(None)
    assert make_link(peer, authority, proxy=proxy).ask(b"x" * 100) == b"\x01"
    assert heard[0].startswith(f"CONNECT 127.0.0.1:{peer.port} ".encode())


def test_proxy_does_not_weaken_the_check_of_the_chain(make_peer: MakePeer, authority: Authority) -> None:
    peer = make_peer(say(http(b"200 OK", CBOR, b"\x01")), authority.issue(ends=BUILD_TIME - 1))
    proxy, _ = run_connect_proxy(None)
    with pytest.raises(Unauthentic, match="ended on"):
        make_link(peer, authority, proxy=proxy).ask(b"x")
    assert peer.bodies == []


def test_proxy_that_forbids_is_named(make_peer: MakePeer, authority: Authority) -> None:
    peer = make_peer(say(b""))
    proxy, _ = run_connect_proxy(http(b"403 Forbidden", b"Content-Type: text/html\r\n", b"<html>"))
    with pytest.raises(NoServer, match="the proxy http:"):
        make_link(peer, authority, proxy=proxy).ask(b"x")


def test_probe_checks_everything_and_says_nothing(
    make_peer: MakePeer, authority: Authority, stranger: Authority
) -> None:
    peer = make_peer(say(b""))
    assert probe(Route(peer.address, (authority.pem,), BUILD_TIME), time.monotonic) == "TLSv1.3"
    with pytest.raises(Unauthentic, match="not under the roots"):
        probe(Route(peer.address, (stranger.pem,), BUILD_TIME), time.monotonic)
    with pytest.raises(MpError, match="ended on"):
        probe(Route(peer.address, (authority.pem,), 2**33), time.monotonic)
    assert peer.bodies == []


ASK_ONCE = """
import sys, time
from mpagent.link import HttpsLink, Route
link = HttpsLink(lambda: Route(sys.argv[1], (open(sys.argv[2]).read(),), int(sys.argv[3])), time.monotonic)
assert link.ask(b"x") == b"\\x01"
context = link._transport._context
print(len(context.get_ca_certs()), context.keylog_filename)
"""


@pytest.mark.parametrize("clock", [None, "1970-01-02 00:00:00", "2100-01-01 00:00:00"])
def test_environment_and_clock_change_nothing(
    make_peer: MakePeer, authority: Authority, tmp_path: Path, clock: str | None
) -> None:
    """T: SSLKEYLOGFILE, proxy and CA variables of the factory's shell, and a clock that is far off."""
    (tmp_path / "root.pem").write_text(authority.pem)
    peer = make_peer(say(http(b"200 OK", CBOR, b"\x01")))
    keys = tmp_path / "keys"
    environment = {
        **os.environ,
        "SSLKEYLOGFILE": str(keys),
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1",
        "REQUESTS_CA_BUNDLE": "/nonexistent",
        "SSL_CERT_FILE": "/nonexistent",
    }
    command = [sys.executable, "-c", ASK_ONCE, peer.address, str(tmp_path / "root.pem"), str(BUILD_TIME)]
    if clock is not None:
        command = ["faketime", clock, *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.stdout) == ("", "1 None\n")  # one authority: ours
    assert not keys.exists() or b"SECRET" not in keys.read_bytes()
