"""What mp_use in anchors.toml asks of the rest of it: a board is provisioned over a line, or by bundles."""

from typing import Final

from mpagent.hal.choose import CLASS_KEYS, BoardChoice
from mpagent.image import Image
from mpagent.tomlfile import Key, Table, truth
from mpwire.messages.bundle import UPDATE_AUTHORITIES
from mpwire.messages.grant import KINDS_MADE

KINDS_LOADED: Final = ("local", "random", "static", "update-key", "file")
"""Slots of an image that is provisioned by bundles. A certificate cannot be had without a line."""
UNSERVED: Final = ("update-key", "file")
"""Kinds that no unit, volume or keyring gets: the one is for the agent alone, the other is streamed by `secret get`."""
UPDATE_SLOT: Final = {authority: f"update-{authority}" for authority in UPDATE_AUTHORITIES}
"""Where the key of an update authority lies (docs/wire.md 11.5)."""
POLICY: Final = "policy"
"""Name of the component with the rights of update authorities (docs/wire.md 11.1); spelled here, as nothing heavy may
be loaded to read a configuration."""
_OFFLINE: Final = {"wipe": Key(truth)}


def read_wipe(table: Table) -> bool:
    """`wipe` of [offline]."""
    return bool(table.table("offline").read(_OFFLINE).get("wipe", False))


def check_use(table: Table, image: Image, choice: BoardChoice) -> None:
    """Raises ConfigWrong for what one way of provisioning has and the other has not."""
    if image.mp_use == "secret":
        _check_secret(table, image, choice)
        return
    for name in ("bundle_minimum", "offline"):
        if name in table.values:
            raise table.wrong(name, f'{name} is for images that say mp_use = "secret"')
    if not image.tls_roots:
        raise table.wrong("tls_roots", "key 'tls_roots' is missing: without one no server is believed")
    for place, one in zip(table.tables("slot"), image.slots, strict=True):
        if one.kind not in KINDS_MADE:
            raise place.wrong("kind", f'kind must be one of {", ".join(KINDS_MADE)}, unless mp_use is "secret"')


def _check_secret(table: Table, image: Image, choice: BoardChoice) -> None:
    if image.mp_key_ids:
        raise table.wrong("mp_key_ids", 'mp_key_ids pins a key by its SHA-256, which mp_use = "secret" never makes')
    others = [name for name in choice.attest if name not in CLASS_KEYS]
    if others:
        raise table.table("board").wrong(
            "attest", f'attest must be one of {", ".join(CLASS_KEYS)} where mp_use is "secret", not {others[0]!r}'
        )
    if image.finish is not None and image.finish.installer is not None:
        raise table.table("finish").wrong("installer", "a bundle names no image to install; leave installer out")
    for place, one in zip(table.tables("slot"), image.slots, strict=True):
        _check_slot(place, one.name, one.kind)
    _check_served(table, {one.name: one.kind for one in image.slots})


def _check_slot(place: Table, name: str, kind: str) -> None:
    if kind not in KINDS_LOADED:
        raise place.wrong("kind", f'kind must be one of {", ".join(KINDS_LOADED)} where mp_use is "secret"')
    if name == POLICY:
        raise place.wrong("name", f"{POLICY!r} is the name of the rights of update authorities, and of no slot")
    if (kind == "update-key") != (name in UPDATE_SLOT.values()):
        names = ", ".join(UPDATE_SLOT.values())
        raise place.wrong("name", f"slots of kind update-key are named {names}, and no other is named so")


def _check_served(table: Table, kinds: dict[str, str]) -> None:
    for one in table.tables("credential"):
        if kinds.get(one.values.get("slot", "")) in UNSERVED:
            raise one.wrong("slot", "this slot is a file or an update key, which no unit, volume or keyring gets")
    finish = table.table("finish")
    for key in ("luks_slot", "old_key_slot"):
        if kinds.get(finish.values.get(key, "")) in UNSERVED:
            raise finish.wrong(key, f"{key} names a file or an update key, which is no key of a volume")
