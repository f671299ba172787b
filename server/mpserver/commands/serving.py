"""mpserver init, run."""

import argparse
from pathlib import Path

from mpserver.clock import SystemClock
from mpserver.errors import SetUp, Usage
from mpserver.founding import found
from mpserver.keystore import STANDBY, Keystore
from mpserver.output import Shown
from mpserver.state import Places, open_state
from mpserver.token.preparation import name_token
from mpserver.token.settings import TokenSettings, name_pin

PORT = 8443
WAITS = (
    "realm production needs every approval by two people with passkeys, which this version does not have, and keys in a"
    " token. Nothing was written. Use --realm lab for tests, with --hsm for keys in a token"
)


def add_init(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("--realm", required=True, choices=("lab", "production"), help="final: it is in every key")
    parser.add_argument(
        "--name", action="append", default=[], metavar="HOST", help="name or address in the TLS certificate; repeatable"
    )
    token = parser.add_argument_group("keys in a token", "left out, they lie in files")
    token.add_argument("--hsm", type=Path, metavar="MODULE", help="the PKCS#11 library of the token's maker")
    token.add_argument("--token", metavar="LABEL", help="the token's label; it must hold no key yet")
    token.add_argument("--serial", default="", help="its serial number, where two tokens have one label")
    token.add_argument(
        "--pin-file", metavar="FILE", help="one line with the user PIN, mode 600; or the name of a systemd credential"
    )
    parser.set_defaults(run=init)


def init(options: argparse.Namespace) -> Shown:
    """A new issuer, of realm lab."""
    settings = _read_token(options)
    if options.realm != "lab":
        raise SetUp(WAITS)
    places = Places(options.dir)
    found(options.dir, options.realm, options.name, SystemClock().now(), settings)
    standby = Keystore(places.keys).key_file(STANDBY)
    keys = "files" if settings is None else f"token {settings.token}"
    value = {"realm": options.realm, "directory": str(options.dir), "keys": keys, "standby_root_key": str(standby)}
    text = (
        f"realm {options.realm} set up in {options.dir}, keys in {keys}\n"
        f"now move {standby} to a medium off line: with it lost and the root stolen, no device can be saved\n"
        f"next: mpserver --dir {options.dir} key import FILE, product add FILE, job create"
    )
    return Shown(value, text)


def _read_token(options: argparse.Namespace) -> TokenSettings | None:
    """Raises Usage for a token that is half named."""
    given = {"--hsm": options.hsm, "--token": options.token, "--pin-file": options.pin_file}
    missing = [name for name, value in given.items() if not value]
    if len(missing) == len(given) and not options.serial:
        return None
    if missing:
        raise Usage(f"{', '.join(missing)} is missing: a token is named by --hsm, --token and --pin-file together")
    return name_token(options.hsm.absolute(), options.token, options.serial, name_pin(options.pin_file))


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
