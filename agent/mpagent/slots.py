"""A delivered thing as it lies in the vault."""

from dataclasses import dataclass

from mpwire.secret import Secret


@dataclass(frozen=True, slots=True)
class VaultSlot:
    """One slot, unsealed."""

    name: str
    kind: str
    destination: str
    version: int
    value: Secret
