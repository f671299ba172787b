"""mpserver legacy: NXP's old format, read so that its values can go into bundles. Nothing here writes it.

Exit codes beyond those of every command: 65 a file is not what it has to be, 77 nothing was written because a person
has to confirm the key (docs/operate.md).
"""

import argparse
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from mpserver.errors import NeedsPerson, Usage
from mpserver.handed import open_plain, read_fingerprint
from mpserver.keysource import reading
from mpserver.legacy import BLACK_BLOB_BYTES, UNPROVEN, check_old, has_equal_halves, open_old
from mpserver.mpuse import name_key
from mpserver.office import NAME
from mpserver.output import Shown, write_secret

READ_MAX_BYTES: Final = 4_096
"""More than an old file or a black blob has, so that a longer one is told by its length."""
SHARED: Final = (
    "SHA-256(X || Y) of the MP public key opens every old file under it, and no bundle of ours; the MP public key"
    " itself opens both"
)
BURNT: Final = (
    "A signature gives the public key away to whoever knows its message, and the public key opens every old file:"
    " nothing was written; make new values"
)
HALVES: Final = "both halves are the same, so this is no random key"


def configure(parser: argparse.ArgumentParser) -> None:
    """Verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    look = verbs.add_parser("inspect", help="is this a file for U-Boot's export_key_blob?")
    look.add_argument("file", type=Path, metavar="FILE")
    look.set_defaults(run=inspect)
    turn = verbs.add_parser("convert", help="open such a file, for `mpserver bundle create --value SLOT=FILE`")
    turn.add_argument("file", type=Path, metavar="FILE")
    turn.add_argument("--key-file", type=Path, required=True, metavar="FILE", help="the MP public key, or its console")
    turn.add_argument("--confirm", metavar="KEY-ID", help="convert if this is the key's id; left out: the id is shown")
    turn.add_argument("--slot", required=True, metavar="NAME", help="the slot that takes the value")
    turn.add_argument("--out", type=Path, required=True, metavar="FILE", help="the value, mode 600")
    turn.set_defaults(run=convert)


def inspect(options: argparse.Namespace) -> Shown:
    """Shape alone: the format says nothing of what is in it."""
    raw = _read_old(options.file)
    return Shown(value := _describe(raw), _as_lines(value))


def convert(options: argparse.Namespace) -> Shown:
    """Writes nothing before the key was confirmed, and nothing over another file."""
    if not NAME.fullmatch(options.slot):
        raise Usage(f"--slot {options.slot!r} is no name of a slot")
    raw = _read_old(options.file)
    open_plain(options.key_file).close()
    with reading(options.key_file) as found:
        if found.has_signed:
            raise NeedsPerson(f"{options.key_file} holds a signature by this key. {BURNT}")
        named = name_key(found.key.reveal()).hex()
        value = {**_describe(raw), "key_id": named, "slot": options.slot, "written": None}
        if options.confirm is None:
            words = "nothing was written. Compare the key's id with `mpserver mp vault list`, then: --confirm KEY-ID"
            return Shown(value, f"{_as_lines(value)}\n{words}", NeedsPerson.exit_code)
        if read_fingerprint(options.confirm) != named:
            raise NeedsPerson("that is not the id of the key in this file; nothing was written")
        write_secret(options.out, open_old(raw, found.key))
    value["written"] = str(options.out)
    then = (
        f"mpserver bundle create ... --value {options.slot}={options.out}; compare a board's check value, then destroy"
        f" {options.out} and {options.file}"
    )
    return Shown(value, f"{_as_lines(value)}\nnext      {then}")


def _read_old(path: Path) -> bytes:
    with open_plain(path) as file:
        raw = file.read(READ_MAX_BYTES)
    check_old(raw)
    return raw


def _describe(raw: bytes) -> dict[str, Any]:
    notes = [UNPROVEN, SHARED, *([HALVES] if has_equal_halves(raw) else [])]
    return {
        "format": "export_key_blob",
        "bytes": len(raw),
        "sha256": sha256(raw).hexdigest(),
        "authenticated": False,
        "notes": notes,
    }


def _as_lines(value: dict[str, Any]) -> str:
    rows = [
        ("file", f"{value['bytes']} bytes for U-Boot's export_key_blob (a black blob has {BLACK_BLOB_BYTES})"),
        ("SHA-256", value["sha256"]),
        ("key", value.get("key_id")),
        ("slot", value.get("slot")),
        ("written", value.get("written")),
        *(("note", one) for one in value["notes"]),
    ]
    return "\n".join(f"{name:<10}{one}" for name, one in rows if one)
