"""mpagent credentials: secrets for units and volumes, by systemd's own conventions, and for the kernel."""

import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from socket import socket

    from mpagent.credentials.protocol import Peer

ABOUT = "serve secrets to units and volumes"
IDLE_S: Final = 30.0
"""Seconds without a request until the service ends and the vault's key with it; the next request starts it again."""
_IDLE_MAX_S: Final = 86_400.0


def configure(parser: ArgumentParser) -> None:
    """Options of this command."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    serve = verbs.add_parser("serve", help="answer on the socket that systemd passes, until nobody asks")
    serve.add_argument("--listen", type=Path, metavar="PATH", help="make the socket here; for a shell")
    serve.add_argument(
        "--idle", type=_seconds, default=IDLE_S, metavar="SECONDS", help=f"end when nobody asks so long ({IDLE_S:.0f})"
    )
    verbs.add_parser("keyring", help="put the image's kernel keys into this user's keyring")


def run(arguments: Namespace) -> int:
    """Of `serve` refusals are answers, not failures: 0 unless the service itself cannot run."""
    return _serve(arguments) if arguments.verb == "serve" else _hand_over(arguments)


def _hand_over(arguments: Namespace) -> int:
    from mpagent.compose import read_device
    from mpagent.credentials.kernel import hand_over
    from mpagent.credentials.source import SlotSource
    from mpagent.hal.caam.keyctl import KernelKeys
    from mpagent.output import put_line
    from mpwire.guard import guard

    guard()
    device = read_device(arguments.root)
    keys = device.image.credentials.keys
    hand_over(keys, SlotSource(device).read, KernelKeys())
    put_line(f"{len(keys)} keys are in the user keyring")
    return 0


def _serve(arguments: Namespace) -> int:
    from mpagent.compose import read_device
    from mpagent.credentials.service import Answer, Service, decide
    from mpagent.credentials.source import SlotSource
    from mpwire.guard import guard

    guard()
    device = read_device(arguments.root)
    source = SlotSource(device)

    def answer(peer: "Peer") -> Answer:
        return decide(peer, device.image.credentials, source.read)

    with _open_listener(arguments) as listener:
        Service(listener, answer, _tell, time.monotonic).run(arguments.idle)
    return 0


def _open_listener(arguments: Namespace) -> "AbstractContextManager[socket]":
    from mpagent.credentials.activation import listen, take_listener

    given = take_listener()
    if (given is None) == (arguments.listen is None):
        arguments.parser.error("credentials serve is started by mpagent-credentials.socket; in a shell use --listen")
    return listen(arguments.listen) if given is None else given


def _tell(line: str) -> None:
    """For the journal; a log nobody takes does not end the service."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(f"mpagent: {line}\n")
        sys.stderr.flush()
    except OSError:
        return


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 1.0 <= found <= _IDLE_MAX_S:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds from 1 to {_IDLE_MAX_S:.0f}")
    return found
