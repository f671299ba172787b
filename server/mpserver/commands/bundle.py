"""mpserver bundle: secrets for lines without a network, one file for a lot of boards (docs/wire.md 11).

Exit codes beyond those of every command: 76 a bundle is torn, changed, or signed by nobody of ours; 77 a rule of the
job, of an authority, or of what boards were told before says no (docs/operate.md).
"""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from mpissuer.policy import Product
from mpserver.bundleinput import (
    read_conditions,
    read_expiry,
    read_own_values,
    read_rights,
    read_secret_file,
    read_values,
)
from mpserver.bundleorder import Draft, Order, describe_pieces, draft_bundle, make_bundle
from mpserver.bundleplan import Wishes
from mpserver.commands import bundlereading as reading
from mpserver.commands.bundlereading import as_lines, describe
from mpserver.errors import NeedsPerson, Usage
from mpserver.outfile import check_place
from mpserver.output import Shown, write_new
from mpserver.state import State, open_state
from mpserver.store.products import read_products
from mpserver.uidlist import read_uids
from mpwire.jobsecret import write_job_secret
from mpwire.messages.bundle import ACTIONS, AUTHORITIES
from mpwire.secret import Secret
from mpwire.stream import count_ciphertext

JOB_SECRET_BYTES: Final = 16
"""128 bits: 32 characters to scan or type."""
NUMBER_MAX: Final = 2**31 - 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_create(verbs.add_parser("create", help="make a bundle under a job, and enter it into the ledger"))
    for verb, text, run in (
        ("inspect", "print what a bundle says of itself; needs no key and no state directory", reading.inspect),
        ("verify", "signature, chain, digests, and whether the ledger knows it", reading.verify),
        ("extract-test", "open every component, keep nothing, print sizes and PASS", reading.extract_test),
    ):
        one = verbs.add_parser(verb, help=text)
        one.add_argument("file", type=Path, metavar="FILE")
        one.set_defaults(run=run)
        if verb == "extract-test":
            one.add_argument("--job-secret-file", type=Path, metavar="FILE", help="where the bundle needs one")
    verbs.add_parser("list", help="every bundle that was made").set_defaults(run=reading.list_made)


