"""A TPM object at rest: which storage root wrapped it, its public area, its wrapped private area.

    "MPT1" | Name of the SRK, 34 bytes | length, 2 bytes | TPMT_PUBLIC | length, 2 bytes | TPM2B_PRIVATE content

Big-endian lengths, exact end. The SRK's Name is what tells a blob of another TPM from a damaged one: the TPM itself
answers TPM_RC_INTEGRITY to both.
"""

import struct
from typing import Final, NamedTuple

from mpwire.ueid import TPM_NAME_BYTES

_MAGIC: Final = b"MPT1"
PART_MAX_BYTES: Final = 512
"""Bound of each area; a wrapped P-256 key takes 126 bytes, a sealed key 158."""


class WrappedObject(NamedTuple):
    """Only the TPM whose SRK has this Name can load it."""

    parent_name: bytes
    public: bytes
    private: bytes

    def write(self) -> bytes:
        """The bytes at rest."""
        public, private = struct.pack(">H", len(self.public)), struct.pack(">H", len(self.private))
        return _MAGIC + self.parent_name + public + self.public + private + self.private


def read(blob: bytes) -> WrappedObject | None:
    """What `WrappedObject.write` wrote, or None when these bytes are anything else."""
    if not blob.startswith(_MAGIC):
        return None
    name, rest = blob[len(_MAGIC) :][:TPM_NAME_BYTES], blob[len(_MAGIC) + TPM_NAME_BYTES :]
    public, rest = _split(rest)
    private, rest = _split(rest)
    if not public or not private or rest:
        return None
    return WrappedObject(name, public, private)


def _split(rest: bytes) -> tuple[bytes, bytes]:
    """The next length-prefixed part, and what follows; an empty part when it is not whole."""
    if len(rest) < 2:
        return b"", rest
    (length,) = struct.unpack_from(">H", rest)
    if length > PART_MAX_BYTES or len(rest) < 2 + length:
        return b"", rest
    return rest[2 : 2 + length], rest[2 + length :]
