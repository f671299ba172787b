"""The [[credential]] tables of anchors.toml: who may have which slot."""

import re
from collections.abc import Mapping
from typing import Any, Final

from mpagent.credentials.allow import (
    ALLOWED_MAX,
    CREDENTIAL_ID,
    KEY_DESCRIPTION,
    KEY_TYPES,
    UNIT_AND_ID_MAX_BYTES,
    UNIT_NAME,
    VOLUME_MAX_BYTES,
    VOLUME_NAME,
    AllowList,
    KernelKey,
    UnitRequest,
    VolumeRequest,
)
from mpagent.tomlfile import Check, Key, Table, one_of, text
from mpwire.limits import NAME_MAX_BYTES


def _shaped(form: re.Pattern[str], words: str) -> Check:
    """A text that `form` fits as a whole."""

    def check(value: Any) -> str:
        if isinstance(value, str) and form.fullmatch(value):
            return value
        raise ValueError(words)

    return check


_RECEIVERS: Final[dict[str, dict[str, Key]]] = {
    "unit": {
        "unit": Key(_shaped(UNIT_NAME, "the whole name of a unit, like app.service"), required=True),
        "id": Key(_shaped(CREDENTIAL_ID, 'a credential id: printable ASCII without ":" and "/"'), required=True),
    },
    "volume": {"volume": Key(_shaped(VOLUME_NAME, "the name of a volume in crypttab"), required=True)},
    "key": {
        "key": Key(_shaped(KEY_DESCRIPTION, "a description like PREFIX:NAME"), required=True),
        "type": Key(one_of(*KEY_TYPES)),
    },
}
"""The keys of one [[credential]] by the key that names who receives it."""


def read_allowed(table: Table, destinations: Mapping[str, str]) -> AllowList:
    """All [[credential]] below `table`. `destinations` are those of the image's slots by name. Raises ConfigWrong."""
    requests: dict[UnitRequest | VolumeRequest, str] = {}
    keys: dict[str, KernelKey] = {}
    for one in table.tables("credential"):
        receiver = _find_receiver(one)
        read = one.read({**_RECEIVERS[receiver], "slot": Key(text(NAME_MAX_BYTES), required=True)})
        _check_slot(one, read["slot"], destinations, receiver)
        if receiver == "key":
            key = KernelKey(read["key"], read.get("type", KEY_TYPES[0]), read["slot"])
            known = key.description in keys
            keys.setdefault(key.description, key)
        else:
            request = _make_request(one, read)
            known = request in requests
            requests.setdefault(request, read["slot"])
        if known:
            raise one.wrong(receiver, "the same receiver is named twice")
        if len(requests) + len(keys) > ALLOWED_MAX:
            raise one.wrong("", f"more than {ALLOWED_MAX} credentials")
    return AllowList(requests, tuple(keys.values()))


def _find_receiver(one: Table) -> str:
    found = [name for name in _RECEIVERS if name in one.values]
    if len(found) != 1:
        raise one.wrong("", f"one [[credential]] has one receiver: {', '.join(_RECEIVERS)}")
    return found[0]


def _check_slot(one: Table, slot: str, destinations: Mapping[str, str], receiver: str) -> None:
    if slot not in destinations:
        raise one.wrong("slot", f"no [[slot]] of this image is named {slot!r}")
    if (destinations[slot] == "keyring") != (receiver == "key"):
        raise one.wrong("slot", f'slot {slot!r} has destination "{destinations[slot]}": "keyring" is for key alone')


def _make_request(one: Table, read: dict[str, Any]) -> UnitRequest | VolumeRequest:
    if "volume" in read:
        if len(read["volume"]) > VOLUME_MAX_BYTES:
            raise one.wrong("volume", f"volume has more than {VOLUME_MAX_BYTES} bytes: systemd cannot ask for it")
        return VolumeRequest(read["volume"])
    if len(read["unit"]) + len(read["id"]) > UNIT_AND_ID_MAX_BYTES:
        raise one.wrong("id", f"unit and id have more than {UNIT_AND_ID_MAX_BYTES} bytes: systemd cannot ask for it")
    return UnitRequest(read["unit"], read["id"])
