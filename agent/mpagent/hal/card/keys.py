"""Device keys on the card (docs/adr/0012-card-keys.md): `sign` is PIV key 9C, `kem` is 9D, and there are no more.

The shelf holds the public half under card-key-<label>, so that another card in the reader is told from the board's own.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

from mpagent.errors import ConfigWrong, HardwareGone, NotMine, Tampered
from mpagent.hal.card.piv import Slot
from mpagent.hal.card.token import Token
from mpagent.hal.ports import DeviceKey, Keyring, Shelf
from mpwire import labels, p256
from mpwire.errors import Malformed
from mpwire.secret import Secret

SLOTS: Final[Mapping[str, Slot]] = {labels.DEVICE_SIGN: Slot.SIGNATURE, labels.DEVICE_KEM: Slot.KEY_MANAGEMENT}


class CardKey:
    """One key of the card, for the one use that PIV gives it."""

    def __init__(self, token: Token, slot: Slot) -> None:
        self._token = token
        self._slot = slot

    def public_key(self) -> bytes:
        """From the slot's certificate: PIV has no command that shows a key."""
        return self._token.point(self._slot)

    def sign(self, message: bytes) -> bytes:
        """See ports.DeviceKey. Raises HardwareGone for 9D, which PIV has for key management alone."""
        if self._slot is Slot.KEY_MANAGEMENT:
            raise HardwareGone(f"PIV key {self._slot.title} does not sign")
        return self._token.sign(self._slot, hashlib.sha256(message).digest())

    def ecdh(self, peer: bytes) -> Secret:
        """See ports.DeviceKey. Raises HardwareGone for 9C, which PIV has for signatures alone."""
        if self._slot is not Slot.KEY_MANAGEMENT:
            raise HardwareGone(f"PIV key {self._slot.title} does not agree on secrets")
        return self._token.agree(self._slot, peer)


class CardKeyring:
    """`sign` and `kem` on the card; every other label from `others`, where there is one."""

    def __init__(self, token: Token, shelf: Shelf, others: Keyring | None) -> None:
        self._token = token
        self._shelf = shelf
        self._others = others
        self._found: dict[str, CardKey] = {}

    def find_or_make(self, label: str) -> DeviceKey:
        """See ports.Keyring. Raises ConfigWrong for a label that neither card nor `others` has a key for."""
        if label in SLOTS:
            if label not in self._found:
                self._found[label] = self._find(label, SLOTS[label])
            return self._found[label]
        if self._others is None:
            raise ConfigWrong(
                f"a PIV card has no key for {label!r}: it holds {' and '.join(sorted(SLOTS))}, "
                "and the image names no keyring beside it"
            )
        return self._others.find_or_make(label)

    def _find(self, label: str, slot: Slot) -> CardKey:
        name, point = f"card-key-{label}", self._token.point(slot)
        kept = self._shelf.find(name)
        if kept is not None:
            _check(name, kept, point, slot)
        if slot is Slot.KEY_MANAGEMENT:
            self._token.prove_agreement(slot)
        if kept is None:
            self._shelf.put(name, point)
        return CardKey(self._token, slot)


def _check(name: str, kept: bytes, point: bytes, slot: Slot) -> None:
    try:
        p256.load_point(kept)
    except Malformed:
        raise Tampered(f"{name} on the state partition is damaged") from None
    if kept != point:
        raise NotMine(f"{name} names another key than the card's {slot.title}: another card, or a key made anew")
