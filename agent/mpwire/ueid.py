"""The name of one board: RFC 9711 section 4.2.1 type 0x01, made of what the hardware cannot change."""

import hashlib

from mpwire import labels
from mpwire.codec import encode


def make_ueid(kind: str, family: str, hardware_id: bytes) -> bytes:
    """0x01 || SHA-256(CBOR["mpagent/ueid/1", attester kind, SoC family, hardware id]) (docs/wire.md section 6)."""
    return b"\x01" + hashlib.sha256(encode([labels.UEID, kind, family, hardware_id])).digest()
