"""mpserver scan-image, scan-filter: is the secret of the product, or what gives it away, in an image that ships?

Exit codes: 0 clean, 77 findings, 65 nothing found and something not looked into, 64 usage (docs/scan.md).
"""

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mpissuer.policy import Product
from mpserver.errors import LogWrong, NeedsPerson, SetUp, Usage
from mpserver.handed import read_file
from mpserver.hiding import find_hidden
from mpserver.keysource import reading
from mpserver.output import Shown, write_new
from mpserver.scan import filters
from mpserver.scan.filters import Sought
from mpserver.scan.findings import Kind, Severity
from mpserver.state import open_state
from mpserver.store.products import read_products

if TYPE_CHECKING:
    from mpserver.scan.patrol import Report

FINDINGS_EXIT: Final = NeedsPerson.exit_code
UNSEEN_EXIT: Final = LogWrong.exit_code
SECONDS: Final = 3_600
SECONDS_MAX: Final = 86_400
SHOWN_MAX: Final = 40
"""Findings of one severity and image that people are shown; --json has all."""
NO_ACCESS_CTRL: Final = "CFG_NXP_CAAM_MP_NO_ACCESS_CTRL"
_KEY_NAME: Final = re.compile(r"[0-9a-f]{64}")
_CONF_MAX_BYTES: Final = 1024 * 1024
_WORDS: Final = {
    Severity.LEAK: "must not ship",
    Severity.OPEN: "gives the key to whoever asks",
    Severity.REVIEW: "a person has to look",
    Severity.UNSEEN: "not looked into",
}
_IMPORT: Final = "import the key with `mpserver mp vault import`"
_OF_SECRET: Final = (Kind.MP_SIGNATURE.value, Kind.MP_LOG.value)


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of scan-image."""
    parser.add_argument(
        "image", type=Path, nargs="+", metavar="IMAGE", help="a disk, a file system, an archive, a file"
    )
    parser.add_argument("--product", help="whose MP keys to look for; their filters are in the state directory")
    parser.add_argument("--filter", type=Path, action="append", default=[], metavar="FILE", help="look for this key")
    parser.add_argument(
        "--key-file", type=Path, metavar="FILE", help="look for this key, as `mp vault import` takes it"
    )
    parser.add_argument(
        "--optee-conf", type=Path, metavar="FILE", help="conf.mk that the image's OP-TEE was built with"
    )
    parser.add_argument(
        "--known-keys", type=Path, metavar="FILE", help="private keys that everybody has, such as a library's own tests"
    )
    parser.add_argument(
        "--time-limit", type=int, default=SECONDS, metavar="S", help="seconds for each image (default %(default)s)"
    )
    parser.set_defaults(run=scan_images)


def configure_filter(parser: argparse.ArgumentParser) -> None:
    """Options of scan-filter."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--product", help="whose MP key the vault keeps")
    source.add_argument("--key-file", type=Path, metavar="FILE", help="a key as `mp vault import` takes it")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the filter, for scan-image --filter")
    parser.set_defaults(run=make_filter)


def make_filter(options: argparse.Namespace) -> Shown:
    """What a machine that builds images needs in place of the key."""
    if options.key_file is not None:
        raw = _make_of_file(options.key_file)
    else:
        product, kept = _read_product(options)
        if kept is None:
            raise SetUp(f"product {product.name!r} has no secret key with a filter: {_IMPORT}")
        raw = kept
    write_new(options.out, raw, 0o600)
    mpk_id = filters.read_filter(raw).mpk_id.hex()
    return Shown({"mpk": mpk_id, "out": str(options.out)}, f"filter of MP key {mpk_id} written to {options.out}")


def _make_of_file(path: Path) -> bytes:
    with reading(path) as found:
        return filters.make_filter(found.key)


def scan_images(options: argparse.Namespace) -> Shown:
    """Every image, whatever is found in the ones before."""
    if not 1 <= options.time_limit <= SECONDS_MAX:
        raise Usage(f"--time-limit is 1 to {SECONDS_MAX} seconds")
    product, kept = (None, None) if options.product is None else _read_product(options)
    sought = _collect_sought(options, product, kept)
    conf = None if options.optee_conf is None else judge_conf(read_file(options.optee_conf, _CONF_MAX_BYTES))
    known = {} if options.known_keys is None else read_known(options.known_keys)
    reports = [_scan_one(image, sought, options) for image in options.image]
    sifted = [one for report in reports for one in _sift(report, product, conf)]
    told = [one for one in sifted if one["key"] not in known]
    passed = Counter(one["key"] for one in sifted if one["key"] in known)
    value = {
        "verdict": _name_verdict(told),
        "keys": [one.mpk_id.hex() for one in sought],
        "images": [{"image": one.image, "bytes": one.size, "seconds": round(one.seconds, 3)} for one in reports],
        "known": [{"key": key, "why": known[key], "times": times} for key, times in passed.items()],
        "findings": told,
    }
    lines = [*_as_lines(reports, told, sought), *(f"known key {key[:16]}: {known[key]}" for key in passed)]
    return Shown(value, "\n".join(lines), _find_exit(told))


def _read_product(options: argparse.Namespace) -> tuple[Product, bytes | None]:
    """And the filter of its key, if it has a secret one that was imported."""
    state = open_state(options.dir)
    try:
        product = read_products(state.connection, state.authority).get(options.product)
        if product is None:
            raise Usage(f"no product {options.product!r}; `mpserver product show` lists all")
        row = None if product.mpk is None else find_hidden(state, product.mpk)
    finally:
        state.close()
    return product, None if row is None else row.filter


