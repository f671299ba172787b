"""mpsim: simulated i.MX8M boards and PIV cards in folders."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NoReturn

from mpsim import board, faults, fuses, silicon
from mpsim.piv import memory, vpcd
from mpwire.errors import MpError

USAGE: Final = 64
"""EX_USAGE."""
UNREADABLE: Final = 74
"""EX_IOERR."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and leaves with EX_USAGE."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes are those of sysexits.h: 0, 64 usage, 73 cannot make, 74 cannot read or write."""
    options = build_parser().parse_args(arguments)
    try:
        answer: dict[str, object] = options.run(options)
    except MpError as error:
        print(f"mpsim: {error}", file=sys.stderr)
        return error.exit_code
    try:
        print(json.dumps(answer) if options.json else _as_text(answer), flush=True)
    except OSError as error:
        print(f"mpsim: cannot write the output: {error.strerror}", file=sys.stderr)
        return UNREADABLE
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(prog="mpsim", description="Simulated i.MX8M boards in folders. For tests and labs only.")
    parser.add_argument("--version", action="version", version=f"mpsim {_version()}")
    words = parser.add_subparsers(required=True, metavar="COMMAND")
    verbs = words.add_parser("board", help="make, show and change a board").add_subparsers(
        required=True, metavar="VERB"
    )
    _add_new(verbs)
    for name, run, text in (
        ("show", _show, "print fuses, life cycle and MP key id"),
        ("close", _close, "blow the closed fuse; the running boot stays open"),
        ("power-cycle", _power_cycle, "boot anew: the life cycle is latched from the fuses"),
    ):
        verb = verbs.add_parser(name, help=text)
        _finish(verb, run)
    fault = verbs.add_parser("fault", help="script what the next calls of a chip verb meet")
    _finish(fault, _fault)
    fault.add_argument("verb", choices=faults.VERBS)
    fault.add_argument("accidents", nargs="+", type=faults.Fault, metavar="FAULT", help=", ".join(faults.Fault))
    key = words.add_parser("mp-key", help="print the class MP public key of a part and SRK hash, for registration")
    key.add_argument("--part", required=True, choices=sorted(fuses.LAYOUTS))
    _add_srk(key)
    key.add_argument("--test", action="store_true", help="the public test key that open parts sign with")
    key.add_argument("--json", action="store_true")
    key.set_defaults(run=_mp_key)
    _add_card(words)
    return parser


def _add_card(words: "argparse._SubParsersAction[_Parser]") -> None:
    verbs = words.add_parser("card", help="make and insert a virtual PIV card").add_subparsers(
        required=True, metavar="VERB"
    )
    new = verbs.add_parser("new", help="make a card with keys 9A, 9C and 9D and an issuer of its own")
    _finish(new, _card_new)
    new.add_argument("--pin", type=_pin, default=memory.DEFAULT_PIN, help="6 to 8 digits; left out: %(default)s")
    run = verbs.add_parser("run", help="hold the card in vpcd's virtual reader until it is ended")
    _finish(run, _card_run)
    run.add_argument("--host", default="127.0.0.1", help="where vpcd listens: %(default)s")
    run.add_argument("--port", type=int, default=vpcd.PORT, help="left out: %(default)s")


def _add_new(verbs: "argparse._SubParsersAction[_Parser]") -> None:
    new = verbs.add_parser("new", help="make a board")
    _finish(new, _new)
    new.add_argument("--part", required=True, choices=sorted(fuses.LAYOUTS))
    _add_srk(new)
    new.add_argument("--uid", type=_hex(fuses.UID_BYTES), help="16 hex digits, as serial_number prints them")
    new.add_argument("--closed", action="store_true", help="fuse blown and booted closed")
    new.add_argument("--mpmr", choices=sorted(silicon.MPMR_VALUES), default="optee", help="who filled the MPMR")
    new.add_argument("--no-unlock-mfg", action="store_true", help="the CSF lacks Unlock CAAM MFG")
    new.add_argument("--revision", type=_revision, help='"major.minor"; an imx8mq with minor 0 has no MP')


def _add_srk(parser: argparse.ArgumentParser) -> None:
    srk = parser.add_mutually_exclusive_group()
    srk.add_argument("--srk", type=_hex(fuses.SRK_HASH_BYTES), metavar="HEX32", help="SRK hash, 64 hex digits")
    srk.add_argument(
        "--srk-name", default=board.DEFAULT_SRK_NAME, metavar="NAME", help="an imagined key set: %(default)s"
    )


def _finish(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], dict[str, object]]) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def _hex(size_bytes: int) -> Callable[[str], bytes]:
    def read(text: str) -> bytes:
        if not re.fullmatch(f"[0-9A-Fa-f]{{{2 * size_bytes}}}", text):
            raise argparse.ArgumentTypeError(f"{2 * size_bytes} hex digits wanted")
        return bytes.fromhex(text)

    return read


def _revision(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,2}\.[0-9]{1,2}", text):
        raise argparse.ArgumentTypeError('"major.minor" wanted')
    return text


def _srk_hash(options: argparse.Namespace) -> bytes:
    chosen: bytes | None = options.srk
    return chosen if chosen is not None else fuses.srk_hash_of(options.srk_name)


def _new(options: argparse.Namespace) -> dict[str, object]:
    plan = board.BoardPlan(
        part=options.part,
        srk_hash=_srk_hash(options),
        uid=options.uid,
        closed=options.closed,
        mpmr=options.mpmr,
        unlock_mfg=not options.no_unlock_mfg,
        revision=options.revision,
    )
    board.make_board(options.folder, plan)
    return _show(options)


def _show(options: argparse.Namespace) -> dict[str, object]:
    return board.show(options.folder / "chip")


def _close(options: argparse.Namespace) -> dict[str, object]:
    board.close_fuse(options.folder / "chip")
    return _show(options)


def _power_cycle(options: argparse.Namespace) -> dict[str, object]:
    board.power_cycle(options.folder / "chip")
    return _show(options)


def _fault(options: argparse.Namespace) -> dict[str, object]:
    faults.script(options.folder / "chip", options.verb, options.accidents)
    return {"verb": options.verb, "faults": [str(fault) for fault in options.accidents]}


def _mp_key(options: argparse.Namespace) -> dict[str, object]:
    record = board.test_key_record if options.test else board.mp_key_record
    return dict(record(options.part, _srk_hash(options)))


def _card_new(options: argparse.Namespace) -> dict[str, object]:
    authority = memory.CardAuthority()
    memory.make_card(options.folder, authority, pin=options.pin)
    return {"folder": str(options.folder), "pin": options.pin, "issuer": authority.pem}


def _card_run(options: argparse.Namespace) -> dict[str, object]:
    memory.load(options.folder)
    try:
        vpcd.run_card(options.folder, options.port, options.host)
    except OSError as error:
        raise vpcd.NoReader(f"no vpcd at {options.host}:{options.port}: {error.strerror}") from error
    return {"folder": str(options.folder), "ended": "taken out"}


def _pin(text: str) -> str:
    if not re.fullmatch("[0-9]{6,8}", text):
        raise argparse.ArgumentTypeError("6 to 8 digits wanted")
    return text


def _as_text(answer: dict[str, object]) -> str:
    width = max(len(name) for name in answer)
    return "\n".join(f"{name:<{width}}  {'-' if value is None else value}" for name, value in answer.items())


def _version() -> str:
    try:
        return version("mpagent-sim")
    except PackageNotFoundError:
        return "from source"
