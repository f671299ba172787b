"""mpagent status: what this board is, from its state partition, and how the last run of this boot stands."""

import sys
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpagent.standing import Standing

ABOUT = "say how far this board is; needs no network and no chip"


def configure(parser: ArgumentParser) -> None:
    """Options of this command."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print one JSON object")
    how.add_argument("--watch", action="store_true", help="follow the run to its PASS or FAIL, and end as it did")


def run(arguments: Namespace) -> int:
    """Exit code 0 whatever the state is: this command reports, `enroll` judges. With --watch, the run's own."""
    from mpagent.output import put_json, put_line

    if arguments.watch:
        return _watch(arguments)
    found = _look(arguments)
    if arguments.json:
        put_json(found)
        return 0
    slots = ", ".join(one["name"] for one in found["slots"]) or "none"
    put_line(f"stage         {found['stage']}")
    put_line(f"ueid          {found['ueid'] or 'not known yet'}")
    put_line(f"product       {found['product']} ({found['realm']})")
    put_line(f"job           {found['job'] or '-'}")
    put_line(f"slots         {slots}")
    put_line(f"ledger index  {'-' if found['ledger_index'] is None else found['ledger_index']}")
    for name in ("latched", "running"):
        if found[name] is not None:
            put_line(f"{name:<13} {found[name]}")
    for damage in found["damaged"]:
        put_line(f"damaged       {damage}")
    last = found["last_run"]
    if last is not None:
        reason = " ".join(one for one in (last["check"], last["text"]) if one)
        put_line(f"last run      {last['state']}: {reason}" + (f". Next: {last['next']}" if last["next"] else ""))
    return 0


def _watch(arguments: Namespace) -> int:
    """A picture that is drawn again on a terminal, and on a pipe a line for each change."""
    from mpagent.compose import Places
    from mpagent.face.show import SHOW_CURSOR, find_console, follow, has_ended, read_serial, write_line, write_picture
    from mpagent.output import put_bytes, put_line
    from mpagent.standing import StandingFile

    console = None if sys.stdout is None else find_console(sys.stdout.fileno(), None)
    file, standing = StandingFile(Places(arguments.root).run), None
    try:
        for standing in follow(file, time.sleep):
            if console is None:
                put_line(write_line(standing))
            else:
                put_bytes(write_picture(standing, read_serial(arguments.root), console).encode())
            if has_ended(standing):
                break
    finally:
        if console is not None:
            put_line(SHOW_CURSOR)
    return 0 if standing is None else standing.exit_code


def _look(arguments: Namespace) -> dict[str, Any]:
    from mpagent import lock
    from mpagent.compose import read_device
    from mpagent.report import describe_record, find_slots
    from mpagent.standing import StandingFile

    device = read_device(arguments.root)
    last = StandingFile(device.places.run).read()
    record, damages = device.journal(lambda _text: None).peek()
    slots, vault_damages = find_slots(device.disk, record.generation)
    return {
        **describe_record(record),
        "product": device.image.product,
        "realm": device.image.realm,
        "slots": slots,
        "latched": device.latch.reason(),
        "running": lock.read_holder(device.places.state),
        "damaged": [*damages, *vault_damages],
        "last_run": None if last is None else _describe(last),
    }


def _describe(last: "Standing") -> dict[str, Any]:
    """Of this boot; `status` needs no more of it than what `face` does not show from the record."""
    names = ("state", "check", "text", "next", "run", "exit_code", "since_s")
    return {name: getattr(last, name) for name in names}