def _collect_sought(options: argparse.Namespace, product: Product | None, kept: bytes | None) -> tuple[Sought, ...]:
    """Raises Usage, SetUp where it is not known what to look for: such a scan would call anything clean."""
    given = [filters.read_filter_file(path) for path in options.filter]
    if options.key_file is not None:
        given.append(filters.read_filter(_make_of_file(options.key_file)))
    if product is None:
        if not given:
            raise Usage("name what to look for: --product, --filter or --key-file")
        return tuple(given)
    if product.mp_use != "secret":
        return tuple(given)
    strays = [one.mpk_id.hex() for one in given if one.mpk_id != product.mpk]
    if strays:
        raise Usage(f"{strays[0]} is not the MP key of product {product.name!r}: a scan for it would tell nothing")
    if kept is not None:
        given.append(filters.read_filter(kept))
    if not given:
        raise SetUp(f"no filter of the MP key of {product.name!r}: {_IMPORT}, or hand over --filter or --key-file")
    return (given[0],)


def judge_conf(raw: bytes) -> bool:
    """Whether this OP-TEE refuses Linux. The layer's check of production images knows the same rule."""
    lines = [line.strip() for line in raw.decode("utf-8", "replace").splitlines()]
    if not any(line.startswith("CFG_") for line in lines):
        raise Usage("--optee-conf holds no option of OP-TEE: it is conf.mk of its build folder")
    values = [line.split("=", 1)[1].strip() for line in lines if line.startswith(NO_ACCESS_CTRL + "=")]
    return all(value in ("", "n") for value in values)


def read_known(path: Path) -> dict[str, str]:
    """Why a private key is no secret, by its name; one line each. Raises Usage for a line that gives no reason."""
    known = {}
    text = read_file(path, _CONF_MAX_BYTES).decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        key, _, why = line.partition(" ")
        if not line.strip() or line.startswith("#"):
            continue
        if not _KEY_NAME.fullmatch(key) or not why.strip():
            raise Usage(f"{path}, line {number}: 64 hexadecimal digits, a space, and why everybody may have this key")
        known[key] = why.strip()
    return known


def _scan_one(image: Path, sought: Sequence[Sought], options: argparse.Namespace) -> "Report":
    from mpserver.scan.patrol import examine  # no other command pays for its libraries

    show = sys.stderr is not None and sys.stderr.isatty() and not options.json
    began = time.monotonic()

    def watch(done: int, size: int, path: str) -> None:
        if show:
            rate = done / max(0.1, time.monotonic() - began) / 2**20
            line = f"{done / 2**20:.0f} MiB looked at ({size / 2**20:.0f} MiB image), {rate:.0f} MiB/s  {path}"
            print(f"\r\x1b[K{line[:118]}", end="", file=sys.stderr, flush=True)

    try:
        return examine(image, sought, float(options.time_limit), watch)
    finally:
        if show:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _sift(report: "Report", product: Product | None, conf: bool | None) -> Iterator[dict[str, Any]]:
    """What counts for this product: a key that may sign makes signatures, and a lab product believes the lab."""
    for one in report.findings:
        if product is not None and product.mp_use == "sign" and one["kind"] in _OF_SECRET:
            continue
        if product is not None and product.realm == "lab" and (one["kind"], one["form"]) == (Kind.LAB, "anchors"):
            continue
        if (one["kind"], one["form"]) == (Kind.OPTEE, "pseudo-TA") and one["severity"] == Severity.REVIEW:
            if conf:
                continue
            if conf is False:
                said = f"an OP-TEE whose MP pseudo-TA signs for Linux: {NO_ACCESS_CTRL} is set in its conf.mk"
                one = {**one, "severity": Severity.OPEN.value, "said": said}
        yield one


def _find_exit(told: Sequence[dict[str, Any]]) -> int:
    severities = {one["severity"] for one in told}
    return FINDINGS_EXIT if severities - {Severity.UNSEEN} else UNSEEN_EXIT if severities else 0


def _name_verdict(told: Sequence[dict[str, Any]]) -> str:
    return {0: "clean", FINDINGS_EXIT: "findings", UNSEEN_EXIT: "not-everywhere"}[_find_exit(told)]


def _as_lines(reports: "Sequence[Report]", told: Sequence[dict[str, Any]], sought: Sequence[Sought]) -> Iterator[str]:
    for report in reports:
        own = [one for one in told if one["image"] == report.image]
        counts = Counter(one["severity"] for one in own)
        summary = ", ".join(f"{counts[one]} {_WORDS[one]}" for one in Severity if counts[one]) or "clean"
        yield f"{report.image}: {summary}"
        for severity in Severity:
            yield from _list_some([one for one in own if one["severity"] == severity])
    advice = dict.fromkeys((one["kind"], one["advice"]) for one in told)
    for kind, text in advice:
        yield f"{kind}: {text}"
    keys = ", ".join(one.mpk_id.hex()[:16] for one in sought)
    yield f"looked for {f'MP key {keys}' if keys else 'no MP key'}, MP signatures, MP software, private keys, lab keys"


def _list_some(own: Sequence[dict[str, Any]]) -> Iterator[str]:
    for one in own[:SHOWN_MAX]:
        place = "" if one["severity"] == Severity.UNSEEN else f" at {one['offset']:#x}"
        yield f"  {one['severity']:<7} {one['path']}{place}\n          {one['said']}"
    if len(own) > SHOWN_MAX:
        yield f"  ...     {len(own) - SHOWN_MAX} more of these; --json has them all"
