"""mpagent secret: the way out for one secret, unsealed by this chip at this moment."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpagent.compose import Device

ABOUT = "list the secrets of this board, or get one"


def configure(parser: ArgumentParser) -> None:
    """Options of this command."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="names, kinds and versions; unseals nothing").add_argument(
        "--json", action="store_true", help="print one JSON array"
    )
    get = verbs.add_parser("get", help="write one secret to standard output, byte for byte")
    get.add_argument("name", metavar="NAME")
    get.add_argument("--hex", action="store_true", help="hexadecimal digits and a line end; allowed on a terminal")
    get.add_argument("--output", type=Path, metavar="FILE", help="to a file of mode 0600, on tmpfs or ramfs alone")


def run(arguments: Namespace) -> int:
    """Nothing is written to standard output unless the whole secret was unsealed."""
    from mpagent.compose import read_device

    device = read_device(arguments.root)
    if arguments.verb == "list":
        _list(device, as_json=arguments.json)
    else:
        _get(device, arguments)
    return 0


def _list(device: "Device", as_json: bool) -> None:
    from mpagent.output import put_json, put_line
    from mpagent.report import list_slots

    record, _ = device.journal(lambda _text: None).peek()
    slots = list_slots(device.disk, record.generation)
    if as_json:
        put_json(slots)
        return
    for one in slots:
        put_line(f"{one['name']:<24} {one['kind']:<12} {one['destination']:<11} version {one['version']}")


def _get(device: "Device", arguments: Namespace) -> None:
    from mpagent.credentials.source import unlock
    from mpagent.memoryfile import write_secret
    from mpagent.output import put_bytes
    from mpwire.guard import guard

    if arguments.output is None and not arguments.hex and sys.stdout is not None and sys.stdout.isatty():
        arguments.parser.error("standard output is a terminal: a secret is not shown there; use --hex, or a pipe")
    guard()
    unlocked, _ = unlock(device)
    if arguments.name not in unlocked.names:
        arguments.parser.error(f"no secret {arguments.name!r} here; there are: {', '.join(sorted(unlocked.names))}")
    value = unlocked.read(arguments.name).value
    content = value.reveal().hex().encode() + b"\n" if arguments.hex else value.reveal()
    if arguments.output is None:
        put_bytes(content)
    else:
        write_secret(arguments.output, content)
