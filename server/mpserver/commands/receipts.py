"""mpserver receipts: what boards without a line say that they took, and what does not fit together.

Exit codes beyond those of every command: 65 a file does not hold, 77 conflicts that somebody has to look at
(docs/operate.md).
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mpserver.boards import describe_bundles, list_boards
from mpserver.bundlekeeping import expand_of
from mpserver.conflicts import Conflict, find_conflicts
from mpserver.errors import NeedsPerson, ReceiptsWrong, Usage
from mpserver.handed import spell_path
from mpserver.intake import Intake, Sheaf, bundle_up
from mpserver.output import Shown
from mpserver.receiptfiles import find_files
from mpserver.receiving import Reception
from mpserver.state import Places, State, open_ledger, open_state
from mpserver.store.bundles import BundleRow, list_bundles
from mpserver.store.database import Connection, explained
from mpserver.store.products import read_products
from mpwire.bundlereceipt import SUFFIX
from mpwire.cose import thumbprint

LINES_MAX: Final = 40
"""Conflicts that are printed for people; --json has all."""
PROGRESS_S: Final = 2.0
DOES_NOT_HOLD: Final = ReceiptsWrong.exit_code
CONFLICT: Final = NeedsPerson.exit_code


def configure(parser: argparse.ArgumentParser) -> None:
    """Verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    take = verbs.add_parser("import", help="verify receipts files, keep what is new, and say what does not fit")
    help_places = f"a receipts file, or a folder in which all that end in {SUFFIX} are taken"
    take.add_argument("places", type=Path, nargs="+", metavar="FILE|FOLDER", help=help_places)
    take.add_argument("--keep-going", action="store_true", help="go on behind a file that does not hold")
    take.set_defaults(run=import_files)
    report = verbs.add_parser("report", help="boards, what they took last, who is missing, and what does not fit")
    report.add_argument("--product", help="of this product alone")
    report.add_argument("--job", help="of this job alone")
    report.set_defaults(run=report_boards)


@dataclass(slots=True)
class Tally:
    """What an import came to."""

    files: int = 0
    receipts: int = 0
    new: int = 0
    known: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    taken: set[tuple[bytes, bytes]] = field(default_factory=set)
    """Board and bundle of every receipt in these files."""

    def count(self, sheaf: Sheaf) -> None:
        """A file that was taken."""
        self.files += 1
        self.receipts += sheaf.receipts
        self.new += sheaf.new
        self.known += len(sheaf.heard) - sheaf.new
        self.taken |= {(one.row.ueid, one.row.bundle) for one in sheaf.heard}
        self.conflicts += [
            Conflict("unknown-bundle", ((one.ueid, None),), one.bundle, one.said) for one in sheaf.strangers
        ]


def import_files(options: argparse.Namespace) -> Shown:
    """Every file whole or not at all; what was taken before one that does not hold stays taken."""
    files = find_files(options.places)
    state = open_state(options.dir)
    try:
        with explained(state.places.ledger):
            tally = _take_all(state, files, options)
            known = {row.digest: row for row in list_bundles(state.connection)}
            told = {bundle for _, bundle in tally.taken}
            mine = {ueid for ueid, _ in tally.taken}
            for one in find_conflicts(state.connection, {digest: known[digest] for digest in told}):
                if any(ueid in mine for ueid, _ in one.boards):
                    tally.conflicts.append(one)
    finally:
        state.close()
    return _show_import(tally)


def _take_all(state: State, files: Iterator[Path], options: argparse.Namespace) -> Tally:
    rules = {name: one.life_cycle for name, one in read_products(state.connection, state.authority).items()}
    intake = Intake(state, Reception(state.connection, expand_of(state), rules))
    tally, tell = Tally(), _Progress(not options.json)
    for group in bundle_up(_read_all(intake, files, tally, options.keep_going)):
        intake.take(group)
        for sheaf in group:
            tally.count(sheaf)
        tell(tally)
    return tally


def _read_all(intake: Intake, files: Iterator[Path], tally: Tally, keeps_going: bool) -> Iterator[Sheaf]:
    for path in files:
        try:
            yield intake.read(path)
        except ReceiptsWrong as error:
            tally.failed.append((path, str(error)))
            if not keeps_going:
                return


