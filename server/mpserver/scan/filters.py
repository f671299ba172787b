"""What a scan must know of an MP public key that nobody may see: five of its bytes, and its id (docs/adr/0023).

The id is a PRF of the key (docs/wire.md 11.2) and printed by every tool: a candidate is the key if it has this id. So
whoever holds a filter can recognise the key and cannot make it: 216 of the 256 bits of X stay unknown.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mpserver.errors import StoreDamaged
from mpserver.handed import read_file
from mpserver.mpuse import name_key
from mpwire.codec import decode, encode
from mpwire.errors import MpError
from mpwire.mpk import HiddenMpKey

PREFIX_BYTES: Final = 5
"""Of X, in the clear. Each byte less makes 256 times as many places to look at closely, each byte more gives 8 bits."""
ID_BYTES: Final = 16
_KIND: Final = "mpagent/1/mpk-filter"
_FILTER_MAX_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class Sought:
    """One key to look for."""

    mpk_id: bytes
    """As `mpserver mp vault list` shows it."""
    prefix: bytes
    """The first bytes of X."""

    def is_key(self, point: bytes) -> bool:
        """Whether these 64 bytes are the key. Some 10 microseconds."""
        return name_key(point) == self.mpk_id


def make_filter(key: HiddenMpKey) -> bytes:
    """The record to store beside the vault; some 45 bytes."""
    raw = key.reveal()
    return encode([_KIND, name_key(raw), raw[:PREFIX_BYTES]])


def read_filter(raw: bytes) -> Sought:
    """Raises StoreDamaged for anything that `make_filter` did not make."""
    try:
        item = decode(raw)
    except MpError:
        item = None
    match item:
        case [kind, bytes(mpk_id), bytes(prefix)] if kind == _KIND and len(mpk_id) == ID_BYTES:
            if len(prefix) == PREFIX_BYTES:
                return Sought(mpk_id, prefix)
    raise StoreDamaged("this is no filter of an MP key: make it anew with `mpserver scan-filter`")


def read_filter_file(path: Path) -> Sought:
    """A filter as a person hands it over."""
    return read_filter(read_file(path, _FILTER_MAX_BYTES))
