"""`python spans.py OUT mpagent-arguments...`: one run of mpagent with its CPU time split; the split goes to OUT.

The clock is the process's own CPU time, and a span inside another is taken out of it, so the parts add up to the whole.
What is wrapped: the import statement; the link (TLS and requests); the state partition; the chip; curve and cipher.
"""

# ruff: noqa: E402  # the clock is read before anything else is imported

import time

STARTED = time.process_time()

import builtins
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final


class Spans:
    """CPU seconds by name."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {"interpreter": STARTED}
        self._stack: list[str] = ["other"]
        self._since = STARTED

    def turn(self) -> None:
        """Book what passed on the innermost span."""
        now = time.process_time()
        name = self._stack[-1]
        self.spent[name] = self.spent.get(name, 0.0) + now - self._since
        self._since = now

    def wrap(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        """`act`, on this span."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.turn()
            self._stack.append(name)
            try:
                return act(*args, **kwargs)
            finally:
                self.turn()
                self._stack.pop()

        return timed

    def replace(self, name: str, owner: Any, *verbs: str) -> None:
        """Wrap methods or functions where they lie."""
        for verb in verbs:
            setattr(owner, verb, self.wrap(name, getattr(owner, verb)))


SPANS: Final = Spans()


def spread(is_tpm: bool) -> None:
    """Wrap everything; curve and cipher first, so that who imports them by name gets the wrapped ones."""
    builtins.__import__ = SPANS.wrap("imports", builtins.__import__)
    importlib.import_module = SPANS.wrap("imports", importlib.import_module)
    from mpwire import hpke, p256

    SPANS.replace("crypto", p256, "verify", "verify_digest", "load_point")
    SPANS.replace("crypto", p256.SoftKey, "sign", "ecdh", "sign_digest")
    for maker in ("generate", "from_scalar"):
        setattr(p256.SoftKey, maker, staticmethod(SPANS.wrap("crypto", getattr(p256.SoftKey, maker))))
    SPANS.replace("crypto", hpke, "open_base", "schedule", "agree")
    from mpagent import durable, link, vault

    SPANS.replace("crypto", vault, "_encrypt", "_decrypt")
    SPANS.replace("network", link.HttpsLink, "ask", "close")
    SPANS.replace("disk", durable.Disk, "write", "read", "names", "remove", "set_aside", "prepare")
    from mpsim import backend

    SPANS.replace("chip", backend.SimSoc, "read_facts")
    SPANS.replace("chip", backend.SimAttester, "describe", "attest")
    SPANS.replace("chip", backend.SimSealer, "seal", "unseal")
    if is_tpm:
        from mpagent.hal.tpm import chip

        SPANS.replace("chip", chip.Chip, "run")


def main() -> int:
    """Run, then tell."""
    out, kind, *arguments = sys.argv[1:]
    SPANS.wrap("imports", lambda: None)()
    spread(kind == "tpm")
    from mpagent.cli import main as mpagent

    code = mpagent(arguments)
    SPANS.turn()
    Path(out).write_text(json.dumps(SPANS.spent), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
