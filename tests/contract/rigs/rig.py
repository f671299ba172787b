"""What a kind of board has to offer to come under contract."""

from contextlib import AbstractContextManager
from typing import Protocol

from mpagent.hal import ports
from mpsim.shelf import MemoryShelf
from mpwire import p256


class Rig(Protocol):
    """One chip and its disk."""

    shelf: MemoryShelf

    def open(self, shelf: MemoryShelf | None = None) -> AbstractContextManager[ports.Board]:
        """A process starts on this board; with another shelf, it finds another board's disk."""

    def power_cycle(self) -> None:
        """The plug is pulled and put back."""

    def check(self, material: ports.AttesterMaterial, attestation: ports.Attestation, message: bytes) -> None:
        """Verify as an issuer would. Raises Unauthentic."""


def check_signature(key: ports.DeviceKey, message: bytes) -> bytes:
    """Sign with the key, verify with its public half; the signature."""
    signature = key.sign(message)
    p256.verify(key.public_key(), message, signature)
    return signature
