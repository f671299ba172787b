"""A delivered thing as it lies in the vault."""

from typing import NamedTuple

from mpwire.secret import Secret


class VaultSlot(NamedTuple):
    """One slot, unsealed."""

    name: str
    kind: str
    destination: str
    version: int
    value: Secret
