"""mpagent inspect: a decoded, commented print of any message."""

import sys
from argparse import ArgumentParser, Namespace

from mpwire.errors import Malformed, MpError, Retry

ABOUT = "print a message in words"


class NoMessage(MpError):
    """The file holds something else, or a message somebody changed."""

    exit_code, retry = 76, Retry.OPERATOR


def configure(parser: ArgumentParser) -> None:
    """Options of this command."""
    parser.add_argument("file", metavar="FILE", help='a message as it went over the line; "-" is standard input')
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: Namespace) -> int:
    """Checks no signature, and says so. Raises NoMessage."""
    from mpagent.output import put_json, put_line
    from mpwire.inspection import describe_message, inspect_message

    raw = _read(arguments)
    try:
        value, text = describe_message(raw), inspect_message(raw)
    except Malformed as error:
        raise NoMessage(f"{arguments.file} holds no message of this protocol: {error}") from error
    if arguments.json:
        put_json(value)
    else:
        put_line(text.rstrip("\n"))
    return 0


def _read(arguments: Namespace) -> bytes:
    """The file, or as much of it as no message has."""
    from mpwire.inspection import INSPECTED_MAX_BYTES

    try:
        if arguments.file == "-":
            return sys.stdin.buffer.read(INSPECTED_MAX_BYTES + 1)
        with open(arguments.file, "rb") as file:
            return file.read(INSPECTED_MAX_BYTES + 1)
    except OSError as error:
        parser: ArgumentParser = arguments.parser
        parser.error(f"cannot read {arguments.file}: {error.strerror}")
