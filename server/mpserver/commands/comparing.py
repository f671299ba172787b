"""mpserver mp compare, answers: is the MP key one per class or one per device? Two boards of one product tell."""

import argparse
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from mpissuer.policy import MPK_ID_BYTES
from mpserver.console import LOG_MAX_BYTES, read_console
from mpserver.errors import LogWrong, NeedsPerson, Usage
from mpserver.handed import read_file, read_hex
from mpserver.mpfinding import load_key, weigh
from mpserver.mpuse import is_secret, name_key
from mpserver.office import Office
from mpserver.output import Shown
from mpserver.state import Places, State, open_ledger, open_state
from mpwire.errors import Malformed


def configure_compare(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("one", metavar="A", help="a board's log, its key in hex, or its key's id")
    parser.add_argument("other", metavar="B", help="the same of another board with the same part and SRK fuses")
    parser.add_argument("--product", required=True)
    parser.add_argument("--mp-use", choices=("sign", "secret"), default="sign", help="secret: record no SHA-256 of it")
    parser.set_defaults(run=compare_keys)


def compare_keys(options: argparse.Namespace) -> Shown:
    """Recorded in the ledger; both answers stand there if two were found."""
    told = _read_board(options.one), _read_board(options.other)
    if options.one == options.other:
        raise Usage("the same board twice says nothing: name another board's log or key")
    state = open_state(options.dir)
    try:
        one, other = _name_boards(state, told, options.mp_use)
        verdict = "class" if one == other else "device"
        before = _read_verdicts(state, options.product)
        Office(state).record_comparison(options.product, verdict, one, other)
    finally:
        state.close()
    means = {
        "class": f"both boards have the MP key {one.hex()}: one per class (part type and SRK set) on {options.product}",
        "device": "the two boards have different MP keys: one per device, or the boards differ in part type, SRK fuses"
        " or life cycle; compare two that do not before mp_keys lists each board",
    }
    lines = [f"{verdict}: {means[verdict]}", "recorded in the ledger"]
    if before - {verdict}:
        lines.append(f"note: an earlier comparison for {options.product} said {', '.join(before - {verdict})}")
    value = {"product": options.product, "verdict": verdict, "one": one.hex(), "other": other.hex()}
    return Shown({**value, "earlier": sorted(before)}, "\n".join(lines))


def _name_boards(state: State, told: "tuple[_Board, _Board]", mp_use: str) -> tuple[bytes, bytes]:
    """Both ids of one sort: SHA-256 of keys that sign, and of a secret the id that is no digest of it."""
    names = [None if one.key is None or len(one.key) != 64 else name_key(one.key) for one in told]
    hidden = [name for name in names if name is not None and is_secret(state, name)]
    if mp_use == "secret" or hidden or any(len(one.key_id) == MPK_ID_BYTES for one in told):
        ids = [name or one.key_id for name, one in zip(names, told, strict=True)]
        if any(len(one) != MPK_ID_BYTES for one in ids):
            raise Usage("a key that is a secret is compared by its log, its key or its 32 digits of `mp vault list`")
        return ids[0], ids[1]
    return told[0].key_id, told[1].key_id


def _read_verdicts(state: State, product: str) -> set[str]:
    rows: Iterable[tuple[str]] = state.connection.execute(
        "SELECT DISTINCT verdict FROM mp_comparisons WHERE product = ?", (product,)
    )
    return {verdict for (verdict,) in rows}


def show_answers(options: argparse.Namespace) -> Shown:
    """Oldest first."""
    connection = open_ledger(Places(options.dir))
    try:
        rows = connection.execute("SELECT product, verdict, one, other, at FROM mp_comparisons ORDER BY id").fetchall()
    finally:
        connection.close()
    value = [
        {"product": product, "verdict": verdict, "one": one.hex(), "other": other.hex(), "at": at}
        for product, verdict, one, other, at in rows
    ]
    return Shown(value, "" if value else "nothing was compared yet: mpserver mp compare A B --product NAME")


class _Board(NamedTuple):
    """A board's MP key, or its id alone."""

    key: bytes | None
    key_id: bytes


def _read_board(told: str) -> _Board:
    """Out of a board's log, its key or the id itself."""
    raw = read_hex(told)
    if raw is not None and len(raw) in (32, MPK_ID_BYTES):
        return _Board(None, raw)
    if raw is not None:
        return _Board(raw[-64:] if len(raw) in (64, 65) else raw, id_of(raw))
    console = read_console(read_file(Path(told), LOG_MAX_BYTES))
    found = weigh(console)
    if found.key is None or found.key_id is None:
        raise LogWrong(f"{told}: no whole public key is in the log")
    if console.is_open:
        raise NeedsPerson(f"{told}: the log is of an open part, and open parts share one test key: close it first")
    return _Board(found.key, found.key_id)


def id_of(raw: bytes) -> bytes:
    """SHA-256 of X || Y, with its 04 or without. Raises Usage."""
    try:
        point = raw[1:] if len(raw) in (65, 97) and raw[0] == 4 else raw
        load_key(point)
    except Malformed as error:
        raise Usage(str(error)) from None
    return sha256(point).digest()
