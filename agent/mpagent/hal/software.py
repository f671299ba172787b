"""The keyring `sealed`: P-256 keys made in software that exist at rest only encrypted for this chip.

At rest: nonce, 12 bytes | AES-256-GCM of the 32-byte scalar, AAD = label. The key of that encryption is sealed by the
board's sealer. In use a scalar is in this process's memory (docs/threats.md names that as residual).
"""

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mpagent.errors import Tampered
from mpagent.hal.ports import Sealer, Shelf
from mpwire.p256 import SoftKey
from mpwire.secret import Secret

_DEK_NAME: Final = "sealed-keyring-dek"
_DEK_BYTES: Final = 32
_NONCE_BYTES: Final = 12
"""Random; one encryption a label under one key stays far below the 2^32 of SP 800-38D section 8.3."""


class SealedKeyring:
    """Device keys by label, on the Shelf as sealed-key-<label>."""

    def __init__(self, sealer: Sealer, shelf: Shelf) -> None:
        self._sealer = sealer
        self._shelf = shelf
        self._cipher: AESGCM | None = None
        self._found: dict[str, SoftKey] = {}

    def find_or_make(self, label: str) -> SoftKey:
        """See ports.Keyring. NotMine comes from the sealer, also after the part was closed."""
        if label not in self._found:
            name = f"sealed-key-{label}"
            blob = self._shelf.find(name)
            self._found[label] = self._make(name, label) if blob is None else self._open(name, label, blob)
        return self._found[label]

    def _make(self, name: str, label: str) -> SoftKey:
        key, nonce = SoftKey.generate(), os.urandom(_NONCE_BYTES)
        cipher = self._find_cipher() or self._make_cipher()
        sealed = nonce + cipher.encrypt(nonce, key.to_scalar().reveal(), label.encode())
        self._shelf.put(name, sealed)
        return key

    def _open(self, name: str, label: str, blob: bytes) -> SoftKey:
        cipher = self._find_cipher()
        if cipher is None:
            raise Tampered(f"{name} is on the state partition, and {_DEK_NAME} that opens it is gone")
        try:
            scalar = cipher.decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], label.encode())
        except (InvalidTag, ValueError):
            raise Tampered(f"{name} on the state partition is damaged") from None
        return SoftKey.from_scalar(Secret(scalar))

    def _find_cipher(self) -> AESGCM | None:
        if self._cipher is None:
            blob = self._shelf.find(_DEK_NAME)
            if blob is not None:
                self._cipher = AESGCM(self._sealer.unseal(blob).reveal())
        return self._cipher

    def _make_cipher(self) -> AESGCM:
        """Sealed, durable, and read back once, before any key depends on it."""
        self._shelf.put(_DEK_NAME, self._sealer.seal(Secret(os.urandom(_DEK_BYTES))))
        cipher = self._find_cipher()
        if cipher is None:
            raise Tampered(f"{_DEK_NAME} vanished from the state partition while it was written")
        return cipher
