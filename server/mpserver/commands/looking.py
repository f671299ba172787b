"""mpserver device, ledger, inspect: what happened."""

import argparse
import hashlib
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpserver.boards import OFFLINE, describe_board, describe_receipts, find_newest, list_boards, list_names
from mpserver.conflicts import find_conflicts
from mpserver.errors import NeedsPerson, StateBroke, StoreDamaged, Usage
from mpserver.keystore import Keystore
from mpserver.output import Shown
from mpserver.roots import read_root_points
from mpserver.state import Places, open_ledger
from mpserver.store.audit import ENTRY_MAX_BYTES, verify_ledger
from mpserver.store.books import find_unit
from mpserver.store.bundles import list_bundles
from mpserver.store.database import explained, read_fact
from mpserver.store.decisions import check_decisions
from mpserver.store.lasthead import LastHead, LastHeadFile
from mpserver.store.receipts import KIND
from mpwire.cose import read_sign1
from mpwire.errors import Malformed
from mpwire.inspection import INSPECTED_MAX_BYTES, describe_message, inspect_message
from mpwire.labels import TYP_RECEIPT
from mpwire.limits import CLOSED_MAX_BYTES, RECEIPT_MAX_BYTES
from mpwire.messages.grant import RECEIPT
from mpwire.messages.issuer import ENTRY
from mpwire.messages.plain import CLOSED
from mpwire.trust import ES256_ONLY

PAGE = 50


def add_device(parser: argparse.ArgumentParser) -> None:
    """Verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="every board that was granted something, or sent a receipt").set_defaults(
        run=device_list
    )
    show = verbs.add_parser("show", help="one board, with alarms about it")
    show.add_argument("ueid", help="66 hex digits, or the first of them")
    show.add_argument("--receipt", type=Path, metavar="FILE", help="write its receipt there, as the board signed it")
    show.set_defaults(run=device_show)


def device_list(options: argparse.Namespace) -> Shown:
    """In the order of their first Grant; then those without a line, in the order of their first receipts."""
    with _reading(options.dir) as reading:
        rows = reading.execute(
            "SELECT ueid, product, job, state, attester, grade, closed FROM units ORDER BY granted_at, ueid"
        ).fetchall()
        offline = list_boards(reading, {row.digest: row for row in list_bundles(reading)})
    value = [_unit_row(*row) for row in rows]
    on_line = {one["ueid"] for one in value}
    value += [_offline_row(one) for one in offline if one["ueid"] not in on_line]
    return Shown(value, "" if value else "no boards yet")


def device_show(options: argparse.Namespace) -> Shown:
    """Without any value: those are wrapped, and no command opens them."""
    with _reading(options.dir) as reading:
        rows = reading.execute("SELECT ueid FROM units").fetchall()
        names = {ueid for (ueid,) in rows} | set(list_names(reading))
        matching = [ueid for ueid in names if ueid.hex().startswith(options.ueid.lower())]
        if len(matching) != 1:
            raise NeedsPerson(f"{len(matching)} boards begin with {options.ueid}; `mpserver device list` shows all")
        unit = find_unit(reading, matching[0])
        if unit is None:
            return _show_offline(reading, matching[0], options.receipt)
        slots = reading.execute(
            "SELECT slot, max(version) FROM slot_values WHERE ueid = ? GROUP BY slot", (unit.ueid,)
        ).fetchall()
        alarms = reading.execute(
            "SELECT kind, count, last_at, detail FROM alarms WHERE ueid = ? ORDER BY first_at", (unit.ueid,)
        ).fetchall()
        grants = reading.execute("SELECT count(*) FROM grants WHERE ueid = ?", (unit.ueid,)).fetchone()[0]
        receipt = reading.execute("SELECT receipt FROM units WHERE ueid = ?", (unit.ueid,)).fetchone()[0]
        bundles = describe_receipts(reading, unit.ueid)
    if options.receipt is not None:
        _write_receipt(options.receipt, receipt)
    row = _unit_row(unit.ueid, unit.product, unit.job, unit.state, unit.attester, unit.grade, unit.closed)
    value = {
        **row,
        "hardware_ids": {kind: one.hex() for kind, one in unit.hardware_ids.items()},
        "issuer_values": {slot: version for slot, version in slots},
        "grants": grants,
        "receipt": None if receipt is None else _describe_receipt(receipt),
        "final_index": None if unit.final is None else CLOSED.decode(unit.final, CLOSED_MAX_BYTES).leaf_index,
        "bundle_receipts": bundles,
        "alarms": [dict(zip(("kind", "count", "last_at", "detail"), one, strict=True)) for one in alarms],
    }
    return Shown(value)


def _show_offline(reading: sqlite3.Connection, ueid: bytes, out: Path | None) -> Shown:
    if out is not None:
        _write_receipt(out, find_newest(reading, ueid))
    bundles = {row.digest: row for row in list_bundles(reading)}
    about = (one for one in find_conflicts(reading, bundles) if ueid in (name for name, _ in one.boards))
    conflicts = [{"conflict": one.kind, "said": one.said} for one in about]
    return Shown({**describe_board(reading, ueid), "conflicts": conflicts})


def _describe_receipt(raw: bytes) -> dict[str, Any]:
    """What a board said that it sealed, and how. Escrowed copies by name: their key is not on this machine."""
    receipt = RECEIPT.decode(read_sign1(raw, typ=TYP_RECEIPT, algs=ES256_ONLY).payload, RECEIPT_MAX_BYTES)
    return {
        "digest": hashlib.sha256(raw).hexdigest(),
        "phase": receipt.phase,
        "closed_proof": receipt.closed_proof,
        "rollback": receipt.rollback,
        "slots": {slot.name: slot.backend for slot in receipt.slots},
        "escrowed": sorted(receipt.escrow or {}),
    }


def _write_receipt(path: Path, raw: bytes | None) -> None:
    if raw is None:
        raise NeedsPerson("this board has said no receipt yet")
    try:
        path.write_bytes(raw)
    except OSError as error:
        raise StateBroke(f"cannot write {path}: {error.strerror}") from error


def add_ledger(parser: argparse.ArgumentParser) -> None:
    """Verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser(
        "verify", help="walk the whole tree and compare it with heads, grants, units and jobs"
    ).set_defaults(run=ledger_verify)
    show = verbs.add_parser("show", help="entries, the newest by default")
    show.add_argument("--from", dest="start", type=int, metavar="INDEX")
    show.set_defaults(run=ledger_show)
    gap = verbs.add_parser("accept-gap", help="after a restore: not in this version")
    gap.set_defaults(run=ledger_accept_gap)


