"""mpagent inspect: a decoded, commented print of any message."""

import sys
from argparse import ArgumentParser, Namespace

from mpagent.errors import StorageBroke

ABOUT = "print a message in words"


def configure(parser: ArgumentParser) -> None:
    """Options of this command."""
    parser.add_argument("file", metavar="FILE", help='a message as it went over the line; "-" is standard input')
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: Namespace) -> int:
    """Checks no signature, and says so. Raises Malformed for what is no message."""
    from mpagent.output import put_json, put_line
    from mpwire.inspection import describe_message, inspect_message

    raw = _read(arguments.file)
    if arguments.json:
        put_json(describe_message(raw))
    else:
        put_line(inspect_message(raw).rstrip("\n"))
    return 0


def _read(name: str) -> bytes:
    from mpwire.limits import MESSAGE_MAX_BYTES

    try:
        if name == "-":
            return sys.stdin.buffer.read(MESSAGE_MAX_BYTES + 1)
        with open(name, "rb") as file:
            return file.read(MESSAGE_MAX_BYTES + 1)
    except OSError as error:
        raise StorageBroke(f"cannot read {name}: {error.strerror}") from error
