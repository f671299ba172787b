"""How the last run of this boot stands: a small file on /run that holds no secret, for screen, LEDs and `status`.

It says what was; only `mpagent enroll` finds out what is. So it counts for this boot alone, and a run that ended
without a word (killed, crashed) is told from one at work.
"""

import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

STANDING_MAX_BYTES: Final = 65_536
"""Eight texts at their longest, every character of them escaped to six bytes, and room."""
TEXT_MAX: Final = 1_024
"""Characters of one text; a screen shows a quarter of that."""
_FILE: Final = "standing"
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class State(StrEnum):
    """What an operator has to know."""

    WORKING = "working"
    """A run is under way."""
    WAITING = "waiting"
    """A run waits before it tries again; `text` says for what."""
    PASS = "pass"
    """Provisioned, and every secret unsealed in this boot."""
    FAIL = "fail"
    """The run ended; `text` says why, `next` what to do."""
    STOPPED = "stopped"
    """The run was stopped, or ended without a word."""


class Standing(NamedTuple):
    """One moment of a run."""

    state: State
    stage: str = ""
    """mpagent.record.Stage, as far as it is known."""
    check: str = ""
    """Name of the failed check, as in the server's log."""
    text: str = ""
    next: str = ""
    """What to do, as a clause without a full stop."""
    run: str = ""
    """Run id of the Hello, 16 hex digits: the server's log has the same."""
    ueid: str = ""
    product: str = ""
    exit_code: int = 0
    since_s: float = 0.0
    """Of the monotonic clock, at the last change of state."""
    process: int = 0
    boot: str = ""


class StandingFile:
    """Where the standing is written and read: the folder `run/mpagent` below the root."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE

    def write(self, standing: Standing) -> None:
        """Replace it at once, readable for everybody. Not synced: it is for this boot. Raises OSError."""
        folder = self._path.parent
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = folder / f".{_FILE}.{os.getpid()}"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            os.fchmod(descriptor, 0o644)  # whatever the umask is
            os.write(descriptor, json.dumps(_shorten(standing)).encode())
        finally:
            os.close(descriptor)
        os.replace(fresh, self._path)

    def read(self) -> Standing | None:
        """The standing of this boot, None where no run told of itself. A run that is gone reads as stopped."""
        try:
            raw = _read(self._path)
        except OSError:
            return None
        standing, boot = _parse(raw), read_boot()
        if standing is None or not boot or standing.boot != boot:
            return None
        if standing.state in (State.WORKING, State.WAITING) and not _lives(standing.process):
            return standing._replace(
                state=State.STOPPED, text="mpagent ended without a word", next="start it again; nothing is lost"
            )
        return standing


def _read(path: Path) -> bytes:
    """What is no regular file gives nothing, or raises OSError; it is never waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(descriptor, STANDING_MAX_BYTES + 1)
    finally:
        os.close(descriptor)


def read_boot() -> str:
    """The kernel's name of this boot, empty where it is not told.

    A standing that was kept over a boot must not pass for one of now (P12).
    """
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _shorten(standing: Standing) -> dict[str, Any]:
    return {name: one[:TEXT_MAX] if isinstance(one, str) else one for name, one in standing._asdict().items()}


def _parse(raw: bytes) -> Standing | None:
    """None for anything but what `write` writes."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, Mapping) or set(found) != set(Standing._fields) or len(raw) > STANDING_MAX_BYTES:
        return None
    numbers = {"exit_code": (int,), "process": (int,), "since_s": (int, float)}
    if any(type(one) not in numbers.get(name, (str,)) for name, one in found.items()):
        return None
    if found["state"] not in list(State):
        return None
    texts: dict[str, Any] = {name: clean(one) if isinstance(one, str) else one for name, one in found.items()}
    return Standing(**{**texts, "state": State(found["state"])})


def clean(text: str) -> str:
    """Printable characters alone: a terminal obeys what stands between them."""
    return "".join(one if one.isprintable() else "?" for one in text)


def _lives(process: int) -> bool:
    """Whether a process of this number is there, whoever it belongs to."""
    if not 0 < process < 2**31:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
