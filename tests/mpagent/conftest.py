"""A server of our own for the link: real TLS on loopback, a private CA, and answers as bad as a test wants them."""

import datetime
import ipaddress
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
"""Mounting a small file system needs it, as the project's set-up does."""
BUILD_TIME = 1_700_000_000
"""The image of these tests was built in November 2023."""


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A tmpfs of our own on this folder."""
    owner = f"{options},mode=700,uid={os.geteuid()},gid={os.getegid()}"
    subprocess.run([*AS_ROOT, "mount", "-t", "tmpfs", "-o", owner, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run([*AS_ROOT, "umount", folder], check=True)


@dataclass(frozen=True)
class Authority:
    """A private CA in a folder."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, host: str = "127.0.0.1", ends: int = BUILD_TIME + 10 * 365 * 86_400) -> Path:
        """Key and certificate of a server, in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
        alternative: x509.GeneralName
        try:
            alternative = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            alternative = x509.DNSName(host)
        certificate = (
            _builder(name, self.certificate.subject, key.public_key(), ends)
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        path = self.folder / f"server-{host.replace('.', '-')}-{ends}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return path


def make_authority(folder: Path, ends: int = BUILD_TIME + 20 * 365 * 86_400) -> Authority:
    """A root that ends when it is told to."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"root {folder.name} {ends}")])
    certificate = (
        _builder(name, name, key.public_key(), ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(folder, key, certificate)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, ends: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(min(ends, BUILD_TIME) - 86_400, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(ends, datetime.UTC))
    )


@dataclass
class Peer:
    """A TLS server that reads one request after the other and lets `answer` write to the line."""

    certificate: Path
    answer: Callable[[socket.socket, bytes], None]
    connections: int = 0
    bodies: list[bytes] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificate)
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # close alone leaves a blocked accept waiting
        self._listener.close()
        for one in self._open:
            one.close()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._converse, args=(raw,), daemon=True).start()

    def _converse(self, raw: socket.socket) -> None:
        self._open.append(raw)
        try:
            with self._context.wrap_socket(raw, server_side=True) as line:
                self._open.append(line)
                while request := _read_request(line):
                    self.heads.append(request[0])
                    self.bodies.append(request[1])
                    self.answer(line, request[1])
        except OSError:
            return


def _read_request(line: socket.socket) -> tuple[bytes, bytes] | None:
    received = b""
    while b"\r\n\r\n" not in received:
        part = line.recv(65_536)
        if not part:
            return None
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(int(one.split(b":")[1]) for one in head.split(b"\r\n") if one.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += line.recv(65_536)
    return head, body


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The root in the image."""
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """A root that is not in the image."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    return make_authority(folder)


@pytest.fixture
def make_peer(authority: Authority) -> Iterator[Callable[..., Peer]]:
    """Start servers; they end with the test."""
    peers: list[Peer] = []

    def make(answer: Callable[[socket.socket, bytes], None], certificate: Path | None = None) -> Peer:
        peers.append(Peer(certificate or authority.issue(), answer))
        return peers[-1]

    yield make
    for one in peers:
        one.close()
