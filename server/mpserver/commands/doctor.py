"""mpserver doctor: one line for each thing that must hold before boards are served, with the next step."""

import argparse
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from mpissuer.errors import NotNow
from mpserver.boards import list_names
from mpserver.certificates import DAY_S
from mpserver.commands.hsm import audit_token
from mpserver.conflicts import find_conflicts
from mpserver.hiding import list_hidden
from mpserver.keystore import STANDBY
from mpserver.mpuse import is_burnt
from mpserver.output import Shown
from mpserver.state import State, open_state
from mpserver.store.bundles import list_bundles
from mpserver.store.database import explained
from mpserver.store.products import read_products
from mpserver.store.sequencer import check_not_older
from mpserver.store.tree import load_edge
from mpserver.token.safe import TokenSafe
from mpwire.errors import MpError
from mpwire.guard import guard

FREE_MIN_BYTES: Final = 256 * 1024 * 1024
"""Some 100,000 boards' rows, and room for the WAL."""
TROUBLE_EXIT: Final = 77


@dataclass(frozen=True, slots=True)
class Line:
    """One finding. `ok` None is worth knowing and stops nothing."""

    name: str
    ok: bool | None
    said: str
    then: str = ""


def configure(parser: argparse.ArgumentParser) -> None:
    """No options."""
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> Shown:
    """Exit 77 where a person has to act; 78, 65, 74 or 75 (a token is away) where the state cannot even be opened."""
    state = open_state(options.dir)
    try:
        with explained(state.places.ledger):
            lines = [line for check in CHECKS for line in check(state)]
    finally:
        state.close()
    value = [{"check": one.name, "ok": one.ok, "said": one.said, "next": one.then} for one in lines]
    text = "\n".join(_as_text(one) for one in lines)
    return Shown(value, text, exit_code=TROUBLE_EXIT if any(one.ok is False for one in lines) else 0)


def _check_realm(state: State) -> Iterator[Line]:
    where = "keys are in a token" if isinstance(state.safe, TokenSafe) else "keys lie in files"
    note = f"simulated parts may take part; {where}" if state.realm == "lab" else ""
    yield Line("realm", True, f"{state.realm} {note}".strip())


def _check_memory(_state: State) -> Iterator[Line]:
    guarded = guard()
    for name, trouble, fine in (
        ("memory-lock", guarded.memory_lock, "secrets stay out of swap"),
        ("core-dump", guarded.core_dump, "none will be written"),
    ):
        yield Line(name, True if trouble is None else None, trouble or fine)


def _check_file(state: State) -> Iterator[Line]:
    found = state.connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    yield Line("ledger-file", found == "ok", str(found), "" if found == "ok" else "restore the newest backup")


def _check_head(state: State) -> Iterator[Line]:
    try:
        edge = load_edge(state.connection)
        check_not_older(state.connection, edge, state.last_head, is_new=True)
    except NotNow as error:
        then = "no grants until this is resolved: restore the newest backup (mpserver ledger accept-gap says more)"
        yield Line("ledger-head", False, f"recovery: {error.detail}", then)
    except MpError as error:
        yield Line("ledger-head", False, str(error), "mpserver ledger verify names the place")
    else:
        yield Line("ledger-head", True, f"{edge.size} entries, none missing against the head kept outside")


def _check_certificates(state: State) -> Iterator[Line]:
    now = state.clock.now()
    for name, (begin, end) in state.authority.lives().items():
        days = (end - now) // DAY_S
        if now < begin:
            then = "set the clock; if it is right now, it was wrong when this was made: restore keys/ from the backup"
            yield Line(f"certificate-{name}", False, "begins in the future, so nothing is granted", then)
            continue
        then = "" if days > 0 else "restart the server: it renews its certificates"
        yield Line(f"certificate-{name}", days > 0, f"{days} days left", then)


def _check_standby(state: State) -> Iterator[Line]:
    path = state.keystore.key_file(STANDBY)
    if path.exists():
        yield Line("standby-root", None, f"its private key still lies on this machine: {path}", "move it off line")
    else:
        yield Line("standby-root", True, "its private key is not here")


def _check_token(state: State) -> Iterator[Line]:
    """Opening the state has logged in and had every role key sign; this looks at all the others too."""
    if not isinstance(state.safe, TokenSafe):
        return
    settings = state.safe.settings
    findings = audit_token(state.places)
    wrong = [one.label for one in findings if one.trouble]
    said = f"{settings.token!r}, serial number {settings.serial}: {len(findings)} keys"
    then = "mpserver hsm audit" if wrong else ""
    yield Line("token", not wrong, f"{said}; not as they have to be: {', '.join(wrong)}" if wrong else said, then)


