"""mpagent enroll: from wherever this board stands to provisioned, or a live proof that it is."""

import os
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from mpwire.errors import MpError

if TYPE_CHECKING:
    from mpagent.compose import Device
    from mpagent.hal.ports import Board
    from mpagent.progress import Progress
    from mpagent.record import Record

ABOUT = "provision this board, or show that it is provisioned"


def configure(parser: ArgumentParser) -> None:
    """Options of this command."""
    waiting = parser.add_mutually_exclusive_group()
    waiting.add_argument("--once", action="store_true", help="try once; do not wait for a server or a pending answer")
    waiting.add_argument("--wait", action="store_true", help="try again while time can help (default)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(arguments: Namespace) -> int:
    """One line on standard output, PASS or FAIL, or one JSON object; progress on standard error."""
    from mpagent.output import put_json, put_line
    from mpwire.guard import guard

    guard()
    result: dict[str, Any] = {"result": "FAIL"}
    start = time.monotonic()
    code = 0
    try:
        _enroll(arguments, result)
        result["result"] = "PASS"
    except MpError as error:
        if not arguments.json:
            _put_failed(error)
            raise
        result["error"] = _describe_error(error)
        code = error.exit_code
    result["seconds"] = round(time.monotonic() - start, 3)
    if arguments.json:
        put_json(result)
    else:
        put_line(f"PASS {result['ueid']} {len(result['slots'])} slots, ledger index {result['ledger_index']}")
    return code


def _put_failed(error: MpError) -> None:
    """A reader that is gone must not hide the failure itself, which standard error and the exit code tell."""
    from mpagent.errors import StorageFull
    from mpagent.output import put_line

    try:
        put_line(f"FAIL {getattr(error, 'check', type(error).__name__)}")
    except StorageFull:
        return


def _enroll(arguments: Namespace, result: dict[str, Any]) -> None:
    """Fills `result` with what is known so far, so that a failure reports it too."""
    import sys

    from mpagent.compose import read_device
    from mpagent.progress import Progress

    device = read_device(arguments.root)
    result["product"] = device.image.product
    progress = Progress(sys.stderr, time.monotonic, silent=device.settings.log == "error")
    with device.hold("enroll"), device.open_board() as board:
        try:
            _attempt(device, board, progress, once=arguments.once)
        finally:
            record, damages = device.journal(progress).peek()
            result.update(_describe(device, board, record), damaged=list(damages))
        result["attester"] = _describe_attester(board)


def _attempt(device: "Device", board: "Board", progress: "Progress", once: bool) -> None:
    from mpagent.enrollment import Tools
    from mpagent.link import HttpsLink
    from mpagent.runner import Parts, Patience, run, run_patiently
    from mpagent.version import VERSION

    journal, vault = device.journal(progress), device.vault(board)
    link = HttpsLink(lambda: device.route(journal.peek()[0]), time.monotonic)
    tools = Tools(board, vault, device.image, os.urandom, VERSION, progress)
    parts = Parts(journal, link, device.latch, tools, vault.discard_others)
    try:
        if once:
            run(parts)
        else:
            limit_s = device.settings.wait_limit_s
            run_patiently(lambda: run(parts), Patience(time.sleep, time.monotonic, os.urandom, progress, limit_s))
    finally:
        link.close()


def _describe(device: "Device", board: "Board", record: "Record") -> dict[str, Any]:
    from mpagent.report import describe_record, find_slots

    return {
        **describe_record(record),
        "sealer": board.sealer.name,
        "slots": find_slots(device.disk, record.generation)[0],
    }


def _describe_attester(board: "Board") -> dict[str, str]:
    material = board.attester.describe()
    return {"kind": material.kind, "id": material.attester_id.hex()}


def _describe_error(error: MpError) -> dict[str, Any]:
    from mpagent.advice import advise

    return {
        "check": getattr(error, "check", type(error).__name__),
        "text": str(error),
        "next": advise(error),
        "retry": error.retry.value,
        "exit_code": error.exit_code,
    }
