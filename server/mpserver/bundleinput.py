"""What a person hands over for a bundle: a day, a folder of values, a policy, conditions, a job secret's file."""

import calendar
import re
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from mpserver.bundlemaking import hand_over
from mpserver.bundleplan import CONDITIONS, Handed
from mpserver.certificates import DAY_S
from mpserver.errors import Usage
from mpserver.handed import read_file
from mpserver.uidlist import read_uid
from mpwire.errors import Malformed
from mpwire.jobsecret import TEXT_MAX_BYTES, read_job_secret
from mpwire.limits import SLOT_VALUE_MAX_BYTES
from mpwire.messages.bundle import BUNDLE_POLICY, UPDATE_AUTHORITIES, BundlePolicy
from mpwire.secret import Secret

DAYS_MAX: Final = 3_650
POLICY_MAX_BYTES: Final = 65_536
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def read_expiry(told: str, now: int) -> int:
    """Seconds since 1970: the end of a day (UTC), or so many days from now. Raises Usage."""
    if told.isascii() and told.isdecimal() and len(told) <= len(str(DAYS_MAX)) and 1 <= int(told) <= DAYS_MAX:
        return now + int(told) * DAY_S
    if _DATE.fullmatch(told):
        try:
            return calendar.timegm(time.strptime(told, "%Y-%m-%d")) + DAY_S - 1
        except ValueError:
            pass  # a month or a day that there is not
    raise Usage(f"--expires {told[:20]}: a day as 2027-06-30, or 1 to {DAYS_MAX} days from now")


def read_values(told: Iterable[str]) -> dict[str, Handed]:
    """SLOT=FILE, each slot once. Raises Usage."""
    found: dict[str, Handed] = {}
    for one in told:
        slot, equals, path = one.partition("=")
        if not slot or not equals or not path:
            raise Usage(f"--value {one[:80]}: write SLOT=FILE")
        if slot in found:
            raise Usage(f"--value: slot {slot} is given twice")
        found[slot] = hand_over(f"--value {slot}", Path(path))
    return found


def read_own_values(folder: Path) -> dict[tuple[bytes, str], Handed]:
    """FOLDER/UID/SLOT: one folder for each board, one file for each slot. Raises Usage naming what is strange."""
    found: dict[tuple[bytes, str], Handed] = {}
    try:
        boards = sorted(folder.iterdir())
        if not boards:
            raise Usage(f"--per-device: {folder} is empty: it holds a folder for each board, named by its UID")
        for board in boards:
            uid = read_uid(board.name)
            if uid is None or not board.is_dir():
                raise Usage(f"--per-device: {board} is no folder named by a UID of 16 or 32 hex digits")
            for path in sorted(board.iterdir()):
                if (uid, path.name) in found:
                    raise Usage(f"--per-device: board {uid.hex()} has two folders, written in two ways")
                found[uid, path.name] = hand_over("--per-device", path)
    except OSError as error:
        raise Usage(f"--per-device: cannot read {error.filename}: {error.strerror}") from error
    return found


def read_conditions(told: Iterable[str]) -> dict[str, str]:
    """NAME=VALUE. Raises Usage."""
    found: dict[str, str] = {}
    for one in told:
        name, equals, value = one.partition("=")
        if name not in CONDITIONS or not equals or not value or name in found:
            raise Usage(f"--condition {one[:80]}: {', '.join(CONDITIONS)}, each once, as NAME=VALUE")
        found[name] = value
    return found


def read_rights(path: Path) -> BundlePolicy:
    """A TOML file with [slots] and [minimums] (docs/operate.md). Raises Usage naming the key."""
    try:
        tree = tomllib.loads(read_file(path, POLICY_MAX_BYTES).decode())
    except (ValueError, RecursionError) as error:
        raise Usage(f"{path}: not TOML: {error}") from None
    strange = sorted(tree.keys() - {"slots", "minimums"})
    if strange or not tree:
        raise Usage(f"{path}: {strange[0] if strange else 'empty'}: a policy has the tables [slots] and [minimums]")
    slots, minimums = _table(path, tree, "slots"), _table(path, tree, "minimums")
    for slot, owner in slots.items():
        if owner not in UPDATE_AUTHORITIES:
            raise Usage(f"{path}: slots.{slot} is not one of {', '.join(UPDATE_AUTHORITIES)}")
    for name, least in minimums.items():
        if name not in UPDATE_AUTHORITIES or type(least) is not int or not 0 <= least < 2**31:
            raise Usage(f"{path}: minimums.{name}: {', '.join(UPDATE_AUTHORITIES)} have a lowest version each")
    rights = BundlePolicy(slots, minimums)
    try:
        BUNDLE_POLICY.decode(BUNDLE_POLICY.encode(rights), SLOT_VALUE_MAX_BYTES)
    except Malformed as error:
        raise Usage(f"{path}: boards would not take this policy: {error}") from error
    return rights


def _table(path: Path, tree: dict[str, Any], name: str) -> dict[str, Any]:
    table = tree.get(name, {})
    if not isinstance(table, dict):
        raise Usage(f"{path}: {name} is no table [{name}]")
    return table


def read_secret_file(path: Path) -> Secret:
    """One line of text, as `--job-secret-out` wrote it. Raises Usage, Mistyped."""
    try:
        return read_job_secret(read_file(path, TEXT_MAX_BYTES).decode("ascii"))
    except UnicodeDecodeError:
        raise Usage(f"{path} holds no job secret: it is one line that begins with MPJS1:") from None
