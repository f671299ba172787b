"""anchors.toml: trust and choice of the signed image. Read once, covered by verity, never changed by the device."""

import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from mpagent.credentials.anchors import read_allowed
from mpagent.errors import AnchorsMissing
from mpagent.hal.choose import (
    ATTESTERS,
    COUNTERS,
    KEYRINGS,
    SEALERS,
    SOCS,
    BoardChoice,
    CardWanted,
    PcrChoice,
    TokenChoice,
)
from mpagent.image import BOOT_MAX_BYTES, FinishChoice, Image, WantedSlot
from mpagent.offline.anchors import KINDS_LOADED, check_use, read_wipe
from mpagent.tomlfile import Check, Key, Table, list_of, octets, one_of, one_table, read_file, text, truth, whole
from mpwire.limits import NAME_MAX_BYTES, SLOT_VALUE_MAX_BYTES, SLOTS_MAX
from mpwire.messages.grant import DESTINATIONS, KINDS_MADE
from mpwire.messages.issuer import PCR_INDEX_MAX

_TIME_MAX: Final = 2**40
_NAME: Final = text(NAME_MAX_BYTES)
_UUID: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
APPROVALS: Final = Path("usr/lib/mpagent/pcrs")
"""Below the root: approvals come with the image they speak of."""


def _pem(value: Any) -> str:
    if isinstance(value, str) and value.strip().startswith("-----BEGIN CERTIFICATE-----"):
        return value
    raise ValueError("certificates in PEM")


def _point(value: Any) -> bytes:
    """The curve itself is looked at where the root is used first: here nothing heavy is loaded."""
    point: bytes = octets(65, 65)(value)
    if point[0] != 4:
        raise ValueError("uncompressed P-256 points: 65 bytes that begin with 04")
    return point


def _path(value: Any) -> Path:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("a path")
    return Path(value)


def _absolute(value: Any) -> Path:
    if not _path(value).is_absolute():
        raise ValueError("a path from the root on, /...")
    return Path(value)


def _uuid(value: Any) -> UUID:
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise ValueError("UUIDs of the form 01234567-89ab-cdef-0123-456789abcdef")
    return UUID(value)


def _rising(value: Any) -> tuple[int, ...]:
    numbers: tuple[int, ...] = list_of(whole(0, PCR_INDEX_MAX), 1, PCR_INDEX_MAX + 1)(value)
    if any(low >= high for low, high in pairwise(numbers)):
        raise ValueError("a list of PCR numbers, rising")
    return numbers


