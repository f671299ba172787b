"""mpagent finish: what comes after enrollment, by the order it gave: disk encryption, production image, reboot."""

import sys
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpagent.compose import Device

ABOUT = "encrypt the disk and install the production image, as the signed image and the Grant say"


def configure(parser: ArgumentParser) -> None:
    """Options of this command. None of them names a device, a file or a server."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    run_it = verbs.add_parser("run", help="carry out this boot's order (root; mpagent-finish.service)")
    run_it.add_argument("--dry-run", action="store_true", help="check all of it and write nothing")
    show = verbs.add_parser("show", help="what the image asks for and how far it is; needs no chip")
    show.add_argument("--json", action="store_true", help="print one JSON object")
    verbs.add_parser("fetch", help="serve one range of the image on standard input and output (mpagent-fetch@.service)")


def run(arguments: Namespace) -> int:
    """Each verb reads all of the configuration first."""
    from mpagent.compose import read_device

    device = read_device(arguments.root)
    if arguments.verb == "fetch":
        _fetch(device)
    elif arguments.verb == "show":
        _show(device, as_json=arguments.json)
    else:
        _run(device, is_dry=arguments.dry_run)
    return 0


def _run(device: "Device", is_dry: bool) -> None:
    from mpagent import lock
    from mpagent.finish.finisher import carry_out, make_plan
    from mpagent.output import put_line
    from mpagent.progress import Progress
    from mpwire.guard import guard

    if device.image.finish is None:
        put_line("DONE this image asks for nothing after enrollment")
        return
    guard()
    progress = Progress(sys.stderr, time.monotonic, silent=device.settings.log == "error")
    with lock.hold(device.places.state, "finish"):  # without prepare(): the folder is not root's to clean
        device.latch.check()
        with device.open_board() as board:
            plan = make_plan(device, board)
        if is_dry:
            put_line(f"WOULD {', '.join(plan.verbs)}")
            return
        done = carry_out(device, plan, progress)
    put_line(f"DONE {', '.join(done) or 'before'}")


def _show(device: "Device", as_json: bool) -> None:
    from mpagent.output import put_json, put_line

    found = _look(device)
    if as_json:
        put_json(found)
        return
    for name, value in found.items():
        put_line(f"{name:<10} {'-' if value is None else value}")


def _look(device: "Device") -> dict[str, Any]:
    from mpagent.finish.notes import read_notes
    from mpagent.finish.order import list_verbs

    choice = device.image.finish
    if choice is None:
        return {"verbs": None}
    notes = read_notes(device.places.state)
    return {
        "verbs": ", ".join(list_verbs(choice)),
        "luks": choice.luks,
        "encrypted": notes.volume,
        "target": choice.target,
        "image": None if notes.digest is None else notes.digest.hex(),
        "written": notes.written,
        "installed": notes.installed,
        "retires": choice.boot_old,
    }


def _fetch(device: "Device") -> None:
    """The connection is standard input and output, as a socket unit with Accept=yes hands it over."""
    from mpagent.finish.download import make_download
    from mpagent.finish.fetch import serve

    record = device.journal(lambda _text: None).peek()[0]
    serve(0, 1, make_download(device.route(record), time.monotonic))
