"""Fuse UIDs of boards, as a person lists them: one a line, in hexadecimal, `#` before a comment."""

from pathlib import Path
from typing import Final

from mpserver.errors import Usage
from mpserver.handed import read_file
from mpwire.limits import BUNDLE_UIDS_MAX

UID_BYTES: Final = (8, 16)
"""i.MX8M and 8X have 8 bytes, i.MX8ULP and 9 have 16."""
LIST_MAX_BYTES: Final = 1_048_576


def read_uids(path: Path) -> tuple[bytes, ...]:
    """In the order of the file. Raises Usage naming the line: no UID, one that stood before, none or too many."""
    try:
        text = read_file(path, LIST_MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Usage(f"{path} is not a text of UIDs: {error.reason}") from error
    found: dict[bytes, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        told = line.partition("#")[0].strip()
        if not told:
            continue
        uid = read_uid(told)
        if uid is None:
            raise Usage(f"{path}:{number}: not a UID: 16 hex digits, or 32 on parts whose UID has 128 bits")
        if uid in found:
            raise Usage(f"{path}:{number}: this UID stood in line {found[uid]} already")
        found[uid] = number
    if not 1 <= len(found) <= BUNDLE_UIDS_MAX:
        raise Usage(f"{path} lists {len(found)} UIDs; a bundle is for 1 to {BUNDLE_UIDS_MAX} boards: make several")
    return tuple(found)


def read_uid(told: str) -> bytes | None:
    """None for what is no UID. All zeros or ones is what a part without fuses reads."""
    try:
        uid = bytes.fromhex(told.removeprefix("0x"))
    except ValueError:
        return None
    return uid if len(uid) in UID_BYTES and len(set(uid)) > 1 else None
