"""mpserver mp vault: MP public keys that are secrets (mp_use = secret), in the vault and nowhere else.

What is printed is the key's id, 32 hex digits (docs/wire.md 11.2): a name that says nothing of the key.
"""

import argparse
from pathlib import Path
from typing import Any, Final

from mpserver.errors import NeedsPerson, Usage
from mpserver.handed import read_fingerprint, read_hex
from mpserver.hiding import HiddenRow, burn, destroy, find_hidden, hide, list_hidden
from mpserver.keyrecords import PART_MAX
from mpserver.keysource import FoundKey, reading, refuse_signed
from mpserver.keystore import destroy_file
from mpserver.mpuse import name_key, was_compared
from mpserver.output import Shown
from mpserver.scan.filters import make_filter
from mpserver.state import State, open_state

ID_BYTES: Final = 16
COPIES: Final = (
    "what was read is overwritten in this process; a copy that Python made of it is gone when it ends, which is now"
)
COMPARED: Final = (
    "`mp compare` wrote the SHA-256 of this key into the ledger before it was a secret. That says nothing of bundles,"
    " but NXP's old format takes this digest as a key: never use that format with this SRK set"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Verbs."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="VERB")
    take = verbs.add_parser("import", help="keep an MP public key as a secret, once its fingerprint is confirmed")
    _add_source(take)
    take.add_argument("--confirm", metavar="FINGERPRINT", help="keep the key if this is its fingerprint")
    take.add_argument("--part", type=_part, metavar="TEXT", help="part type, to tell keys apart in lists")
    take.add_argument("--wipe", action="store_true", help="then overwrite FILE and remove it")
    take.set_defaults(run=import_key)
    show = verbs.add_parser("fingerprint", help="print a key's fingerprint; needs no state directory, keeps nothing")
    _add_source(show)
    show.set_defaults(run=print_fingerprint)
    verbs.add_parser("list", help="keys kept, by fingerprint").set_defaults(run=list_keys)
    end = verbs.add_parser("destroy", help="overwrite a key: no bundle can be made or opened under it here any more")
    end.add_argument("fingerprint", help="32 hex digits, as `mp vault list` prints them")
    end.add_argument("--confirm", metavar="FINGERPRINT", help="the same again: do it")
    end.set_defaults(run=destroy_key)


def _add_source(parser: argparse.ArgumentParser) -> None:
    text = "64 raw bytes, hex, PEM, a record of mpsim or a U-Boot log"
    parser.add_argument("file", type=Path, metavar="FILE", help=f'{text}; "-" is standard input')


def _part(text: str) -> str:
    if not text.isprintable() or len(text) > PART_MAX:
        raise Usage(f"--part is a printable text of at most {PART_MAX} letters")
    return text


def import_key(options: argparse.Namespace) -> Shown:
    """Keeps nothing but what was confirmed by its whole fingerprint."""
    if options.wipe:
        _check_wipeable(options.file)
    state = open_state(options.dir)
    try:
        with reading(options.file) as found:
            value, text = _keep(state, found, options)
    finally:
        state.close()
    if value["refused"] is not None:
        return Shown(value, text, NeedsPerson.exit_code)
    if options.wipe:
        destroy_file(options.file)
        value["wiped"] = True
        text += f"\n{options.file} is overwritten and removed; what its file system or flash keeps elsewhere is not"
    return Shown(value, f"{text}\n{COPIES}")


def _keep(state: State, found: FoundKey, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    mpk_id = name_key(found.key.reveal())
    if found.has_signed:
        burn(state, mpk_id, "a signature in a log")
        raise refuse_signed()
    part = found.part if options.part is None else options.part
    value: dict[str, Any] = {
        "fingerprint": mpk_id.hex(),
        "part": part,
        "origin": found.origin,
        "kept": False,
        "new": False,
        "wiped": False,
        "refused": None,
        "notes": [COMPARED] if was_compared(state.connection, found.key) else [],
    }
    lines = [
        f"fingerprint  {mpk_id.hex()}",
        f"origin       {found.origin}",
        *(f"note: {one}" for one in value["notes"]),
    ]
    if options.confirm is None:
        value["refused"] = "not-confirmed"
        lines.append(
            "nothing was kept. Have the fingerprint read out by whoever has another board of this class"
            " (mpserver mp vault fingerprint FILE), then: --confirm FINGERPRINT"
        )
        return value, "\n".join(lines)
    if read_fingerprint(options.confirm) != mpk_id.hex():
        raise NeedsPerson("that is not the fingerprint of this key; nothing was kept")
    value["new"] = hide(state, found.key, part, found.origin, make_filter(found.key))
    value["kept"] = True
    words = "is kept in the vault" if value["new"] else "was kept already"
    lines.append(f'the key {words}; for the product file:\nmp_use = "secret"\nmpk = "{mpk_id.hex()}"')
    return value, "\n".join(lines)


def _check_wipeable(path: Path) -> None:
    """Before anything is kept. Raises Usage."""
    if str(path) == "-" or path.is_symlink() or not path.is_file() or path.stat().st_nlink != 1:
        raise Usage(f"--wipe: {path} is no plain file with one name, so it cannot be removed for good")


def print_fingerprint(options: argparse.Namespace) -> Shown:
    """For whoever compares: of a log with a signature too, which says so."""
    with reading(options.file) as found:
        name, has_signed = name_key(found.key.reveal()).hex(), found.has_signed
    value = {"fingerprint": name, "origin": found.origin, "burnt": has_signed}
    burnt = "\nTHIS KEY IS BURNT: the log holds a signature by it, which gives it away" if has_signed else ""
    return Shown(value, f"fingerprint  {name}{burnt}")


def list_keys(options: argparse.Namespace) -> Shown:
    """Every key that was ever kept; the vault's own names have the last word on what is there."""
    state = open_state(options.dir)
    try:
        value = [_describe(one) for one in list_hidden(state)]
    finally:
        state.close()
    return Shown(value, "" if value else "no keys: mpserver mp vault import FILE")


def _describe(row: HiddenRow) -> dict[str, Any]:
    return {
        "fingerprint": row.mpk_id.hex(),
        "state": row.state,
        "part": row.part,
        "origin": row.origin,
        "filter": row.filter is not None,
        "products": list(row.products),
        "added_at": row.added_at,
    }


def destroy_key(options: argparse.Namespace) -> Shown:
    """For good: the chips make the key anew, this server does not. A copy of it can be imported again."""
    mpk_id = read_hex(read_fingerprint(options.fingerprint))
    if mpk_id is None or len(mpk_id) != ID_BYTES:
        raise Usage(f"a fingerprint has {2 * ID_BYTES} hex digits; `mpserver mp vault list` shows them")
    state = open_state(options.dir)
    try:
        row = find_hidden(state, mpk_id)
        if row is not None and options.confirm is None:
            used = f"; products {', '.join(row.products)} are made under it" if row.products else ""
            text = f"key {mpk_id.hex()} is {row.state}{used}\nnothing was done: --confirm {mpk_id.hex()} destroys it"
            return Shown({**_describe(row), "destroyed": False}, text, NeedsPerson.exit_code)
        if options.confirm is not None and read_fingerprint(options.confirm) != mpk_id.hex():
            raise NeedsPerson("--confirm is not the fingerprint named before it; nothing was done")
        row = destroy(state, mpk_id)
    finally:
        state.close()
    return Shown(
        {**_describe(row), "destroyed": True}, f"key {mpk_id.hex()} is destroyed; its name is never used to sign"
    )
