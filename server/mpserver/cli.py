"""mpserver: the OEM's side of provisioning. Exit codes are sysexits, as on the device (docs/operate.md)."""

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NoReturn

from mpserver.commands import (
    authority,
    bundle,
    completion,
    deciding,
    doctor,
    hsm,
    key,
    legacy,
    looking,
    mp,
    receipts,
    scan,
    serving,
    tpm,
)
from mpserver.errors import Usage
from mpserver.output import write_shown
from mpserver.state import DEFAULT_DIRECTORY
from mpwire.errors import MpError
from mpwire.guard import guard

COMMANDS: Final[tuple[tuple[str, str, Callable[[argparse.ArgumentParser], None]], ...]] = (
    ("init", "make keys and an empty ledger", serving.add_init),
    ("run", "serve boards", serving.add_run),
    ("product", "add and show products; print an image's anchors", deciding.add_product),
    ("key", "register attester keys; sign lists of them", key.configure),
    ("mp", "read U-Boot logs, verify MP signatures, compare boards' MP keys", mp.configure),
    ("bundle", "make and check bundles, for lines without a network", bundle.configure),
    ("authority", "who may make bundles after the first loading, and with which keys", authority.configure),
    ("legacy", "read NXP's old key files, so that their values can go into bundles", legacy.configure),
    ("scan-image", "look for the MP key and what gives it away in images that ship", scan.configure),
    ("scan-filter", "make what finds an MP key and does not tell it", scan.configure_filter),
    ("hsm", "initialise, show and audit the token that keys are in", hsm.configure),
    ("tpm", "approve what boards with a TPM measure", tpm.configure),
    ("job", "create, approve, show and end jobs", deciding.add_job),
    ("receipts", "take in what boards without a line say, and what does not fit together", receipts.configure),
    ("device", "list and show boards", looking.add_device),
    ("ledger", "verify and show the ledger", looking.add_ledger),
    ("doctor", "what works, what does not, and the next step", doctor.configure),
    ("inspect", "print a message or a signed object", looking.add_inspect),
    ("completion", "print a script for the shell", completion.configure),
)
STOPPED_BY_USER: Final = 130


class Parser(argparse.ArgumentParser):
    """argparse that ends with 64 (EX_USAGE), not 2."""

    def error(self, message: str) -> NoReturn:
        """One line that names what is wrong, and where help is."""
        raise Usage(f"{message} (see `{self.prog} --help`)")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; everything foreseen is one line on stderr."""
    try:
        options = make_parser().parse_args(arguments)
        guard()  # whatever the command, keys and values may pass through this process
        shown = options.run(options)
        if shown is None:
            return 0
        write_shown(shown, options.json)
        return int(shown.exit_code)
    except MpError as error:
        detail = f" ({error.detail})" if error.detail else ""
        print(f"mpserver: {error}{detail}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return STOPPED_BY_USER
    except Exception as error:
        return _report_bug(error)


def _report_bug(error: Exception) -> int:
    """Where it happened, and its kind: the text of a bug may hold anything, a secret too."""
    traceback.print_tb(error.__traceback__)
    print(f"mpserver: a bug in mpserver: {type(error).__name__} at the last line above; report it", file=sys.stderr)
    return MpError.exit_code


def make_parser() -> Parser:
    """The whole command line."""
    parser = Parser(prog="mpserver", description="Provision boards: verify evidence, grant secrets, keep the ledger.")
    parser.add_argument("--version", action="version", version=f"mpserver {_version()}")
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIRECTORY, help="state directory (default %(default)s)")
    parser.set_defaults(json=False, parser=parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text, configure in COMMANDS:
        one = commands.add_parser(name, help=text, description=text)
        configure(one)
        _accept_json(one)
    return parser


def _accept_json(parser: argparse.ArgumentParser) -> None:
    """--json on every command that does something, and --dir after it too: both read well at the end."""
    verbs = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    if verbs:
        for one in verbs[0].values():
            _accept_json(one)
        return
    parser.add_argument("--json", action="store_true", help="one JSON value on standard output")
    parser.add_argument("--dir", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _version() -> str:
    try:
        return version("mpagent-server")
    except PackageNotFoundError:
        return "from source"