def _check_room(state: State) -> Iterator[Line]:
    free = shutil.disk_usage(state.places.directory).free
    ok = free >= FREE_MIN_BYTES
    yield Line("disk", ok, f"{free // 1024 // 1024} MiB free", "" if ok else "make room: a full disk stops every grant")


def _check_clock(state: State) -> Iterator[Line]:
    newest = state.connection.execute("SELECT max(granted_at) FROM units").fetchone()[0] or 0
    ok = state.clock.now() >= newest
    said = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(state.clock.now()))
    yield Line("clock", ok, said, "" if ok else "the clock went back behind the newest grant: set it")


def _check_jobs(state: State) -> Iterator[Line]:
    rows = state.connection.execute("SELECT name, product, state, quota, granted FROM jobs ORDER BY place").fetchall()
    products = read_products(state.connection, state.authority)
    serving = [row for row in rows if row[2] == "open"]
    then = "" if serving else "mpserver job create, then mpserver job approve"
    yield Line("jobs", bool(serving) or None, f"{len(serving)} open of {len(rows)}; {len(products)} products", then)
    for name, _, status, _, _ in rows:
        if status in ("open", "exhausted") and not state.safe.has_job_key(name):
            yield Line("job-key", False, f"job {name} has lost its key", "restore keys/jobs from the backup")
        if status == "ended" and state.safe.has_job_key(name):
            yield Line("job-key", False, f"job {name} is ended, its key still stands", f"mpserver job end {name}")


def _check_burnt(state: State) -> Iterator[Line]:
    """A class key that signed opens every bundle under it for whoever saw the signature."""
    for name, product in read_products(state.connection, state.authority).items():
        if product.mpk is not None and is_burnt(state.connection, product.mpk):
            said = f"MP key {product.mpk.hex()} of product {name} was seen to sign, which gives it away"
            then = "make bundles under a job secret alone; another SRK set makes another key"
            yield Line("mp-key", False, said, then)


def _check_alarms(state: State) -> Iterator[Line]:
    rows = state.connection.execute("SELECT kind, sum(count), max(last_at) FROM alarms GROUP BY kind").fetchall()
    for kind, count, last in rows:
        yield Line("alarm", None, f"{kind}: {count} times, last at {last}", "mpserver device list, device show UEID")
    if not rows:
        yield Line("alarms", True, "none")


def _check_vault(state: State) -> Iterator[Line]:
    """Without its key no bundle is made, and no receipt of one is believed."""
    try:
        hidden, names = list_hidden(state), set(state.vault.names())
    except MpError as error:
        yield Line("vault", False, str(error), "mpserver hsm status, where the keys are in a token")
        return
    again = "mpserver mp vault import, with the same key"
    for row in hidden:
        used = f", for {', '.join(row.products)}" if row.products else ""
        if row.state == "lost" or (row.state == "destroyed" and row.products):
            yield Line("mp-key", False, f"secret MP key {row.mpk_id.hex()} is {row.state}{used}", again)
        elif row.state == "unknown":
            yield Line("mp-key", None, f"{row.mpk_id.hex()} lies in the vault, and no entry says how it came", again)
    known = {row.mpk_id for row in hidden}
    for name, product in read_products(state.connection, state.authority).items():
        if product.mpk is not None and product.mpk not in known:
            yield Line("mp-key", None, f"product {name} names MP key {product.mpk.hex()}, which nobody imported", again)
    for product, name, key in state.connection.execute("SELECT product, name, vault_name FROM update_authorities"):
        if key not in names:
            yield Line("authority", False, f"{name} of {product} has lost its key", "restore it from the backup")
    if hidden:
        yield Line("vault", True, f"{sum(row.state == 'kept' for row in hidden)} secret MP keys kept")


def _check_receipts(state: State) -> Iterator[Line]:
    """A conflict stops nothing here: whoever looks at it decides."""
    bundles = {row.digest: row for row in list_bundles(state.connection)}
    found = Counter(one.kind for one in find_conflicts(state.connection, bundles))
    for kind, count in sorted(found.items()):
        yield Line("receipts", None, f"{kind}: {count} conflicts", "mpserver receipts report")
    if bundles and not found:
        boards = len(list_names(state.connection))
        yield Line("receipts", True, f"{boards} boards without a line, no conflict")


CHECKS: Final[tuple[Callable[[State], Iterator[Line]], ...]] = (
    *(_check_realm, _check_memory, _check_file, _check_head, _check_certificates, _check_standby, _check_token),
    *(_check_room, _check_clock, _check_jobs, _check_alarms, _check_vault, _check_burnt, _check_receipts),
)


def _as_text(line: Line) -> str:
    sign = {True: "ok  ", False: "FAIL", None: "note"}[line.ok]
    return f"{sign} {line.name}: {line.said}" + (f"; next: {line.then}" if line.then else "")
