"""The MP public key as a secret: read, extracted and forgotten; nothing is ever signed on this way."""

from typing import Final

from mpagent.hal.mp.door import Door
from mpwire.mpk import HiddenMpKey
from mpwire.secret import Secret


class MpClassKey:
    """ports.ClassKey. Holds nothing open and no key: each call reads the key of the running boot anew."""

    def __init__(self, door: Door) -> None:
        """Raises ValueError for a door that can sign: the two uses of one key exclude each other."""
        if door.may_sign:
            raise ValueError("a door that signs gives the key away")
        self.door: Final = door

    def extract(self) -> Secret:
        """See ports.ClassKey. Raises MpBroken, MpAbsent, HardwareBusy."""
        key = HiddenMpKey(bytearray(self.door.read_key()[1:]))
        try:
            return key.extract()
        finally:
            key.wipe()
