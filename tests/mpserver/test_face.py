"""The HTTP face under strangers: bounded, patient for ten seconds, and no row for anybody who is not known."""

import json
import os
import resource
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from mpserver.face import BODY_DEADLINE_S
from mpserver.store.database import open_database
from mpwire import limits, registry
from mpwire.codec import decode
from tests.mpserver.server import Running, run_tool, running, set_up


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for the tests that leave nothing behind."""
    folder = tmp_path_factory.mktemp("face")
    with running(folder, set_up(folder)) as one:
        yield one


def _rows(state: Path) -> dict[str, int]:
    connection = open_database(state / "ledger.db")
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    counts = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
    connection.close()
    return counts


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/healthz", {}, 200),
        ("POST", "/healthz", {}, 405),
        ("GET", registry.PATH, {}, 405),
        ("PUT", registry.PATH, {"content-type": registry.CONTENT_TYPE}, 405),
        ("POST", "/", {"content-type": registry.CONTENT_TYPE}, 404),
        ("POST", registry.PATH + "/x", {"content-type": registry.CONTENT_TYPE}, 404),
        ("POST", registry.PATH, {}, 415),
        ("POST", registry.PATH, {"content-type": "application/json"}, 415),
    ],
)
def test_what_is_no_message_is_turned_away(
    server: Running, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    roots = str(server.state / "keys" / "root.crt")
    answer = requests.request(method, server.url + path, headers=headers, verify=roots, timeout=10)
    assert answer.status_code == status
    assert len(answer.content) <= 8


@pytest.mark.parametrize(
    "body", [b"", b"x", b"\xa0", b"\xa1\x00\x01", b"\xd2\x84", b"<html>", os.urandom(2_000)], ids=range(7)
)
def test_garbage_hears_a_refusal_and_leaves_no_row(server: Running, body: bytes) -> None:
    """P5, P11: the check's name and no more; nothing kept."""
    before = _rows(server.state)
    answer = server.post(body)
    assert (answer.status_code, answer.headers["content-type"]) == (400, registry.CONTENT_TYPE)
    refusal = decode(answer.content)
    assert isinstance(refusal, dict) and (refusal[0], refusal[2]) == (7, "malformed")
    assert len(answer.content) <= limits.REFUSAL_MAX_BYTES
    assert _rows(server.state) == before


@pytest.mark.parametrize(
    ("start", "size"),
    [
        (b"\xa6\x00\x01", limits.HELLO_MAX_BYTES + 1),
        (b"\xa6\x00\x03", limits.PROOF_MAX_BYTES + 1),
        (b"\xd2\x84", limits.RECEIPT_MAX_BYTES + 1),
    ],
    ids=["hello", "proof", "receipt"],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_message_longer_than_its_kind_is_cut_off(server: Running, start: bytes, size: int, chunked: bool) -> None:
    body = start.ljust(size, b"\0")
    before = _rows(server.state)
    try:
        answer = server.post((body[at : at + 4096] for at in range(0, size, 4096)) if chunked else body)  # type: ignore[arg-type]  # requests sends a generator in chunks
        assert answer.status_code == 413
    except requests.ConnectionError:
        pass  # the server had hung up before the last byte was sent, and its answer went under with the line
    assert _rows(server.state) == before and server.process.poll() is None


def test_a_body_declared_too_long_is_refused_before_it_comes(server: Running) -> None:
    with server.connect() as line:
        line.sendall(_head(limits.PROOF_MAX_BYTES + 1))
        assert b" 413 " in line.recv(4096)


def _head(length: int) -> bytes:
    return (
        f"POST {registry.PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {registry.CONTENT_TYPE}\r\n"
        f"content-length: {length}\r\n\r\n"
    ).encode()


def test_a_stalled_body_is_ended_and_its_connection_closed(server: Running) -> None:
    with server.connect() as line:
        line.settimeout(BODY_DEADLINE_S + 5)
        line.sendall(_head(1_000) + b"\xa6\x00\x01")
        started = time.monotonic()
        assert b" 408 " in line.recv(4096)
        assert BODY_DEADLINE_S - 1 < time.monotonic() - started < BODY_DEADLINE_S + 3
        assert line.recv(4096) == b""


def test_old_tls_and_plain_http_are_not_spoken(server: Running) -> None:
    old = server.context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    plain = socket.create_connection(("127.0.0.1", server.port))
    with pytest.raises(ssl.SSLError):
        old.wrap_socket(plain, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"200" not in line.recv(4096)


def test_two_thousand_idle_connections_do_not_keep_a_board_waiting(server: Running) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192), hard))
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2_000)]
    try:
        hello = server.post(b"\xa0")
        assert hello.elapsed.total_seconds() < 1
        code, said, _ = server.enroll("crowd")
        assert code == 0, said
        spent = [event for event in said.splitlines() if "sealing" in event]
        assert spent and float(spent[0].split("[")[1].split()[0]) < 1.0, said
    finally:
        for one in idle:
            one.close()


