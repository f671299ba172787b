"""A trusted key in a keyring of its own, for one piece of work."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from mpagent.hal.caam.keyctl import SESSION, Keys
from mpagent.hal.caam.wrap import HeldKey


class Rings:
    """Makes keys that nothing else can find: each lies in a fresh ring below the session keyring."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    @contextmanager
    def hold(self, kind: str, payload: bytes) -> Iterator[HeldKey]:
        """The key of this payload for as long as the block runs. Raises OSError as add_key does.

        A fresh ring, because a key of the same name in one ring would be updated instead of made.
        """
        name = f"mpagent-{secrets.token_hex(8)}"
        ring = self._keys.add_ring(name)
        try:
            serial = self._keys.add(kind, name, payload, ring)
            try:
                yield HeldKey(serial, name)
            finally:
                self._keys.drop(serial, ring)
        finally:
            self._keys.drop(ring, SESSION)
