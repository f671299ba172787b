"""mpagent status: what this board is, from its state partition alone."""

from argparse import ArgumentParser, Namespace
from typing import Any

ABOUT = "say how far this board is; needs no network and no chip"


def configure(parser: ArgumentParser) -> None:
    """Options of this command."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: Namespace) -> int:
    """Exit code 0 whatever the state is: this command reports, `enroll` judges."""
    from mpagent.output import put_json, put_line

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
    return 0


def _look(arguments: Namespace) -> dict[str, Any]:
    from mpagent import lock
    from mpagent.compose import read_device
    from mpagent.report import describe_record, find_slots

    device = read_device(arguments.root)
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
    }
