"""What both demos have in common: a folder of their own, signals, and how a line that came out otherwise is told."""

import argparse
import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

from mpsim.demo.expecting import NotAsSaid
from mpsim.demo.screen import Screen
from mpsim.demo.stopping import Stopped, Stops
from mpwire.errors import MpError, Retry

MARK: Final = ".mpsim-demo"
"""Says that a folder is the demo's own, to be removed by the next one."""
Story: TypeAlias = Callable[[Path, Screen, Stops], dict[str, Any]]
"""Tells it in that folder; its report, which has `seconds`. Raises NotAsSaid."""


class NotOurs(MpError):
    """The folder is in use, or not a demo's; nothing in it was touched."""

    exit_code: ClassVar[int] = 64
    retry: ClassVar[Retry] = Retry.OPERATOR


def play(parser: argparse.ArgumentParser, arguments: Sequence[str] | None, tell: Story) -> int:
    """0; 64 for a folder not ours to use; 70 for a line that came out otherwise; 129, 130 and 143 for signals."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="made anew; holds the report and logs")
    out = parser.parse_args(arguments).out.absolute()
    screen = Screen()
    os.umask(0o077)  # the server's keys and the product's static value lie below
    stops = Stops()
    stops.listen()
    try:
        with _hold(out):
            _make_fresh(out)
            report = tell(out, screen, stops)
    except NotAsSaid as wrong:
        screen.failed(
            str(wrong), [("expected", wrong.expected), ("came", wrong.came), ("log", f"{wrong.log}, others beside it")]
        )
        return wrong.exit_code
    except MpError as error:
        screen.failed(str(error), [("detail", error.detail)] if error.detail else [])
        return error.exit_code
    except Stopped as stopped:
        print(f"\ndemo: stopped by {stopped.number.name}; all its processes have ended", file=sys.stderr)
        return stopped.exit_code
    screen.title(f"All as said, in {report['seconds']} s. Report: {out / 'report.json'}")
    return 0


@contextmanager
def _hold(out: Path) -> Iterator[None]:
    """One demo at a time in a folder; the kernel lets go when the process ends, however it ends."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out.with_name(f".{out.name}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotOurs(f"another demo is at work in {out}") from None
        yield


def _make_fresh(out: Path) -> None:
    """An empty folder that is marked as ours. Raises NotOurs, and removes nothing, where something else lies there."""
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise NotOurs(f"{out} holds something else than a demo; name another --out")
        shutil.rmtree(out)
    out.mkdir(exist_ok=True)
    (out / MARK).touch()
