"""mpserver bundle inspect, verify, extract-test, list: what was made, and that it is what it says."""

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

from mpserver.bundleinput import read_secret_file
from mpserver.bundleopening import naming, open_all, open_bundle, verify_bundle
from mpserver.errors import NeedsPerson
from mpserver.output import Shown
from mpserver.progress import Progress
from mpserver.state import open_state
from mpserver.store.bundles import BundleRow, list_bundles
from mpwire.bundle import Frame, read_bundle
from mpwire.messages.bundle import Bundle

NOT_KNOWN: Final = (
    "signed by us, and NOT in the ledger: an older ledger was restored, or somebody else has the key. Find out which"
    " before anybody flashes it"
)


def describe(told: Bundle) -> dict[str, Any]:
    """What a manifest says, without its components."""
    conditions = told.conditions
    return {
        "realm": told.realm,
        "product": told.product,
        "job": told.job,
        "authority": told.authority,
        "version": told.version,
        "minimum": told.minimum,
        "made_at": told.made_at,
        "expires": told.expires,
        "family": conditions.family,
        "srk_hash": None if conditions.srk_hash is None else conditions.srk_hash.hex(),
        "life_cycle": conditions.life_cycle,
        "uids": None if conditions.uids is None else [one.hex() for one in conditions.uids],
        "policy_digest": told.policy_digest.hex(),
        "secret_id": None if told.secret_id is None else told.secret_id.hex(),
    }


def inspect(options: argparse.Namespace) -> Shown:
    """By shape alone: whether it is ours, `verify` says."""
    with naming(options.file), open_bundle(options.file) as file:
        frame = read_bundle(file)
        whole = file.seek(0, os.SEEK_END)
    value = {
        "file": str(options.file),
        **describe(frame.bundle),
        "components": _describe_components(frame.bundle),
        "digest": frame.digest.hex(),
        "bytes": frame.end,
        "is_whole": whole == frame.end,
    }
    note = "" if value["is_whole"] else f"\nnote: the file has {whole} bytes, whole it has {frame.end}"
    return Shown(value, f"{as_lines(value)}{note}\nnothing was verified: mpserver bundle verify {options.file}")


def _describe_components(told: Bundle) -> list[dict[str, Any]]:
    rows = []
    for one in told.components:
        row = {"slot": one.name, **one._asdict(), "bytes": one.size, "uid": None if one.uid is None else one.uid.hex()}
        rows.append({name: row[name] for name in _COLUMNS})
    return rows


_COLUMNS: Final = ("slot", "kind", "destination", "version", "action", "bytes", "uid")


def verify(options: argparse.Namespace) -> Shown:
    """77 where it holds and the ledger does not know it."""
    state = open_state(options.dir)
    try:
        with naming(options.file), open_bundle(options.file) as file:
            frame, row = verify_bundle(state, file, Progress("verifying"))
        now = state.clock.now()
    finally:
        state.close()
    value = _judge(frame, row, now)
    return Shown(value, _tell(value), NeedsPerson.exit_code if row is None else 0)


def _judge(frame: Frame, row: BundleRow | None, now: int) -> dict[str, Any]:
    return {
        "verified": True,
        "in_ledger": row is not None,
        "digest": frame.digest.hex(),
        "quantity": None if row is None else row.quantity,
        "expired": frame.bundle.expires < now,
        **describe(frame.bundle),
    }


def _tell(value: dict[str, Any]) -> str:
    by = "the issuer" if value["authority"] == "mp" else f"update authority {value['authority']}"
    lines = [
        f"verified: {value['product']} version {value['version']}, signed by {by}, every byte as signed",
        f"digest     {value['digest']}",
        f"in ledger  {'yes, for ' + str(value['quantity']) + ' boards' if value['in_ledger'] else NOT_KNOWN}",
    ]
    if value["expired"]:
        lines.append(f"note: it expired on {_day(value['expires'])}: boards that know the time refuse it")
    return "\n".join(lines)


def extract_test(options: argparse.Namespace) -> Shown:
    """As a board opens it, through the vault; no value is kept or shown."""
    job_secret = None if options.job_secret_file is None else read_secret_file(options.job_secret_file)
    state = open_state(options.dir)
    try:
        with naming(options.file), open_bundle(options.file) as file:
            frame, row = verify_bundle(state, file, Progress("verifying"))
            opened = list(open_all(state, file, frame, row, job_secret, Progress("opening")))
    finally:
        state.close()
    rows: list[dict[str, Any]] = [
        {
            "slot": one.component.name,
            "uid": None if one.component.uid is None else one.component.uid.hex(),
            "bytes": one.component.size,
            "check_value": "as in the ledger" if one.is_checked else "not kept",
            "result": "PASS",
        }
        for one in opened
    ]
    value = {"verified": True, "in_ledger": row is not None, "digest": frame.digest.hex(), "components": rows}
    lines = [f"PASS  {one['slot']}  {one['bytes']} bytes" for one in rows if one["uid"] is None]
    own = Counter(one["slot"] for one in rows if one["uid"] is not None)
    lines += [f"PASS  {slot}  for each of {count} boards" for slot, count in own.items()]
    text = "\n".join([*lines, f"{len(rows)} components open" + ("" if row is not None else f"; {NOT_KNOWN}")])
    return Shown(value, text, NeedsPerson.exit_code if row is None else 0)


def list_made(options: argparse.Namespace) -> Shown:
    """Oldest first."""
    state = open_state(options.dir)
    try:
        rows = list(list_bundles(state.connection))
    finally:
        state.close()
    value = [
        {
            "digest": one.digest.hex(),
            "product": one.product,
            "job": one.job,
            "authority": one.authority,
            "version": one.version,
            "quantity": one.quantity,
            "boards": None if one.uids is None else len(one.uids),
            "made_at": one.made_at,
            "expires": one.expires,
        }
        for one in rows
    ]
    return Shown(value, "" if value else "no bundles: mpserver bundle create")


def as_lines(value: dict[str, Any]) -> str:
    """For people: the manifest, then a line for each component."""
    uids = value["uids"]
    rows = (
        ("file", f"{value['file']}, {value['bytes']} bytes"),
        ("digest", value["digest"]),
        ("product", f"{value['product']}, job {value['job']}, realm {value['realm']}"),
        ("under", "the class key: first loading" if value["authority"] == "mp" else f"the key of {value['authority']}"),
        ("version", f"{value['version']}, none below {value['minimum']} from it on"),
        ("expires", _day(value["expires"])),
        ("for", f"{value['life_cycle']} parts, family {value['family'] or 'any'}, SRK {value['srk_hash'] or 'any'}"),
        (
            "boards",
            None if uids is None else f"{len(uids)} listed: {', '.join(uids[:3])}{' ...' if len(uids) > 3 else ''}",
        ),
        ("quantity", value.get("quantity")),
        ("job secret", None if value["secret_id"] is None else f"needed, id {value['secret_id']}"),
        ("its text", value.get("job_secret_file")),
    )
    lines = [f"{name:<11}{one}" for name, one in rows if one is not None]
    return "\n".join([*lines, *_group(value["components"])])


def _group(components: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line for each slot: a bundle may hold one of its own for each of thousands of boards."""
    for slot, rows in groupby(components, key=lambda one: str(one["slot"])):
        told = list(rows)
        one, sizes = told[0], sorted({row["bytes"] for row in told})
        size = f"{sizes[0]} bytes" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} bytes"
        boards = "" if one["uid"] is None else f", one for each of {len(told)} boards"
        yield f"  {slot}: {one['kind']}, {size}, version {one['version']}, {one['action']}{boards}"


def _day(moment: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))