def test_the_servers_memory_is_locked_and_no_core_is_written(server: Running) -> None:
    """T-187 The server holds every key of the OEM: what the kernel says, and what doctor says of it."""
    proc = Path("/proc") / str(server.process.pid)
    limits = next(line for line in (proc / "limits").read_text().splitlines() if line.startswith("Max core file"))
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    told = json.loads(run_tool("mpserver", "--dir", str(server.state), "doctor", "--json").stdout)
    found = {line["check"]: line for line in told}

    assert limits.split()[4:6] == ["0", "0"]
    assert found["core-dump"]["ok"] is True
    locked, note = int(status["VmLck"].split()[0]), found["memory-lock"]
    assert locked > 0 if note["ok"] else "LimitMEMLOCK" in note["said"]


def test_a_flood_of_garbage_does_not_fill_the_log(server: Running) -> None:
    before = len(server.log)
    roots = str(server.state / "keys" / "root.crt")
    with requests.Session() as session:
        session.verify, session.trust_env = roots, False
        started = time.monotonic()
        for _ in range(400):
            session.post(server.url + registry.PATH, b"x", headers={"content-type": registry.CONTENT_TYPE}, timeout=10)
        seconds = time.monotonic() - started
    assert len(server.log) - before <= 51 * (int(seconds) + 2)


def test_a_whole_enrollment_and_a_clean_stop(tmp_path: Path) -> None:
    state = set_up(tmp_path, quota=1)
    with running(tmp_path, state) as server:
        assert server.enroll("one")[0] == 0
        code, said, _ = server.enroll("two")
        assert code == 77 and "quota" in said
        port = server.port
        taken = run_tool("mpserver", "--dir", str(state), "run", "--port", str(port))
        assert taken.returncode == 69 and "in use" in taken.stderr and "--port" in taken.stderr
        assert server.stop() == 0
        (refused,) = [line for line in server.log if line["event"] == "refused"]
        assert refused["check"] == "quota" and str(refused["ueid"]).startswith("01") and refused["run_id"]
    with running(tmp_path, state) as server:
        pass
    assert _rows(state)["units"] == 1
    assert run_tool("mpserver", "--dir", str(state), "ledger", "verify").returncode == 0


def test_a_full_disk_under_standard_output_keeps_no_board_waiting(tmp_path: Path) -> None:
    """The line that says where it listens is a courtesy; the log and the ready file say it too."""
    with open("/dev/full", "wb") as full, running(tmp_path, set_up(tmp_path, quota=1), output=full) as server:
        assert server.enroll("one")[0] == 0
        assert server.stop() == 0
        assert [line["event"] for line in server.log][:2] == ["listening", "output-lost"]
        assert b"Traceback" not in (tmp_path / "server.log").read_bytes()


def test_a_request_under_way_when_the_server_is_told_to_stop_is_answered(tmp_path: Path) -> None:
    with running(tmp_path, set_up(tmp_path)) as server:
        with server.connect() as line:
            line.settimeout(10)
            line.sendall(_head(2) + b"\xa0")
            time.sleep(0.3)
            server.process.terminate()
            time.sleep(0.3)
            line.sendall(b"\x00")
            assert b" 400 " in line.recv(4096)
        assert server.process.wait(20) == 0
