"""The process that meets the bytes of an image: few rights, little memory, no file of its own with a name.

It gets the image open and five bytes of each key, tells findings through a pipe, and ends by itself or by a limit.
"""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from mmap import mmap
from pathlib import Path
from typing import BinaryIO, Final

from mpserver.scan.budget import ONE_UNPACKED_MAX_BYTES, Budget
from mpserver.scan.filters import Sought
from mpserver.scan.findings import Finding, Notebook
from mpserver.scan.regions import Space
from mpserver.scan.walk import Walk

MIB: Final = 1024 * 1024
MEMORY_BYTES: Final = 384 * MIB
"""Address space beyond what the program has at its start: the largest windows of xz and zstd, and room."""
STATE_BYTES: Final = 4_096
"""Page shared with the parent: bytes done (8), length of the path (2), the path."""
_STATE_HEAD: Final = 10
_CPU_SPARE_S: Final = 30


class Lines:
    """Findings as JSON lines to the parent: at once, and again at the end with their last paths."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe

    def tell(self, kind: str, findings: Sequence[Finding]) -> None:
        """One line."""
        body = json.dumps([kind, [one.as_value("") for one in findings]]).encode() + b"\n"
        self._pipe.write(body)
        self._pipe.flush()


class _ToldNotebook(Notebook):
    """Tells each new finding, because this process may be ended at any byte."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines, self._told = lines, 0

    def note(self, place: object, finding: Finding) -> Finding:
        """See Notebook."""
        kept = super().note(place, finding)  # type: ignore[arg-type]  # the place passes through
        if len(self.findings) > self._told:
            self._lines.tell("new", self.findings[self._told :])
            self._told = len(self.findings)
        return kept


class State:
    """What the child says of its progress without a system call."""

    def __init__(self, page: mmap) -> None:
        self._page, self._done = page, 0

    def add_bytes(self, count: int) -> None:
        """So many more were looked at."""
        self._done += count
        self._page[:8] = self._done.to_bytes(8, "little")

    def set_path(self, path: str) -> None:
        """What is being looked at."""
        raw = path.encode("utf-8", "backslashreplace")[: STATE_BYTES - _STATE_HEAD]
        self._page[8:_STATE_HEAD] = len(raw).to_bytes(2, "little")
        self._page[_STATE_HEAD : _STATE_HEAD + len(raw)] = raw

    @staticmethod
    def read(page: mmap) -> tuple[int, str]:
        """Bytes and path."""
        length = int.from_bytes(page[8:_STATE_HEAD], "little")
        path = page[_STATE_HEAD : _STATE_HEAD + length].decode("utf-8", "replace")
        return int.from_bytes(page[:8], "little"), path


def work(
    image: BinaryIO, size: int, name: str, sought: Sequence[Sought], seconds: float, pipe: BinaryIO, page: mmap
) -> None:
    """All of the child's life but its exit."""
    confine(seconds)
    lines, state = Lines(pipe), State(page)
    notes = _ToldNotebook(lines)
    walk = Walk(sought, Budget(seconds, time.monotonic), notes, state.set_path, state.add_bytes)
    walk.look(Space(0, image, size), name)
    if notes.is_full:
        notes.findings.pop()
        notes.note_unseen(name, "there are more findings than are told")
    lines.tell("end", notes.findings)


def confine(seconds: float) -> None:
    """Limits of this process, for good."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_AS, used + MEMORY_BYTES),
        (resource.RLIMIT_CPU, int(seconds) + _CPU_SPARE_S),
        (resource.RLIMIT_FSIZE, ONE_UNPACKED_MAX_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        hard = resource.getrlimit(what)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (bound, bound))
    sys.setrecursionlimit(1_000)
    os.umask(0o077)
