"""mpserver init, run."""

import argparse
from pathlib import Path

from mpserver.clock import SystemClock
from mpserver.errors import SetUp, Usage
from mpserver.founding import found
from mpserver.keystore import STANDBY, Keystore
from mpserver.output import Shown
from mpserver.state import Places, open_state

PORT = 8443
WAITS = (
    "realm production needs every approval by two people with passkeys, and keys in a token;"
    " this version has neither. Nothing was written. Use --realm lab for tests"
)


def add_init(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("--realm", required=True, choices=("lab", "production"), help="final: it is in every key")
    parser.add_argument(
        "--name", action="append", default=[], metavar="HOST", help="name or address in the TLS certificate; repeatable"
    )
    parser.set_defaults(run=init)


def init(options: argparse.Namespace) -> Shown:
    """A new issuer, of realm lab."""
    if options.realm != "lab":
        raise SetUp(WAITS)
    places = Places(options.dir)
    found(options.dir, options.realm, options.name, SystemClock().now())
    standby = Keystore(places.keys).key_file(STANDBY)
    value = {"realm": options.realm, "directory": str(options.dir), "standby_root_key": str(standby)}
    text = (
        f"realm {options.realm} set up in {options.dir}\n"
        f"now move {standby} to a medium off line: with it lost and the root stolen, no device can be saved\n"
        f"next: mpserver --dir {options.dir} key import FILE, product add FILE, job create"
    )
    return Shown(value, text)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=_port, default=PORT, help="0 takes any free one (default %(default)s)")
    parser.add_argument("--ready-file", type=Path, metavar="PATH", help="written with the address once it answers")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> Shown | None:
    """Until SIGTERM or SIGINT."""
    from mpserver.running import Address  # granian is not needed by any other command
    from mpserver.running import run as serve

    state = open_state(options.dir)
    try:
        serve(state, Address(options.host, options.port), options.ready_file)
    finally:
        state.close()
    return None


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise Usage(f"--port {text}: a port is a number from 0 to 65535")
    return int(text)
