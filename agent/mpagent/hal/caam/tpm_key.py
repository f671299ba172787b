"""A sealed TPM object as the kernel's trusted keys take it: TPMKey in DER.

    TPMKey ::= SEQUENCE {
        type       OBJECT IDENTIFIER,              -- 2.23.133.10.1.5, sealed data
        emptyAuth  [0] EXPLICIT BOOLEAN OPTIONAL,
        parent     INTEGER,                        -- persistent handle
        pubkey     OCTET STRING,                   -- TPM2B_PUBLIC
        privkey    OCTET STRING }                  -- TPM2B_PRIVATE

Source: security/keys/trusted-keys/tpm2key.asn1 of Linux.
"""

import struct
from typing import Final, NamedTuple

_SEQUENCE, _INTEGER, _OCTETS = 0x30, 0x02, 0x04
_SEALED_DATA: Final = bytes.fromhex("06066781050a0105")
"""OBJECT IDENTIFIER 2.23.133.10.1.5."""
_EMPTY_AUTH: Final = bytes.fromhex("a0030101ff")


class TpmKey(NamedTuple):
    """A sealed object and the persistent handle of its parent."""

    parent: int
    public: bytes
    """TPMT_PUBLIC."""
    private: bytes
    """Content of TPM2B_PRIVATE."""

    def write(self) -> bytes:
        """The DER."""
        parent = _tlv(_INTEGER, b"\0" + struct.pack(">I", self.parent))
        areas = b"".join(_tlv(_OCTETS, struct.pack(">H", len(area)) + area) for area in (self.public, self.private))
        return _tlv(_SEQUENCE, _SEALED_DATA + _EMPTY_AUTH + parent + areas)


def read(der: bytes) -> TpmKey | None:
    """What `write` wrote, or None when these bytes are anything else."""
    body, rest = _split(der, _SEQUENCE)
    head = _SEALED_DATA + _EMPTY_AUTH
    if rest or not body.startswith(head):
        return None
    parent, areas = _split(body[len(head) :], _INTEGER)
    public, tail = _split(areas, _OCTETS)
    private, end = _split(tail, _OCTETS)
    if len(parent) != 5 or parent[0] or len(public) < 3 or len(private) < 3 or end:
        return None
    found = TpmKey(int.from_bytes(parent, "big"), public[2:], private[2:])
    return found if found.write() == der else None


def _tlv(tag: int, content: bytes) -> bytes:
    """Definite lengths of at most two bytes."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    if size < 0x100:
        return bytes([tag, 0x81, size]) + content
    return bytes([tag, 0x82]) + struct.pack(">H", size) + content


def _split(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """Content of the first element and what follows it; empty content when it is not whole or not of this tag."""
    if len(der) < 2 or der[0] != tag:
        return b"", der
    start, size = 2, der[1]
    if size in (0x81, 0x82):
        start += size - 0x80
        size = int.from_bytes(der[2:start], "big")
    if len(der) < start + size:
        return b"", der
    return der[start : start + size], der[start + size :]
