"""The latch: proof of tampering here, kept on disk, so that no later start forgets it (exit code 65 from then on)."""

from typing import Final

from mpagent.durable import Damaged, Disk
from mpagent.errors import Tampered

LATCH_MAX_BYTES: Final = 4_096
"""One sentence of reason."""
_FILE: Final = "latch"


class Latch:
    """One per state folder. Only a person who removes the state folder opens it again."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def reason(self) -> str | None:
        """Why this device is latched, or None. A damaged latch still latches."""
        try:
            raw = self._disk.read(_FILE, LATCH_MAX_BYTES)
        except Damaged:
            return "the reason itself is damaged"
        return None if raw is None else raw.decode("utf-8", "replace")

    def check(self) -> None:
        """Raises Tampered when an earlier run found tampering."""
        reason = self.reason()
        if reason is not None:
            raise Tampered(f"latched by an earlier run: {reason}")

    def close(self, why: Tampered) -> None:
        """Keep the reason, durably, before anybody hears of it; the first one stays."""
        if self.reason() is None:
            self._disk.write(_FILE, str(why).encode()[:LATCH_MAX_BYTES])
