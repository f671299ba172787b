"""Sends a worker into each image and believes only what it says: one that dies or hangs is a finding of its own."""

import json
import os
import select
import signal
import stat
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any, BinaryIO, Final

from mpserver.errors import Usage
from mpserver.scan.filters import Sought
from mpserver.scan.findings import ADVICE, Kind, Severity
from mpserver.scan.worker import STATE_BYTES, State, work

POLL_S: Final = 0.2
GRACE_S: Final = 20.0
"""Beyond its own limit, before a worker that says nothing is ended."""
LINES_MAX_BYTES: Final = 64 * 1024 * 1024
"""Of a worker's report: findings are counted there already, so more is a worker gone wild."""


@dataclass(frozen=True, slots=True)
class Report:
    """About one image."""

    image: str
    size: int
    seconds: float
    findings: tuple[dict[str, Any], ...]


Watcher = Callable[[int, int, str], None]
"""Bytes done, size of the image, path."""


def examine(image: Path, sought: Sequence[Sought], seconds: float, watch: Watcher) -> Report:
    """Raises Usage where the image cannot be opened."""
    started = time.monotonic()
    try:
        with image.open("rb") as file:
            size = _measure(file, image)
            findings = _send(file, size, image.name, sought, seconds, watch)
    except OSError as error:
        raise Usage(f"cannot read {image}: {error.strerror}") from error
    told = tuple({**one, "image": str(image)} for one in findings)
    return Report(str(image), size, time.monotonic() - started, told)


def _measure(file: BinaryIO, image: Path) -> int:
    mode = os.fstat(file.fileno()).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise Usage(f"{image} is neither a file nor a disk: make a tar of a folder first")
    return file.seek(0, os.SEEK_END)


def _send(
    file: BinaryIO, size: int, name: str, sought: Sequence[Sought], seconds: float, watch: Watcher
) -> list[dict[str, Any]]:
    reader, writer = os.pipe()
    with mmap(-1, STATE_BYTES) as page:
        child = os.fork()
        if child == 0:
            os.close(reader)
            _live(lambda: work(file, size, name, sought, seconds, os.fdopen(writer, "wb"), page))
        os.close(writer)
        try:
            raw = _hear(reader, page, size, time.monotonic() + seconds + GRACE_S, watch)
        finally:
            os.close(reader)
            status = _end(child)
        return _read_report(raw, status, State.read(page)[1] or name)


def _live(act: Callable[[], None]) -> None:
    """The child: never returns."""
    try:
        act()
        os._exit(0)
    except BrokenPipeError:
        os._exit(1)
    except BaseException as error:
        traceback.print_tb(error.__traceback__)
        print(f"mpserver: the worker failed: {type(error).__name__}", file=sys.stderr, flush=True)
        os._exit(70)


def _hear(reader: int, page: mmap, size: int, until: float, watch: Watcher) -> bytes:
    """All that the child says until it closes its end, or time is over."""
    heard = bytearray()
    while time.monotonic() < until and len(heard) < LINES_MAX_BYTES:
        ready, _, _ = select.select([reader], [], [], POLL_S)
        if ready:
            part = os.read(reader, 1 << 16)
            if not part:
                return bytes(heard)
            heard += part
        done, path = State.read(page)
        watch(done, size, path)
    return bytes(heard)


def _end(child: int) -> int:
    """Its wait status; a child that is done already keeps the one it ended with."""
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _read_report(raw: bytes, status: int, path: str) -> list[dict[str, Any]]:
    """Its last word, or what it said before it ended, with that."""
    said: list[dict[str, Any]] = []
    for line in raw.split(b"\n")[:-1]:
        kind, findings = json.loads(line)
        if kind == "end":
            return list(findings)
        said += findings
    code = os.waitstatus_to_exitcode(status)
    why = f"ended by signal {-code}" if code < 0 else f"failed with {code}"
    unseen = {
        "path": path,
        "offset": 0,
        "kind": Kind.UNSEEN.value,
        "form": "",
        "severity": Severity.UNSEEN.value,
        "said": f"not looked into, nor what comes after: the worker {why} here, a limit of time or memory as a rule",
        "key": None,
        "advice": ADVICE[Kind.UNSEEN],
    }
    return [*said, unseen]
