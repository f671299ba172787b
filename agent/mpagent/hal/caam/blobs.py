"""A sealed data encryption key at rest.

    "MPK1" | source, 1 | length, 2 | blob of the KEK, as the kernel prints it | nonce, 12 | ciphertext and tag, 48

KEK: the key encryption key in the kernel. The length is big-endian and counts hexadecimal digits; exact end. What
stands before the nonce is hashed into the wrapping, so that no byte of it can change unseen.
"""

import struct
from hashlib import sha256
from typing import Final, NamedTuple

from mpagent.hal.caam.source import Source, has_form
from mpagent.hal.caam.wrap import NONCE_BYTES, TAG_BYTES

DEK_BYTES: Final = 32
_MAGIC: Final = b"MPK1"
_HEAD: Final = struct.Struct(">4sBH")
_WRAPPED_BYTES: Final = NONCE_BYTES + DEK_BYTES + TAG_BYTES
KEK_DIGITS_MAX: Final = 1024 - _HEAD.size - _WRAPPED_BYTES
"""What a blob of 1024 bytes (ports.Sealer) leaves: CAAM prints 160 digits, a TPM about 480."""
_DIGITS: Final = frozenset(b"0123456789abcdef")


class KekBlob(NamedTuple):
    """The key encryption key as its source sealed it."""

    source: Source
    digits: bytes
    """Lower-case hexadecimal, as KEYCTL_READ gives it and `load` takes it."""

    def head(self) -> bytes:
        """What stands before the nonce."""
        return _HEAD.pack(_MAGIC, self.source, len(self.digits)) + self.digits

    def bind(self) -> bytes:
        """The associated data of the wrapping, 32 bytes."""
        return sha256(self.head()).digest()


class SealedDek(NamedTuple):
    """What our blob holds."""

    kek: KekBlob
    nonce: bytes
    wrapped: bytes

    def write(self) -> bytes:
        """The bytes at rest."""
        return self.kek.head() + self.nonce + self.wrapped


def read(blob: bytes) -> SealedDek | None:
    """What `write` wrote, or None when these bytes are anything else."""
    if len(blob) < _HEAD.size:
        return None
    magic, number, length = _HEAD.unpack_from(blob)
    digits, rest = blob[_HEAD.size :][:length], blob[_HEAD.size + length :]
    known = magic == _MAGIC and number in set(Source)
    if not known or len(rest) != _WRAPPED_BYTES or length % 2 or not _DIGITS.issuperset(digits):
        return None
    source = Source(number)
    if not has_form(source, bytes.fromhex(digits.decode())):
        return None
    return SealedDek(KekBlob(source, digits), rest[:NONCE_BYTES], rest[NONCE_BYTES:])
