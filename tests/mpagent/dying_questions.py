"""Questions that end badly, asked from a process of their own: `python -m tests.mpagent.dying_questions NAME ...`.

A process with threads, as that of a test is, may not fork.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mpagent.checkup import Finding, State
from mpagent.checkup.question import Question, answer
from mpagent.errors import HardwareAbsent, HardwareGone, Tampered


def hang() -> Finding:
    """A driver that does not return."""
    time.sleep(60)
    raise AssertionError


def hang_deaf() -> Finding:
    """The same, and it does not hear."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return hang()


def crash() -> Finding:
    """A library that ends its process."""
    os.abort()


def leave() -> Finding:
    """Somebody calls exit()."""
    raise SystemExit(0)


def stumble() -> Finding:
    """A bug whose text nobody may see."""
    raise ValueError("a secret of mine")


def gone() -> Finding:
    """A broken part."""
    raise HardwareGone("it smokes", advice="open a window")


def absent() -> Finding:
    """A missing part."""
    raise HardwareAbsent("no such part", advice="buy one")


def tampered() -> Finding:
    """A latched board."""
    raise Tampered("latched")


def some_then_gone() -> Iterator[Finding]:
    """One answer before the failure."""
    yield Finding("first", State.OK, "fine")
    raise HardwareGone("it smokes")


QUESTIONS = (hang, hang_deaf, crash, leave, stumble, gone, absent, tampered, some_then_gone)


def count_children() -> int:
    """Also dead ones that nobody reaped."""
    return sum(
        len((task / "children").read_text(encoding="ascii").split()) for task in Path("/proc/self/task").iterdir()
    )


def main(name: str, deadline_s: str, needed: str, asked: str) -> None:
    """Ask, and tell findings, seconds, and how many processes are left."""
    (ask,) = (one for one in QUESTIONS if one.__name__ == name)
    question = Question("thing", ask, float(deadline_s), needed == "1", asked == "1")
    start = time.monotonic()
    found = answer(question)
    print(json.dumps([found, time.monotonic() - start, count_children()]))


if __name__ == "__main__":
    main(*sys.argv[1:])