def ledger_verify(options: argparse.Namespace) -> Shown:
    """Exit 65 on damage, naming the first bad index."""
    places = Places(options.dir)
    with _reading(options.dir) as reading:
        realm = read_fact(reading, "realm")
        last = _read_last_head(places)
        reading.execute("BEGIN")  # one moment of a ledger that a server may be writing
        found = verify_ledger(reading, read_root_points(Keystore(places.keys)), realm, last)
        check_decisions(reading, found.decided)
    offline = sum(kind == KIND for kind, _ in found.decided)
    value = {
        "verified": True,
        "entries": found.entries,
        "heads": found.heads,
        "grants": found.grants,
        "units": found.units,
        "closed": found.closed,
        "bundle_receipts": offline,
        "jobs": found.jobs,
        "root": found.root.hex(),
    }
    text = (
        f"ledger verified: {found.entries} entries under {found.heads} signed heads, root {found.root.hex()[:16]};\n"
        f"{found.grants} grants and {found.closed} receipts stand in it; {found.units} units agree with"
        f" {found.jobs} jobs and their quotas" + (f"; {offline} receipts of boards without a line" if offline else "")
    )
    return Shown(value, text)


def _read_last_head(places: Places) -> LastHead:
    try:
        return LastHeadFile(places.last_head).read()
    except FileNotFoundError:
        raise StoreDamaged(f"{places.last_head} is gone: restore it from its newest copy") from None


def ledger_show(options: argparse.Namespace) -> Shown:
    """At most PAGE entries."""
    with _reading(options.dir) as reading:
        size = reading.execute("SELECT coalesce(max(idx) + 1, 0) FROM entries").fetchone()[0]
        start = max(0, size - PAGE) if options.start is None else options.start
        rows = reading.execute(
            "SELECT idx, body FROM entries WHERE idx >= ? ORDER BY idx LIMIT ?", (start, PAGE)
        ).fetchall()
    value = []
    for index, body in rows:
        entry = ENTRY.decode(body, ENTRY_MAX_BYTES)
        ueid = entry.ueid.hex() if entry.ueid else None
        value.append(
            {
                "index": index,
                "kind": entry.kind,
                "time": entry.time,
                "subject": entry.subject,
                "digest": entry.digest.hex(),
                "ueid": ueid,
            }
        )
    return Shown(value, "" if value else "no entries")


def ledger_accept_gap(options: argparse.Namespace) -> Shown:
    """Said so that nobody looks for it."""
    raise NeedsPerson(
        "accepting a gap takes two people with passkeys, which this version does not have:"
        " restore the newest backup, or start a new issuer with `mpserver init` in another directory"
    )


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("file", type=Path, metavar="FILE", help='"-" is standard input')
    parser.set_defaults(run=inspect)


def inspect(options: argparse.Namespace) -> Shown:
    """Any message or signed object; nothing is verified but the shape."""
    try:
        with sys.stdin.buffer if str(options.file) == "-" else options.file.open("rb") as file:
            raw = file.read(INSPECTED_MAX_BYTES + 1)
    except OSError as error:
        raise Usage(f"cannot read {options.file}: {error.strerror}") from error
    try:
        return Shown(describe_message(raw), inspect_message(raw))
    except Malformed as error:
        raise Malformed(f"{options.file} holds no message of this protocol: {error}") from error


def _unit_row(
    ueid: bytes, product: str, job: str, state: str, attester: str, grade: str, closed: bytes | None
) -> dict[str, Any]:
    index = CLOSED.decode(closed, CLOSED_MAX_BYTES).leaf_index if closed is not None else None
    return {
        "ueid": ueid.hex(),
        "product": product,
        "job": job,
        "state": state,
        "attester": attester,
        "grade": grade,
        "ledger_index": index,
    }


def _offline_row(board: dict[str, Any]) -> dict[str, Any]:
    """As `_unit_row`: nobody appraised such a board, and it has no Closed."""
    known = {name: board[name] for name in ("ueid", "product", "job")}
    return {**known, "state": OFFLINE, "attester": None, "grade": None, "ledger_index": None}


@contextmanager
def _reading(directory: Path) -> Iterator[sqlite3.Connection]:
    """A connection for one command; SQLite's and the system's errors come out as ours."""
    places = Places(directory)
    connection = open_ledger(places)
    try:
        with explained(places.ledger):
            yield connection
    except OSError as error:
        raise StateBroke(f"{error.filename}: {error.strerror}") from error
    finally:
        connection.close()
