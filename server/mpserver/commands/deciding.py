"""mpserver product, job: what the OEM decides before a line starts."""

import argparse
from pathlib import Path
from typing import Any

from mpissuer.errors import ProductWrong
from mpissuer.policy import read_product
from mpserver.anchors import NO_RULES, BoardLists, OfflineRules, write_anchors
from mpserver.commands.images import add_image
from mpserver.errors import NeedsPerson, Usage
from mpserver.lines import find_line
from mpserver.mpuse import name_in_vault
from mpserver.office import QUOTA_MAX, JobPlan, Office
from mpserver.output import Shown
from mpserver.state import Places, open_ledger, open_state
from mpserver.store.products import hide_values, newest_bodies


def add_product(parser: argparse.ArgumentParser) -> None:
    """Verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    add = verbs.add_parser("add", help="a product file (TOML); a second time it is the next version")
    add.add_argument("file", type=Path)
    add.set_defaults(run=product_add)
    show = verbs.add_parser("show", help="all products, or one product's file")
    show.add_argument("name", nargs="?")
    show.set_defaults(run=product_show)
    add_image(verbs)
    anchors = verbs.add_parser("anchors", help="print anchors.toml for this product's provisioning image")
    anchors.add_argument("name")
    for option, default in (("attest", "sim"), ("seal", "sim"), ("keys", "sealed"), ("soc", "sim")):
        anchors.add_argument(f"--{option}", default=default, metavar="BACKEND", help="default %(default)s")
    for option in ("tpm-tcti", "sim-chip", "swname", "swversion", "oemid"):
        anchors.add_argument(f"--{option}", metavar="TEXT")
    anchors.add_argument("--bundle-minimum", type=_version, metavar="N", help="take no bundle of a lower version")
    anchors.add_argument("--wipe-bundle", action="store_true", help="boards overwrite a bundle once they took it")
    anchors.set_defaults(run=product_anchors)


def product_add(options: argparse.Namespace) -> Shown:
    """Durable on return; a running server uses it a second later."""
    text = read_text(options.file)
    state = open_state(options.dir)
    try:
        product, version = Office(state).add_product(text)
        known = {one for (one,) in state.connection.execute("SELECT key_id FROM attester_keys").fetchall()}
        is_kept = product.mpk is None or name_in_vault(product.mpk) in state.vault.names()
    except ProductWrong as error:
        raise ProductWrong(f"{options.file}:{find_line(text, error)}: {error}") from error
    finally:
        state.close()
    missing = [one.hex() for one in (*product.mp_keys, *product.optee_keys) if one not in known]
    value = {"product": product.name, "version": version, "digest": product.digest.hex(), "unregistered_keys": missing}
    notes = [] if is_kept else ["its mpk is not in the vault yet; next: mpserver mp vault import FILE"]
    notes += [f"key {one} is not registered yet; next: mpserver key import FILE" for one in missing]
    return Shown(value, "\n".join([f"product {product.name} version {version} added", *notes]))


def product_show(options: argparse.Namespace) -> Shown:
    """As it was added, with every static value hidden."""
    state = open_state(options.dir)
    try:
        bodies = dict(newest_bodies(state.connection, state.authority))
    finally:
        state.close()
    if options.name is None:
        rows = [_summarise(name, body) for name, body in bodies.items()]
        return Shown(rows, "" if rows else "no products: mpserver product add FILE")
    if options.name not in bodies:
        raise NeedsPerson(f"there is no product {options.name}; `mpserver product show` lists all")
    body = hide_values(bodies[options.name])
    return Shown({**_summarise(options.name, bodies[options.name]), "file": body}, body)


def product_anchors(options: argparse.Namespace) -> Shown:
    """The trust a provisioning image carries."""
    state = open_state(options.dir)
    try:
        bodies = dict(newest_bodies(state.connection, state.authority))
        if options.name not in bodies:
            raise NeedsPerson(f"there is no product {options.name}; `mpserver product show` lists all")
        lists = BoardLists(
            attest=options.attest,
            seal=options.seal,
            keys=options.keys,
            soc=options.soc,
            tpm_tcti=options.tpm_tcti,
            sim_chip=options.sim_chip,
        )
        software = {name: getattr(options, name) for name in ("swname", "swversion", "oemid")}
        product, offline = read_product(bodies[options.name]), OfflineRules(options.bundle_minimum, options.wipe_bundle)
        if product.mp_use != "secret" and offline != NO_RULES:
            raise Usage(f"--bundle-minimum and --wipe-bundle: boards of {product.name} are served over a line")
        text = write_anchors(state, product, lists, software, offline)
    finally:
        state.close()
    return Shown({"anchors": text}, text)


def add_job(parser: argparse.ArgumentParser) -> None:
    """Verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    create = verbs.add_parser("create", help="a draft; nothing is granted under it yet")
    create.add_argument("name")
    create.add_argument("--product", required=True)
    create.add_argument("--quota", required=True, type=_quota, help="distinct boards")
    create.set_defaults(run=job_create)
    for verb, text, run in (
        ("approve", "open a draft (realm lab: one person)", job_approve),
        ("end", "grant nothing more and destroy the job's key", job_end),
        ("show", "one job", job_show),
    ):
        one = verbs.add_parser(verb, help=text)
        one.add_argument("name")
        one.set_defaults(run=run)
    verbs.add_parser("list", help="all jobs").set_defaults(run=job_list)


