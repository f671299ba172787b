"""The path to the server."""

import time
from collections.abc import Iterator
from typing import Final

from mpagent.checkup.desk import Desk
from mpagent.checkup.finding import Finding, State
from mpagent.checkup.question import Question
from mpagent.compose import Device

_DEADLINE_S: Final = 30.0
"""Name, connection and handshake, each as long as `enroll` would wait."""


def ask_line(desk: Desk) -> Iterator[Question]:
    """Last, because it takes longest where it fails."""
    device = desk.device
    if device is not None and device.image.mp_use != "secret":
        yield Question("server", lambda: _look(device), deadline_s=_DEADLINE_S)


def _look(device: Device) -> Finding:
    """A TLS handshake with every check of the link; not one byte of a message."""
    from mpagent import transport

    route = device.route(device.journal(lambda _text: None).peek()[0])
    start = time.monotonic()
    version = transport.probe(route, time.monotonic)
    return Finding("server", State.OK, f"{route.server}, {version}, {(time.monotonic() - start) * 1000:.0f} ms")
