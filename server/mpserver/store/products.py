"""Product files at rest: encrypted, because a static slot's value stands in them (design promise P8).

The key is derived from the keystore's symmetric root, so a copy of the ledger file alone shows no product's secret.
"""

import os
import re
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mpissuer.errors import ProductWrong
from mpissuer.policy import Product, read_product
from mpissuer.ports import Authority
from mpserver.errors import StoreDamaged
from mpserver.store.database import Connection
from mpwire.codec import encode

_LABEL: Final = b"mpserver/1/product-at-rest"
_NONCE_BYTES: Final = 12


def seal_body(authority: Authority, name: str, version: int, text: str) -> bytes:
    """Nonce and AES-256-GCM, bound to name and version.

    Raises ProductWrong for a value spelled with escapes: `hide_values` would not find it in the text.
    """
    for slot in read_product(text).slots:
        if slot.value is not None and slot.value.reveal().hex() not in text.lower():
            raise ProductWrong(f"slot {slot.name}: write value_hex without escapes")
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _cipher(authority).encrypt(nonce, text.encode(), encode([name, version]))


def open_body(authority: Authority, name: str, version: int, sealed: bytes) -> str:
    """Raises StoreDamaged: changed at rest, or written by a server with another keystore."""
    try:
        plain = _cipher(authority).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], encode([name, version]))
    except (InvalidTag, ValueError):
        raise StoreDamaged(f"product {name} version {version} does not open under this keystore") from None
    return plain.decode()


def newest_bodies(connection: Connection, authority: Authority) -> list[tuple[str, str]]:
    """Name and text of every product as last added."""
    rows = connection.execute(
        "SELECT name, version, body FROM products AS one"
        " WHERE version = (SELECT max(version) FROM products AS other WHERE other.name = one.name) ORDER BY name"
    ).fetchall()
    return [(name, open_body(authority, name, version, body)) for name, version, body in rows]


def read_products(connection: Connection, authority: Authority) -> dict[str, Product]:
    """The newest version of every product, by name."""
    return {name: read_product(body) for name, body in newest_bodies(connection, authority)}


def hide_values(text: str) -> str:
    """The product file for a screen: each static value as its length."""
    for slot in read_product(text).slots:
        if slot.value is not None:
            text = _hide(text, slot.value.reveal().hex(), len(slot.value))
    return text


def _hide(text: str, digits: str, size: int) -> str:
    """In either case of letters."""
    return re.sub(digits, f"<{size} bytes>", text, flags=re.IGNORECASE)


def _cipher(authority: Authority) -> AESGCM:
    return AESGCM(authority.derive(_LABEL, b"").reveal())
