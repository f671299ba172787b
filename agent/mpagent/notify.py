"""What systemd hears of a run: sd_notify(3) datagrams, and journal entries with fields of our own.

NOTIFY_SOCKET and JOURNAL_STREAM are how systemd hands its sockets over (systemd.exec(5)). They say where somebody
listens and change nothing of what is done; without them nobody is told. Own code, because each Python binding brings a
second libsystemd or no journal (about 20 lines stand against 4 MiB).
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

STEP_LIMIT_S: Final = 300
"""Longest silence of a run that is alive: one answer of a slow server takes 60 s at most, an RSA key in a TPM a minute.
The unit's TimeoutStartSec= is the same number, for until the first word it is the one that counts."""
NAP_MAX_S: Final = 20.0
"""While waiting for a server, the time between two signs of life: many within STEP_LIMIT_S."""
_TEXT_MAX_BYTES: Final = 4_096
_JOURNAL: Final = Path("/run/systemd/journal/socket")


class ServiceManager:
    """The service manager that started us, if it asked to be told. One that is gone costs the word, not the run:
    without READY=1 it holds the unit for failed, however we end."""

    def __init__(self, address: str | None) -> None:
        """`address`: NOTIFY_SOCKET, a path or "@name" of an abstract socket; None or empty where nobody asked."""
        self._address = address or None

    def say(self, text: str) -> None:
        """A word for `systemctl status`, and a sign of life: the next one has to come within STEP_LIMIT_S."""
        self._send(f"STATUS={_one_line(text)}", _extension())

    def live(self) -> None:
        """A sign of life alone."""
        self._send(_extension())

    def ready(self, text: str) -> None:
        """Start-up is complete: whoever waits for the unit goes on."""
        self._send(f"STATUS={_one_line(text)}", "READY=1")

    def _send(self, *assignments: str) -> None:
        if self._address is not None:
            _tell(self._address, "\n".join(assignments).encode())


class SystemdJournal:
    """The journal behind our standard error, as its native protocol takes entries: each line may carry fields."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def behind(cls, descriptor: int, stream: str | None) -> "SystemdJournal | None":
        """The journal, where this descriptor leads to it: device and inode are the ones `stream`, JOURNAL_STREAM,
        names. That it is set says too little: whoever started us may have led our output elsewhere."""
        try:
            found = os.fstat(descriptor)
        except OSError:
            return None
        return cls(_JOURNAL) if stream == f"{found.st_dev}:{found.st_ino}" else None

    def write(self, text: str, priority: int, fields: Mapping[str, str]) -> bool:
        """One entry; whether the journal took it. `priority` is that of syslog(3): 6 informs, 3 is an error."""
        entry = {"MESSAGE": text, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": "mpagent", **fields}
        return _tell(str(self._path), b"".join(_write_field(name, value) for name, value in entry.items()))


def _extension() -> str:
    return f"EXTEND_TIMEOUT_USEC={STEP_LIMIT_S * 1_000_000}"


def _one_line(text: str) -> str:
    """A line end would begin another assignment, READY=1 for one: texts may hold what a stranger on the line said."""
    return "".join(one if one.isprintable() else " " for one in text)[:_TEXT_MAX_BYTES]


def _write_field(name: str, value: str) -> bytes:
    """With its length before it, so that no value can begin another field."""
    content = value.encode("utf-8", "replace")[:_TEXT_MAX_BYTES]
    return name.encode() + b"\n" + len(content).to_bytes(8, "little") + content + b"\n"


def _tell(address: str, message: bytes) -> bool:
    """One datagram, never waited for: whoever does not listen must not hold a board."""
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            line.setblocking(False)
            line.sendto(message, target)
    except (OSError, ValueError):
        return False
    return True