def _tcti(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value.startswith(("device:/", "swtpm:path=")):
        raise ValueError('"device:/PATH" or "swtpm:path=SOCKET"')
    return value


def _preferences(offered: Iterable[str]) -> Check:
    """One name or a list of distinct names, the preferred one first; becomes a tuple."""
    known = one_of(*offered)
    several = list_of(known, 1, len(tuple(offered)))

    def check(value: Any) -> tuple[str, ...]:
        names: tuple[str, ...] = several(value) if isinstance(value, list) else (known(value),)
        if len(set(names)) < len(names):
            raise ValueError("a list that names each backend once")
        return names

    return check


_IMAGE: Final = {
    "realm": Key(one_of("lab", "production"), required=True),
    "product": Key(_NAME, required=True),
    "roots": Key(list_of(_point, 1, 2), required=True),
    "tls_roots": Key(list_of(_pem, 0, 4)),
    "build_time": Key(whole(0, _TIME_MAX), required=True),
    "allow_open": Key(truth),
    "mp_key_ids": Key(list_of(octets(32, 32), 0, 16)),
    "mp_use": Key(one_of("sign", "secret")),
    "bundle_minimum": Key(whole(0, 2**63 - 1)),
    "offline": Key(one_table),
    "epoch": Key(whole(0, 2**31)),
    "swname": Key(_NAME),
    "swversion": Key(_NAME),
    "oemid": Key(octets(3, 16)),
    "board": Key(one_table, required=True),
    "pkcs11": Key(one_table),
    "card": Key(one_table),
    "pcrs": Key(one_table),
    "phase": Key(one_of("sealed", "final")),
    "finish": Key(one_table),
    "slot": Key(one_table, required=True),
    "credential": Key(one_table),
}
_BOARD: Final = {
    "attest": Key(_preferences(ATTESTERS), required=True),
    "seal": Key(_preferences(SEALERS), required=True),
    "keys": Key(_preferences(KEYRINGS), required=True),
    "soc": Key(_preferences(SOCS), required=True),
    "tpm_tcti": Key(_tcti),
    "sim_chip": Key(_path),
    "counter": Key(_preferences(COUNTERS)),
    "optee_node": Key(_absolute),
    "relay_tas": Key(list_of(_uuid, 0, 4)),
    "open_blob": Key(octets(80, 80)),
    "kernel_key_sources": Key(list_of(one_of("caam", "tee", "tpm", "dcp"), 1, 4)),
}
_TOKEN: Final = {
    "module": Key(_absolute, required=True),
    "token": Key(text(32), required=True),
    "pin_file": Key(_absolute, required=True),
    "serial": Key(text(16)),
}
_CARD: Final = {
    "pin_file": Key(_absolute, required=True),
    "reader": Key(text(128)),
    "chain_file": Key(_absolute),
}
_PCRS: Final = {
    "authority": Key(_point, required=True),
    "pcrs": Key(_rising, required=True),
    "approvals": Key(_path),
}


def _place(value: Any) -> str:
    """A path as a text: the story of an enrollment, which never sees a disk, carries it."""
    return str(_absolute(value))


_FINISH: Final = {
    "after": Key(one_of("reboot", "poweroff", "stay")),
    "luks": Key(_place),
    "luks_slot": Key(_NAME),
    "old_key_slot": Key(_NAME),
    "installer": Key(one_of("raw", "rauc", "swupdate")),
    "target": Key(_place),
    "state": Key(_place),
    "boot_old": Key(_place),
    "boot_new": Key(_place),
    "boot_new_bytes": Key(whole(1, BOOT_MAX_BYTES)),
    "boot_new_digest": Key(octets(32, 32)),
}
_NEEDED_BESIDE: Final = (
    ("luks", "luks_slot"),
    ("luks_slot", "luks"),
    ("old_key_slot", "luks"),
    ("luks", "state"),
    ("installer", "target"),
    ("target", "installer"),
    *(("boot_old", name) for name in ("installer", "state", "boot_new")),
    ("boot_new", "boot_old"),
    ("boot_new", "boot_new_bytes"),
    ("boot_new_bytes", "boot_new_digest"),
    ("boot_new_digest", "boot_new"),
)
"""A key of [finish], and the one that it means nothing without."""
_SLOT: Final = {
    "name": Key(_NAME, required=True),
    "kind": Key(one_of(*dict.fromkeys((*KINDS_MADE, *KINDS_LOADED))), required=True),
    "destination": Key(one_of(*DESTINATIONS)),
    "length": Key(whole(16, SLOT_VALUE_MAX_BYTES)),
}


def read_anchors(path: Path) -> tuple[Image, BoardChoice]:
    """Raises ConfigWrong naming file and line; there is no image without this file."""
    table = read_file(path)
    if table is None:
        raise AnchorsMissing(f"{path}: missing: this image has no trust anchors, so it trusts nobody")
    values = table.read(_IMAGE)
    own = {name: value for name, value in values.items() if _IMAGE[name].check is not one_table}
    image = Image(**{"tls_roots": (), **own}, slots=_read_slots(table))
    image = image._replace(wipes=read_wipe(table))
    image = image._replace(finish=_read_finish(table, image.slots))
    image = image._replace(credentials=read_allowed(table, {slot.name: slot.destination for slot in image.slots}))
    choice = _read_board(table, image)
    check_use(table, image, choice)
    return image, choice


def _read_board(table: Table, image: Image) -> BoardChoice:
    board = table.table("board").read(_BOARD)
    choice = BoardChoice(**board, mp_key_ids=image.mp_key_ids, mp_secret=image.mp_use == "secret")
    if "pkcs11" in table.values:
        token = table.table("pkcs11").read(_TOKEN)
        serial = token.pop("serial", None)
        choice = choice._replace(token=TokenChoice(**token, serial=None if serial is None else serial.encode()))
    if "card" in table.values:
        choice = choice._replace(card=CardWanted(**table.table("card").read(_CARD)))
    if "pcrs" in table.values:
        pcrs = {"approvals": APPROVALS, **table.table("pcrs").read(_PCRS)}
        choice = choice._replace(pcrs=PcrChoice(**pcrs, realm=image.realm, product=image.product))
    return choice


def _read_finish(table: Table, slots: tuple[WantedSlot, ...]) -> FinishChoice | None:
    """None: this image stays as it is. A part that needs another is refused without it."""
    if "finish" not in table.values:
        return None
    own = table.table("finish")
    choice = FinishChoice(**own.read(_FINISH))
    for name, other in _NEEDED_BESIDE:
        if getattr(choice, name) is not None and getattr(choice, other) is None:
            raise own.wrong(name, f"{name} needs the key {other!r} beside it")
    if choice.installer == "raw" and choice.state is None:
        raise own.wrong("installer", "installer \"raw\" needs the key 'state' beside it")
    for name in ("luks_slot", "old_key_slot"):
        if getattr(choice, name) not in {None, *(one.name for one in slots)}:
            raise own.wrong(name, f"{name} names a slot that this image does not ask for")
    return choice


def _read_slots(table: Table) -> tuple[WantedSlot, ...]:
    slots: dict[str, WantedSlot] = {}
    for one in table.tables("slot"):
        slot = WantedSlot(**{"destination": "sealed", **one.read(_SLOT)})
        if slot.name in slots:
            raise one.wrong("name", f"slot {slot.name!r} is wanted twice")
        if len(slots) == SLOTS_MAX:
            raise one.wrong("", f"more than {SLOTS_MAX} slots")
        slots[slot.name] = slot
    return tuple(slots.values())
