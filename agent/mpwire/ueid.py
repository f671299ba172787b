"""The name of one board: RFC 9711 section 4.2.1 type 0x01, made of what the hardware cannot change."""

import hashlib
from collections.abc import Mapping
from typing import Final

from mpwire import labels
from mpwire.codec import encode

HARDWARE_ID_OF_KIND: Final[Mapping[str, str]] = {
    "mp": "imx-uid",
    "tpm": "tpm-ek",
    "card": "card-key",
    "optee": "optee-key",
}
"""Which of a board's hardware ids its name is made of, by kind of attester (docs/wire.md 6.1)."""
TPM_NAME_BYTES: Final = 34
"""A TPM object's Name with nameAlg SHA-256; a TPM's attester-id is EK Name || AK Name."""


def name_card_key(point: bytes) -> bytes:
    """`card-key`: SHA-256(X || Y) of the card's attesting key, so that a renewed certificate changes no name."""
    return hashlib.sha256(point[1:]).digest()


def make_ueid(kind: str, family: str, hardware_id: bytes) -> bytes:
    """0x01 || SHA-256(CBOR["mpagent/ueid/1", attester kind, SoC family, hardware id]) (docs/wire.md section 6)."""
    return b"\x01" + hashlib.sha256(encode([labels.UEID, kind, family, hardware_id])).digest()