def _add_create(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--product", required=True)
    add("--job", required=True, help="an open job of the product")
    add("--version", required=True, type=_number, metavar="N", help="boards take no lower one after it")
    add("--expires", required=True, metavar="DATE|DAYS", help="last day, as 2027-06-30, or days from now")
    add("--out", required=True, type=Path, metavar="FILE")
    add("--minimum", type=_number, metavar="M", help="from this bundle on none below M; left out: as told before")
    add("--authority", choices=AUTHORITIES, default="mp", help="mp: the first loading (default)")
    add("--only", action="append", default=[], metavar="SLOT", help="a slot of an update; repeatable")
    add("--action", choices=ACTIONS, help="where a board has a slot already: left out: fill, of an update replace")
    add("--value", action="append", default=[], metavar="SLOT=FILE", help="of a static or file slot; repeatable")
    add("--uids", type=Path, metavar="FILE", help="fuse UIDs of the boards it is for, one a line")
    add("--per-device", type=Path, metavar="DIR", help="values of their own: DIR/UID/SLOT")
    add(
        "--quantity",
        type=_number,
        metavar="N",
        help="boards that may be flashed; left out: the list, or the job's quota",
    )
    add("--policy", type=Path, metavar="FILE", help="which authority may write which slot later; TOML")
    add("--condition", action="append", default=[], metavar="NAME=VALUE", help="family, srk_hash, life_cycle; narrower")
    add("--job-secret-out", type=Path, metavar="FILE", help="make a job secret, and write its text there, mode 600")
    add("--job-secret-file", type=Path, metavar="FILE", help="use the job secret of an earlier bundle")
    add("--allow-older", action="store_true", help="a version below one that was made already")
    add("--force", action="store_true", help="replace FILE")
    add("--dry-run", action="store_true", help="check and print everything, make nothing")
    parser.set_defaults(run=create)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or not 1 <= int(text) <= NUMBER_MAX:
        raise argparse.ArgumentTypeError(f"{text[:20]}: a whole number from 1 to {NUMBER_MAX}")
    return int(text)


def create(options: argparse.Namespace) -> Shown:
    """Nothing is left of what was refused or interrupted."""
    check_place(options.out, force=options.force)
    state = open_state(options.dir)
    try:
        wishes = _read_wishes(state, options)
        _check_apart(options, wishes)
        order = Order(wishes, options.job, options.quantity, _find_secret(options))
        draft = draft_bundle(state, order)
        value = _describe_draft(draft, options)
        if options.dry_run:
            return Shown(value, f"{as_lines(value)}\nnothing was made: --dry-run")
        with _handing_out(options, order.job_secret):
            made = make_bundle(state, order, draft, options.out, force=options.force)
    finally:
        state.close()
    value = {**value, "digest": made.digest.hex(), "bytes": made.size, "made": True}
    return Shown(value, as_lines(value))


def _check_apart(options: argparse.Namespace, wishes: Wishes) -> None:
    """What is read and what is written are different files. Raises Usage."""
    if options.job_secret_out is not None and options.job_secret_out.absolute() == options.out.absolute():
        raise Usage("--out and --job-secret-out name one file: the job secret goes another way than the bundle")
    for handed in (*wishes.values.values(), *wishes.own_values.values()):
        if options.out.exists() and handed.path.samefile(options.out):
            raise Usage(f"--out {options.out} is a file that a value is read from")


def _read_wishes(state: State, options: argparse.Namespace) -> Wishes:
    product = _get_product(state, options.product)
    own_values = {} if options.per_device is None else read_own_values(options.per_device)
    uids = None if options.uids is None else read_uids(options.uids)
    if uids is None and own_values:
        uids = tuple(sorted({uid for uid, _ in own_values}))
    return Wishes(
        product=product,
        authority=options.authority,
        version=options.version,
        expires=read_expiry(options.expires, state.clock.now()),
        minimum=options.minimum,
        action=options.action,
        only=tuple(dict.fromkeys(options.only)),
        uids=uids,
        values=read_values(options.value),
        own_values=own_values,
        rights=None if options.policy is None else read_rights(options.policy),
        conditions=read_conditions(options.condition),
        allow_older=options.allow_older,
    )


def _get_product(state: State, name: str) -> Product:
    products = read_products(state.connection, state.authority)
    if name not in products:
        raise NeedsPerson(f"there is no product {name}; `mpserver product show` lists all")
    if products[name].mp_use != "secret":
        raise Usage(f'product {name} is served over a line: bundles are for products with mp_use = "secret"')
    return products[name]


def _find_secret(options: argparse.Namespace) -> Secret | None:
    if options.job_secret_out is not None and options.job_secret_file is not None:
        raise Usage("--job-secret-out makes a new job secret, and --job-secret-file uses an old one: one of both")
    if options.job_secret_file is not None:
        return read_secret_file(options.job_secret_file)
    if options.job_secret_out is None:
        return None
    check_place(options.job_secret_out, force=False)
    return Secret(os.urandom(JOB_SECRET_BYTES))


@contextmanager
def _handing_out(options: argparse.Namespace, job_secret: Secret | None) -> Iterator[None]:
    """A new job secret is on its medium before the bundle that needs it, and goes with a bundle that fails."""
    if options.job_secret_out is None or job_secret is None:
        yield
        return
    write_new(options.job_secret_out, f"{write_job_secret(job_secret)}\n".encode(), mode=0o600)
    try:
        yield
    except BaseException:
        options.job_secret_out.unlink(missing_ok=True)
        raise


def _describe_draft(draft: Draft, options: argparse.Namespace) -> dict[str, Any]:
    told = draft.bundle
    return {
        "file": str(options.out),
        **describe(told),
        "quantity": draft.quantity,
        "components": describe_pieces(draft.pieces),
        "bytes": sum(count_ciphertext(one.component.size) for one in draft.pieces),
        "digest": None,
        "made": False,
        "job_secret_file": None if options.job_secret_out is None else str(options.job_secret_out),
    }
