"""The MP public key where it is a secret (mp_use = secret): it opens every bundle under it (docs/wire.md 11)."""

import hmac
from typing import Final, NoReturn

from mpwire import hkdf, mp
from mpwire.secret import Secret

MPK_BYTES: Final = 64
SALT: Final = b"mpagent/mpk/v1"
"""Of HKDF-Extract; its output is what a token keeps. Source: docs/wire.md 11.2."""


class HiddenMpKey:
    """X || Y of an MP key that nobody may see. It has no text, no JSON, no pickle, no copy and no hash: each refuses.

    `wipe` overwrites the bytes held here. Copies that the interpreter made on the way here stay (docs/threats.md).
    """

    __slots__ = ("_point",)

    def __init__(self, raw: bytes | bytearray) -> None:
        """64 bytes. Raises Malformed: zeros, another size, or off the curve."""
        mp.read_key(bytes(raw))
        self._point = bytearray(raw)

    def extract(self) -> Secret:
        """PRK = HKDF-Extract("mpagent/mpk/v1", X || Y), 32 bytes: all that bundles are opened with."""
        return hkdf.extract(SALT, Secret(bytes(self._point)))

    def reveal(self) -> bytes:
        """The 64 bytes, for the one call that looks for them somewhere."""
        return bytes(self._point)

    def wipe(self) -> None:
        """Zeros from here on."""
        self._point[:] = bytes(len(self._point))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HiddenMpKey):
            return NotImplemented
        return hmac.compare_digest(self._point, other._point)

    __hash__ = None  # type: ignore[assignment]  # no use as a key of a table

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("an MP public key that is a secret is neither shown nor copied")

    __repr__ = __str__ = __format__ = __bytes__ = _refuse
    __reduce__ = __reduce_ex__ = __copy__ = __deepcopy__ = __iter__ = __getstate__ = _refuse
