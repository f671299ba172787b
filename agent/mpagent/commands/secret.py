"""mpagent secret: the way out for one secret, unsealed by this chip at this moment."""

import sys
from argparse import ArgumentParser, Namespace
from collections import deque
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpagent.compose import Device
    from mpagent.slots import VaultSlot

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
    slot = unlocked.read(arguments.name)
    if slot.kind == "update-key":
        arguments.parser.error(f"{arguments.name!r} is the key of an update authority, which nobody but mpagent uses")
    chunks = _read_file(device, slot) if slot.kind == "file" else iter((slot.value.reveal(),))
    if arguments.hex:
        chunks = chain((chunk.hex().encode() for chunk in chunks), (b"\n",))
    if arguments.output is not None:
        write_secret(arguments.output, chunks)
        return
    for chunk in chunks:
        put_bytes(chunk)


def _read_file(device: "Device", slot: "VaultSlot") -> "Iterator[bytes]":
    """A file of a bundle, read whole once before its first byte is given out. Raises Damaged."""
    from mpagent.offline.files import read_file, read_note

    note = read_note(slot)
    deque(read_file(device.disk, note), maxlen=0)
    return read_file(device.disk, note)