def job_create(options: argparse.Namespace) -> Shown:
    """A draft."""
    plan = JobPlan(options.name, options.product, options.quota)
    return _change_job(options, lambda office: office.create_job(plan), f"next: mpserver job approve {options.name}")


def job_approve(options: argparse.Namespace) -> Shown:
    """Open."""
    then = "boards of its product are served now, or bundles can be made"
    return _change_job(options, lambda office: office.approve_job(options.name), then)


def job_end(options: argparse.Namespace) -> Shown:
    """Ended."""
    return _change_job(
        options, lambda office: office.end_job(options.name), "its key is destroyed: its values are gone"
    )


def job_show(options: argparse.Namespace) -> Shown:
    """One row."""
    return Shown(_job_row(options, options.name))


def job_list(options: argparse.Namespace) -> Shown:
    """All rows."""
    rows = _job_rows(options.dir)
    return Shown(rows, "" if rows else "no jobs: mpserver job create NAME --product P --quota N")


def _change_job(options: argparse.Namespace, change: Any, then: str) -> Shown:
    state = open_state(options.dir)
    try:
        change(Office(state))
    finally:
        state.close()
    row = _job_row(options, options.name)
    return Shown(row, f"job {row['name']} is {row['state']}: {row['granted']} of {row['quota']} granted; {then}")


def _job_row(options: argparse.Namespace, name: str) -> dict[str, Any]:
    for row in _job_rows(options.dir):
        if row["name"] == name:
            return row
    raise NeedsPerson(f"there is no job {name}; `mpserver job list` shows all")


def _job_rows(directory: Path) -> list[dict[str, Any]]:
    connection = open_ledger(Places(directory))
    try:
        rows = connection.execute(
            "SELECT name, product, state, quota, granted, (SELECT count(*) FROM units WHERE units.job = jobs.name"
            " AND units.state = 'provisioned') FROM jobs ORDER BY place"
        ).fetchall()
    finally:
        connection.close()
    titles = ("name", "product", "state", "quota", "granted", "provisioned")
    return [dict(zip(titles, row, strict=True)) for row in rows]


def _summarise(name: str, body: str) -> dict[str, Any]:
    product = read_product(body)
    return {
        "name": name,
        "attesters": list(product.attesters),
        "grades": list(product.grades),
        "life_cycle": product.life_cycle,
        "slots": [slot.name for slot in product.slots],
        "digest": product.digest.hex(),
    }


def read_text(path: Path) -> str:
    """A file named on the command line. Raises Usage."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Usage(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Usage(f"{path} is not UTF-8 text: {error.reason}") from error


def _version(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text[:20]}: a version of bundles is a whole number from 1 on")
    return int(text)


def _quota(text: str) -> int:
    if not text.isdecimal() or len(text) > len(str(QUOTA_MAX)) or not 1 <= int(text) <= QUOTA_MAX:
        raise Usage(f"--quota {text[:20]}: a quota is 1 to {QUOTA_MAX} boards")
    return int(text)
