"""The command line: one clear line for every failure, exit codes of sysexits.h, nothing heavy at start."""

import gc
import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Final, NoReturn

from mpagent.commands import (
    completion,
    credentials,
    doctor,
    enroll,
    evidence,
    face,
    finish,
    inspect,
    offline,
    secret,
    status,
)
from mpagent.version import VERSION
from mpwire.errors import MpError

COMMANDS: Final[dict[str, ModuleType]] = {
    "enroll": enroll,
    "offline": offline,
    "status": status,
    "face": face,
    "doctor": doctor,
    "secret": secret,
    "credentials": credentials,
    "finish": finish,
    "evidence": evidence,
    "inspect": inspect,
    "completion": completion,
}
EX_USAGE: Final = 64
EX_SOFTWARE: Final = 70
GARBAGE_THRESHOLD: Final = 50_000
"""Allocations before the collector looks: imports make little garbage, and looking for it was a tenth of a cold run."""


class Stopped(BaseException):
    """SIGTERM came; nothing but clean-up runs any more."""


class _Parser(ArgumentParser):
    """Says what is wrong on one line and ends with EX_USAGE, where argparse would say 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(EX_USAGE, f"mpagent: {message}; see {self.prog} --help\n")


def make_parser() -> ArgumentParser:
    """The whole command line."""
    parser = _Parser(prog="mpagent", description="Prove this board to its OEM, receive its secrets, seal them.")
    parser.add_argument("--version", action="version", version=f"mpagent {VERSION}")
    parser.add_argument("--root", type=Path, default=Path("/"), metavar="DIR", help="where usr, etc and var are (/)")
    parser.add_argument("--debug", action="store_true", help="print the local detail of a failure too")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        one = commands.add_parser(name, help=module.ABOUT, description=module.__doc__)
        module.configure(one)
    parser.set_defaults(parser=parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; after a signal, end by that signal once all is cleaned up."""
    gc.set_threshold(GARBAGE_THRESHOLD)
    try:
        return _run(argv)
    finally:
        gc.freeze()  # the interpreter's last collection would walk all that was imported: a seventh of a cold run


def _run(argv: Sequence[str] | None) -> int:
    signal.signal(signal.SIGTERM, _stop)
    arguments = make_parser().parse_args(argv)
    try:
        code: int = COMMANDS[arguments.command].run(arguments)
        return code
    except MpError as error:
        return _report(error, arguments)
    except KeyboardInterrupt:
        return _end_by(signal.SIGINT)
    except Stopped:
        return _end_by(signal.SIGTERM)
    except Exception as error:
        return _report_bug(error, arguments)


def _report(error: MpError, arguments: Namespace) -> int:
    from mpagent.advice import say

    _complain(f"mpagent: {say(error)}")
    if arguments.debug and error.detail:
        _complain(f"mpagent: detail: {error.detail}")
    return error.exit_code


def _report_bug(error: Exception, arguments: Namespace) -> int:
    """The text of a bug may hold anything, a secret too: without --debug only its kind and place are shown."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else f" at {Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}"
    _complain(f"mpagent: a bug in mpagent: {type(error).__name__}{where}. Next: report it; --debug shows more")
    if arguments.debug:
        import traceback

        traceback.print_exception(error)
    return EX_SOFTWARE


def _complain(line: str) -> None:
    if sys.stderr is None:
        return  # closed before we started
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except OSError:
        return  # nobody listens; the exit code still tells


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


def _end_by(number: signal.Signals) -> int:
    """Die by the signal, so that shells and systemd see a stop and no failure (130 and 143 in a shell)."""
    _complain(f"mpagent: stopped by {number.name}; the next start goes on from here")
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
