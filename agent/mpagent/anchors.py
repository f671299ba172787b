"""anchors.toml: trust and choice of the signed image. Read once, covered by verity, never changed by the device."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from mpagent.errors import AnchorsMissing
from mpagent.hal.choose import ATTESTERS, KEYRINGS, SEALERS, SOCS, BoardChoice
from mpagent.image import Image, WantedSlot
from mpagent.tomlfile import Check, Key, Table, list_of, octets, one_of, one_table, read_file, text, truth, whole
from mpwire.limits import NAME_MAX_BYTES, SLOT_VALUE_MAX_BYTES, SLOTS_MAX
from mpwire.messages.grant import DESTINATIONS, KINDS_MADE

_TIME_MAX: Final = 2**40
_NAME: Final = text(NAME_MAX_BYTES)


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


def _chip(value: Any) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError("the path of a folder")
    return Path(value)


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
    "tls_roots": Key(list_of(_pem, 1, 4), required=True),
    "build_time": Key(whole(0, _TIME_MAX), required=True),
    "allow_open": Key(truth),
    "mp_key_ids": Key(list_of(octets(32, 32), 0, 16)),
    "epoch": Key(whole(0, 2**31)),
    "swname": Key(_NAME),
    "swversion": Key(_NAME),
    "oemid": Key(octets(3, 16)),
    "board": Key(one_table, required=True),
    "slot": Key(one_table, required=True),
}
_BOARD: Final = {
    "attest": Key(_preferences(ATTESTERS), required=True),
    "seal": Key(_preferences(SEALERS), required=True),
    "keys": Key(_preferences(KEYRINGS), required=True),
    "soc": Key(_preferences(SOCS), required=True),
    "tpm_tcti": Key(_tcti),
    "sim_chip": Key(_chip),
}
_SLOT: Final = {
    "name": Key(_NAME, required=True),
    "kind": Key(one_of(*KINDS_MADE), required=True),
    "destination": Key(one_of(*DESTINATIONS)),
    "length": Key(whole(16, SLOT_VALUE_MAX_BYTES)),
}


def read_anchors(path: Path) -> tuple[Image, BoardChoice]:
    """Raises ConfigWrong naming file and line; there is no image without this file."""
    table = read_file(path)
    if table is None:
        raise AnchorsMissing(f"{path}: missing: this image has no trust anchors, so it trusts nobody")
    values = table.read(_IMAGE)
    del values["board"], values["slot"]
    image = Image(**values, slots=_read_slots(table))
    return image, BoardChoice(**table.table("board").read(_BOARD), mp_key_ids=image.mp_key_ids)


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
