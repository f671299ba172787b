"""mpagent offline: provisioning by bundles, on a line without a network."""

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpwire.errors import MpError

if TYPE_CHECKING:
    from mpagent.compose import Device
    from mpagent.offline.jobsecrets import Reader
    from mpagent.offline.pickup import Outcome, Result

ABOUT = "take a bundle that was flashed with the image, or say how the board stands with bundles"


def configure(parser: ArgumentParser) -> None:
    """Options of this command. A job secret is never one of them: it would stand in the list of processes."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    apply = verbs.add_parser("apply", help="check a bundle, open it, seal what it holds, write the receipt")
    apply.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="a file, or a block device that begins with a bundle"
    )
    apply.add_argument("--dry-run", action="store_true", help="check and open all of it, and store nothing")
    apply.add_argument("--json", action="store_true", help="print one JSON object")
    secret = apply.add_mutually_exclusive_group()
    secret.add_argument("--job-secret-file", type=Path, metavar="FILE", help="a file of one line with the job secret")
    secret.add_argument(
        "--job-secret-prompt", action="store_true", help="have it scanned or typed at this terminal, without echo"
    )
    status = verbs.add_parser("status", help="which bundles count on this board; asks the chip")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    receipts = verbs.add_parser(
        "receipts", help="write the receipts kept on this board, joined, as the OEM imports them"
    )
    receipts.add_argument("--output", type=Path, metavar="FILE", help="to a file instead of standard output")


def run(arguments: Namespace) -> int:
    """Each verb reads all of the configuration first."""
    from mpagent.compose import read_device

    device = read_device(arguments.root)
    _check_image(device)
    if arguments.verb == "apply":
        return _apply_and_tell(arguments, device)
    if arguments.verb == "status":
        _status(device, as_json=arguments.json)
    else:
        _write_receipts(arguments, device)
    return 0


def _apply_and_tell(arguments: Namespace, device: "Device") -> int:
    """With --json a failure is an object as well, and its text is not said twice."""
    from mpagent.advice import describe
    from mpagent.output import put_json

    try:
        _apply(arguments, device)
    except MpError as error:
        if not arguments.json:
            raise
        put_json({"result": "FAIL", "error": describe(error)})
        return error.exit_code
    return 0


def _check_image(device: "Device") -> None:
    from mpagent.errors import ConfigWrong

    if device.image.mp_use != "secret":
        raise ConfigWrong(f'{device.places.anchors}: this image does not say mp_use = "secret", so it takes no bundles')


def _apply(arguments: Namespace, device: "Device") -> None:
    from mpagent.offline.compose import make_parts
    from mpagent.offline.pickup import apply_one, try_one
    from mpagent.progress import Progress
    from mpwire.guard import guard

    readers = _find_readers(arguments)
    guard()
    progress = Progress(sys.stderr, time.monotonic, silent=device.settings.log == "error")
    with device.hold("offline"), device.open_board() as board:
        journal = device.journal(progress)
        parts = make_parts(device, board, journal, progress, readers)
        if arguments.dry_run:
            _tell_trial(arguments, try_one(parts, journal.peek()[0], arguments.bundle))
        else:
            _tell(arguments, apply_one(parts, arguments.bundle))


def _find_readers(arguments: Namespace) -> "list[Reader]":
    from mpagent.offline.jobsecrets import from_file, from_person

    if arguments.job_secret_file is not None:
        return [from_file(arguments.job_secret_file, required=True)]
    if not arguments.job_secret_prompt:
        return []
    if sys.stdin is None or not sys.stdin.isatty():
        arguments.parser.error("--job-secret-prompt needs a terminal as standard input; use --job-secret-file")
    return [from_person(_ask, _complain)]


def _ask(prompt: str) -> str:
    """One line of the terminal, not echoed. A scanner that acts as a keyboard ends it with Enter."""
    from getpass import getpass

    try:
        return getpass(prompt, stream=sys.stderr)
    except EOFError:
        return ""


def _complain(text: str) -> None:
    sys.stderr.write(f"mpagent: {text}\n")
    sys.stderr.flush()


def _tell_trial(arguments: Namespace, outcome: "Outcome") -> None:
    from mpagent.offline.telling import describe_outcome, write_outcome
    from mpagent.output import put_json, put_line

    if arguments.json:
        put_json({"result": "WOULD", **describe_outcome(outcome)})
    else:
        put_line(f"WOULD {write_outcome(outcome)}")


def _tell(arguments: Namespace, result: "Result") -> None:
    from mpagent.offline.telling import describe_outcome, describe_result, write_outcome
    from mpagent.output import put_json, put_line

    (outcome,) = result.outcomes
    ueid = "" if result.record.ueid is None else result.record.ueid.hex()
    whole: dict[str, Any] = {"result": "APPLIED", "ueid": ueid, **describe_outcome(outcome), **describe_result(result)}
    if arguments.json:
        put_json(whole)
        return
    trouble = f"; receipt not exported: {result.not_exported}" if result.not_exported else ""
    put_line(f"APPLIED {ueid} {write_outcome(outcome)}{trouble}")


def _status(device: "Device", as_json: bool) -> None:
    from mpagent.credentials.source import unlock
    from mpagent.errors import ConfigWrong
    from mpagent.offline.facts import read_facts
    from mpagent.offline.receipts import read_receipts
    from mpagent.output import put_json, put_line
    from mpwire.guard import guard

    guard()
    facts = read_facts(unlock(device)[0].read_facts())
    if facts is None:
        raise ConfigWrong('this board was enrolled over a line, and its image says mp_use = "secret"')
    found: dict[str, Any] = {
        "job": facts.job,
        "authorities": {
            name: {"version": one.version, "minimum": one.minimum} for name, one in sorted(facts.taken.items())
        },
        "rights": dict(sorted(facts.rights.items())),
        "class_key": None if facts.mpk_id is None else f"mpk-{facts.mpk_id.hex()}",
        "receipts": sorted(read_receipts(device.disk)),
    }
    if as_json:
        put_json(found)
        return
    put_line(f"job           {facts.job}")
    for name, one in found["authorities"].items():
        put_line(f"{name:<13} version {one['version']}, none below {one['minimum']}")
    for slot, owner in found["rights"].items():
        put_line(f"slot          {slot} is {owner}'s")
    put_line(f"class key     {found['class_key'] or '-'}")
    for name in found["receipts"]:
        put_line(f"receipt       {name}")


def _write_receipts(arguments: Namespace, device: "Device") -> None:
    from mpagent.errors import StorageFull
    from mpagent.offline.receipts import read_receipts
    from mpagent.output import put_bytes

    rows = b"".join(row for _, row in sorted(read_receipts(device.disk).items()))
    if arguments.output is None:
        if sys.stdout is not None and sys.stdout.isatty():
            arguments.parser.error("standard output is a terminal: receipts are binary; use --output, or a pipe")
        put_bytes(rows)
        return
    fresh = arguments.output.with_name(f".{arguments.output.name}.new-{os.getpid()}")
    try:
        fresh.write_bytes(rows)
        os.replace(fresh, arguments.output)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise StorageFull(f"cannot write {arguments.output}: {error.strerror}; name a file that can be made") from error