class _Progress:
    """A line now and then, on a terminal alone."""

    def __init__(self, is_wanted: bool) -> None:
        self._is_wanted = is_wanted and sys.stderr is not None and sys.stderr.isatty()
        self._last = time.monotonic()

    def __call__(self, tally: Tally) -> None:
        now = time.monotonic()
        if self._is_wanted and now - self._last >= PROGRESS_S:
            self._last = now
            print(f"mpserver: {tally.files} files, {tally.receipts} receipts, {tally.new} new", file=sys.stderr)


def _show_import(tally: Tally) -> Shown:
    value = {
        "files": tally.files,
        "receipts": tally.receipts,
        "new": tally.new,
        "known": tally.known,
        "failed": [{"file": spell_path(path), "said": said} for path, said in tally.failed],
        "conflicts": [_as_value(one) for one in tally.conflicts],
    }
    lines = [
        f"{value['files']} files taken with {value['receipts']} receipts: {value['new']} new, {value['known']} known"
        f" before; {len(tally.conflicts)} conflicts",
        *(f"NOT TAKEN  {said}" for _, said in tally.failed[:LINES_MAX]),
        *_as_lines(tally.conflicts),
    ]
    code = DOES_NOT_HOLD if tally.failed else CONFLICT if tally.conflicts else 0
    return Shown(value, "\n".join(lines), code)


def report_boards(options: argparse.Namespace) -> Shown:
    """From what is kept; exit 77 where something does not fit."""
    places = Places(options.dir)
    connection = open_ledger(places)
    try:
        with explained(places.ledger):
            connection.execute("BEGIN")  # one moment of a ledger that a server may be writing
            for kind in ("product", "job"):
                _check_known(connection, kind, getattr(options, kind))
            bundles = {row.digest: row for row in list_bundles(connection) if _is_asked(row, options)}
            told = describe_bundles(connection, bundles.values())
            boards = list_boards(connection, bundles)
            conflicts = list(find_conflicts(connection, bundles))
    finally:
        connection.close()
    value = {"bundles": told, "boards": boards, "conflicts": [_as_value(one) for one in conflicts]}
    return Shown(value, _as_report(told, boards, conflicts), CONFLICT if conflicts else 0)


def _check_known(connection: Connection, kind: str, name: str | None) -> None:
    """Raises Usage: a name mistyped would look like a lot without boards."""
    if name is not None and not connection.execute(f"SELECT 1 FROM {kind}s WHERE name = ?", (name,)).fetchone():
        raise Usage(f"there is no {kind} {name}; `mpserver {kind} {'show' if kind == 'product' else 'list'}` lists all")


def _is_asked(row: BundleRow, options: argparse.Namespace) -> bool:
    return options.product in (None, row.product) and options.job in (None, row.job)


def _as_report(told: Sequence[dict[str, Any]], boards: Sequence[Any], conflicts: Sequence[Conflict]) -> str:
    lines = [f"{len(boards)} boards by their receipts, {len(told)} bundles, {len(conflicts)} conflicts"]
    for one in told:
        of = "" if one["quantity"] is None else f" of {one['quantity']}"
        missing = f", {len(one['missing'])} of its list missing" if one["listed"] else ""
        lines.append(
            f"{one['product']} {one['authority']} version {one['version']}, job {one['job']}, bundle"
            f" {one['bundle'][:16]}: {one['boards']} boards{of}{missing}"
        )
        lines += [f"missing    {uid}" for uid in one["missing"][:LINES_MAX]]
    return "\n".join([*lines, *_as_lines(conflicts)])


def _as_lines(conflicts: Sequence[Conflict]) -> Iterable[str]:
    for one in conflicts[:LINES_MAX]:
        yield f"{one.kind:<15}{one.boards[0][0].hex()[:16]}: {one.said}"
    if len(conflicts) > LINES_MAX:
        yield f"and {len(conflicts) - LINES_MAX} more; --json has all"


def _as_value(one: Conflict) -> dict[str, Any]:
    return {
        "conflict": one.kind,
        "boards": [
            {"ueid": ueid.hex(), "key": None if key is None else thumbprint(key).hex()} for ueid, key in one.boards
        ],
        "bundle": None if one.bundle is None else one.bundle.hex(),
        "said": one.said,
    }
