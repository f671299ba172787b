"""An MP key signs or is a secret, never both: any ECDSA signature with its message gives the public key away.

Who is what is compared by the id of docs/wire.md 11.2, which every key has and which is no digest of it: so that a
SHA-256 of a key that is a secret stands nowhere, ids of keys that sign are made here, when somebody asks.
"""

from collections.abc import Mapping, Set
from typing import Final

from mpissuer.booking import digest_of_object
from mpissuer.policy import Product
from mpissuer.ports import RegisteredKey
from mpserver.errors import NeedsPerson
from mpserver.state import State
from mpserver.store.database import Connection
from mpserver.store.products import read_products
from mpwire import hkdf, mp
from mpwire.bundlekeys import make_mpk_id
from mpwire.mpk import SALT, HiddenMpKey
from mpwire.secret import Secret

PREFIX: Final = "mpk-"
"""Names in the vault: this and the id in hexadecimal."""
PUBLISHES: Final = (
    "an MP signature gives the public key away to whoever knows its message: a key meant for the non-networked flow"
    " is burnt by it"
)


def name_in_vault(mpk_id: bytes) -> str:
    """Of the PRK of an MP key."""
    return f"{PREFIX}{mpk_id.hex()}"


def name_key(raw: bytes) -> bytes:
    """The id of X || Y, 64 bytes, by a derivation on this host."""
    prk = hkdf.extract(SALT, Secret(raw))
    return make_mpk_id(lambda info: hkdf.expand(prk, info))


def is_hidden(connection: Connection, mpk_id: bytes) -> bool:
    """Whether it is, or ever was, a secret of this server: what was made under it is still out there."""
    return _has(connection, "SELECT 1 FROM hidden_mp_keys WHERE mpk_id = ?", mpk_id)


def any_hidden(connection: Connection) -> bool:
    """Whether this server keeps or kept a secret at all."""
    return connection.execute("SELECT 1 FROM hidden_mp_keys").fetchone() is not None


def is_burnt(connection: Connection, mpk_id: bytes) -> bool:
    """Whether a signature by it was seen here."""
    return _has(connection, "SELECT 1 FROM burnt_mp_keys WHERE mpk_id = ?", mpk_id)


def find_pinned(products: Mapping[str, Product]) -> Set[bytes]:
    """Names of the keys that products call secrets, whether or not the vault has them yet."""
    return {product.mpk for product in products.values() if product.mpk is not None}


def is_secret(state: State, mpk_id: bytes) -> bool:
    """Whether the vault keeps or kept it, or a product says so before it was imported."""
    if is_hidden(state.connection, mpk_id):
        return True
    return mpk_id in find_pinned(read_products(state.connection, state.authority))


def check_signs(connection: Connection, key: RegisteredKey, pinned: Set[bytes] = frozenset()) -> None:
    """Before an MP key is registered to verify signatures. Raises NeedsPerson."""
    if key.kind != "mp" or key.public_key is None:
        return
    mpk_id = name_key(key.public_key[1:])
    if mpk_id in pinned or is_hidden(connection, mpk_id):
        raise NeedsPerson(f"mp-use: this is MP key {mpk_id.hex()}, which is a secret: it must never sign")


def check_hides(state: State, key: HiddenMpKey, mpk_id: bytes) -> None:
    """Before an MP key becomes a secret. Raises NeedsPerson: it signs, for whoever says so, or signed before."""
    check_not_registered(state.connection, mpk_id)
    if is_burnt(state.connection, mpk_id):
        raise NeedsPerson(f"mp-use: a signature by this key was seen here, and {PUBLISHES}. {_ANOTHER}")
    key_id = mp.key_id(b"\x04" + key.reveal())  # held against what is pinned, and kept nowhere
    for name, product in read_products(state.connection, state.authority).items():
        if key_id in product.mp_keys:
            raise NeedsPerson(f"mp-use: product {name} pins this key to sign, and {PUBLISHES}. {_ANOTHER}")


def check_not_registered(connection: Connection, mpk_id: bytes) -> None:
    """The first half of `check_hides`, for the transaction too. Raises NeedsPerson."""
    rows = connection.execute("SELECT public_key FROM attester_keys WHERE kind = 'mp'").fetchall()
    if any(name_key(point[1:]) == mpk_id for (point,) in rows):
        raise NeedsPerson(f"mp-use: this key is registered to sign, and {PUBLISHES}. {_ANOTHER}")


_ANOTHER: Final = "Nothing was kept; another set of SRK fuses makes another key"


def was_compared(connection: Connection, key: HiddenMpKey) -> bool:
    """Whether `mp compare` wrote its SHA-256 down, before anybody said that it is a secret."""
    key_id = mp.key_id(b"\x04" + key.reveal())
    row = connection.execute("SELECT 1 FROM mp_comparisons WHERE one = ? OR other = ?", (key_id, key_id)).fetchone()
    return row is not None


def digest_hidden(mpk_id: bytes, part: str, origin: str, looks: bytes | None) -> bytes:
    """How a key that became a secret stands in the tree, under kind `key`."""
    return digest_of_object("mpk", mpk_id, part, origin, looks)


def _has(connection: Connection, sql: str, mpk_id: bytes) -> bool:
    return connection.execute(sql, (mpk_id,)).fetchone() is not None
