"""mpissuer.ports.Ledger and Catalogue: reads outside the transaction, on a connection of their own."""

import time
from typing import Final

from mpissuer.policy import Product
from mpissuer.ports import Authority, GrantRow, RegisteredKey
from mpserver.store.books import read_checks
from mpserver.store.database import Connection, answering
from mpserver.store.products import read_products

STALE_S: Final = 1.0
"""How old a cached product or job may be: what an operator changes counts a second later."""


class SqlLedger:
    """Stored answers. Raises NotNow when the file cannot be read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def recall(self, proof_digest: bytes) -> bytes | None:
        """The unit's Closed once it has one, else the Grant stored for this Proof."""
        with answering():
            row = self._connection.execute(
                "SELECT coalesce(units.closed, grants.answer) FROM grants JOIN units ON units.ueid = grants.ueid"
                " WHERE grants.proof_digest = ?",
                (proof_digest,),
            ).fetchone()
        return row[0] if row else None

    def find_grant(self, digest: bytes) -> GrantRow | None:
        """A stored Grant by its digest."""
        with answering():
            row = self._connection.execute(
                "SELECT digest, ueid, product, job, sign_key, checks, answer FROM grants WHERE digest = ?", (digest,)
            ).fetchone()
        if row is None:
            return None
        digest, ueid, product, job, sign_key, checks, answer = row
        return GrantRow(digest, ueid, product, job, sign_key, read_checks(checks), answer)


class SqlCatalogue:
    """What the OEM decided. Products are cached together for STALE_S, for strangers name them and parsing costs.

    Keys that boards showed in that time too, for boards of one class show one key; of all keys there may be a hundred
    thousand.
    """

    def __init__(self, connection: Connection, authority: Authority) -> None:
        self._connection, self._authority = connection, authority
        self._read_at = float("-inf")
        self._products: dict[str, Product] = {}
        self._keys: dict[bytes, RegisteredKey] = {}

    def product(self, name: str) -> Product | None:
        """The product as last added."""
        self._refresh()
        return self._products.get(name)

    def registered_key(self, key_id: bytes) -> RegisteredKey | None:
        """An imported attester key."""
        self._refresh()
        found = self._keys.get(key_id) or self._read_key(key_id)
        if found is not None:
            self._keys[key_id] = found
        return found

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._read_at >= STALE_S:
            with answering():
                self._products = read_products(self._connection, self._authority)
            self._keys.clear()
            self._read_at = now

    def _read_key(self, key_id: bytes) -> RegisteredKey | None:
        with answering():
            row = self._connection.execute(
                "SELECT key_id, kind, public_key, origin, mp_use, part, use FROM attester_keys WHERE key_id = ?",
                (key_id,),
            ).fetchone()
        return RegisteredKey(*row) if row else None
