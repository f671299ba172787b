"""mpagent enroll: from wherever this board stands to provisioned, or a live proof that it is."""

import os
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from mpwire.errors import MpError

if TYPE_CHECKING:
    from mpagent.compose import Device
    from mpagent.hal.ports import Board
    from mpagent.herald import Herald
    from mpagent.record import Record

ABOUT = "provision this board, or show that it is provisioned"


def configure(parser: ArgumentParser) -> None:
    """Options of this command."""
    waiting = parser.add_mutually_exclusive_group()
    waiting.add_argument("--once", action="store_true", help="try once; do not wait for a server or a pending answer")
    waiting.add_argument("--wait", action="store_true", help="try again while time can help (default)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(arguments: Namespace) -> int:
    """One line on standard output, PASS or FAIL, or one JSON object; progress on standard error or in the journal.

    Started by systemd it says READY=1 at the very end of a PASS, and nothing before.
    """
    from mpagent.advice import describe
    from mpagent.compose import Places
    from mpagent.herald import open_herald
    from mpagent.output import put_json
    from mpwire.guard import guard

    guard()
    result: dict[str, Any] = {"result": "FAIL"}
    herald = open_herald(Places(arguments.root).run)
    try:
        _run(arguments, result, herald)
    except MpError as error:
        herald.fail(error, arguments.debug)
        if arguments.json:
            put_json({**result, "result": "FAIL", "error": describe(error)})
            return error.exit_code
        _put_failed(error)
        if herald.in_journal:
            return error.exit_code
        raise
    except BaseException as cause:
        herald.break_off(cause)
        raise
    herald.release()
    return 0


def _run(arguments: Namespace, result: dict[str, Any], herald: "Herald") -> None:
    """To the end of a PASS that somebody could read."""
    from mpagent.output import put_json, put_line

    start = time.monotonic()
    try:
        _enroll(arguments, result, herald)
    finally:
        result["seconds"] = round(time.monotonic() - start, 3)
    result["result"] = "PASS"
    proof = result.get("standing") or f"ledger index {result['ledger_index']}"
    herald.succeed(f"{len(result['slots'])} slots unsealed in this boot, {proof}")
    if arguments.json:
        put_json(result)
    else:
        put_line(f"PASS {result['ueid']} {len(result['slots'])} slots, {proof}")


def _put_failed(error: MpError) -> None:
    """A reader that is gone must not hide the failure itself, which standard error and the exit code tell."""
    from mpagent.errors import StorageFull
    from mpagent.output import put_line

    try:
        put_line(f"FAIL {getattr(error, 'check', type(error).__name__)}")
    except StorageFull:
        return


def _enroll(arguments: Namespace, result: dict[str, Any], herald: "Herald") -> None:
    """Fills `result` with what is known so far, so that a failure reports it too."""
    from mpagent.compose import read_device

    device = read_device(arguments.root)
    result["product"] = device.image.product
    herald.begin(device.image.product, silent=device.settings.log == "error")
    with device.hold("enroll"), device.open_board() as board:
        try:
            if device.image.mp_use == "secret":
                result.update(_attempt_offline(device, board, herald, once=arguments.once))
            else:
                _attempt(device, board, herald, once=arguments.once)
        finally:
            record, damages = device.journal(herald).peek()
            result.update(_describe(device, board, record), damaged=list(damages))
        result["attester"] = _describe_attester(board)


def _attempt(device: "Device", board: "Board", herald: "Herald", once: bool) -> None:
    from mpagent.enrollment import Tools
    from mpagent.herald import Watched
    from mpagent.link import HttpsLink
    from mpagent.runner import Parts, Patience, run, run_patiently
    from mpagent.version import VERSION

    journal, vault = device.journal(herald), device.vault(board)
    link = HttpsLink(lambda: device.route(journal.peek()[0]), time.monotonic)
    tools = Tools(board, vault, device.image, os.urandom, VERSION, herald)
    parts = Parts(Watched(journal, herald.note), link, device.latch, tools, vault.discard_others)
    try:
        if once:
            run(parts)
        else:
            patience = Patience(herald.sleep, time.monotonic, os.urandom, herald.wait, device.settings.wait_limit_s)
            run_patiently(lambda: herald.attempt(lambda: run(parts)), patience)
    finally:
        link.close()
    _order(device, board)


def _attempt_offline(device: "Device", board: "Board", herald: "Herald", once: bool) -> dict[str, Any]:
    """By bundles, which are waited for as a server is (docs/wire.md 11.4)."""
    from mpagent.herald import Watched
    from mpagent.offline.compose import make_parts
    from mpagent.offline.pickup import Result, pick_up
    from mpagent.offline.telling import describe_result
    from mpagent.runner import Patience, run_patiently

    journal = Watched(device.journal(herald), herald.note)
    parts = make_parts(device, board, journal, herald, ())
    found: list[Result] = []

    def attempt() -> "Record":
        found.append(pick_up(parts))
        return found[-1].record

    if once:
        attempt()
    else:
        patience = Patience(herald.sleep, time.monotonic, os.urandom, herald.wait, device.settings.wait_limit_s)
        run_patiently(lambda: herald.attempt(attempt), patience)
    _order(device, board)
    return describe_result(found[-1])


def _order(device: "Device", board: "Board") -> None:
    """Every secret was unsealed just now: where the image asks for more, the finisher may act in this boot."""
    choice = device.image.finish
    if choice is None:
        return
    from mpagent.finish.order import write_order

    record = device.journal(lambda _text: None).peek()[0]
    assert record.ueid is not None  # a run that passed names its chip
    keys = device.vault(board).unlock(record.ueid, record.generation)
    write_order(device.disk, record, choice, keys, device.places.root)


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
