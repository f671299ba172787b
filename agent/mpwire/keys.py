"""COSE_Key as a shape: in messages a key is a map, in code its 65-byte point (docs/wire.md section 3.3)."""

from typing import Any

from mpwire.cose import read_key, spell_key
from mpwire.shape import Shape


class PublicKey(Shape):
    """A P-256 COSE_Key whose point lies on the curve; becomes the uncompressed point, 65 bytes."""

    def take(self, item: Any) -> bytes:
        return read_key(item)

    def write(self, value: bytes) -> bytes:
        return spell_key(value)
