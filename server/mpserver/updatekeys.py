"""Update authorities: who may make bundles after the first loading, and with which keys (docs/wire.md 11.5).

An authority has a key that signs, where the issuer's keys are, and a base in the vault that its update keys are
expanded from: one for all boards of the product, or one for each board's fuse UID. A base never leaves the vault; an
update key does, inside the first loading, and lies in this process while a bundle is made under it.
"""

import hashlib
import os
from functools import partial
from typing import Final, NamedTuple

from mpissuer.booking import digest_of_object
from mpissuer.policy import Product
from mpissuer.ports import SecretVault
from mpserver.errors import NeedsPerson, Usage
from mpserver.mpuse import name_in_vault
from mpserver.office import Office
from mpserver.state import State
from mpserver.store.database import Connection
from mpwire import hkdf
from mpwire.bundlekeys import Expand
from mpwire.codec import encode
from mpwire.messages.bundle import UPDATE_KEY, UpdateKey
from mpwire.p256 import SoftKey
from mpwire.secret import Secret

FIRST: Final = "mp"
"""The first loading: under the class key, signed by the issuer."""
SLOT_PREFIX: Final = "update-"
"""Of the slots that hold update keys; the authority's name follows."""
_LABEL: Final = "mpserver/1/update-key"
_NAME_DIGITS: Final = 32


class UpdateAuthority(NamedTuple):
    """One authority of one product."""

    product: str
    name: str
    """oem, owner or service."""
    point: bytes
    per_device: bool
    vault_name: str
    made_at: int


def make_authority(state: State, product: Product, name: str, *, per_device: bool) -> tuple[UpdateAuthority, bool]:
    """The authority, and whether it is new. Keys first, then the row: after a power cut it is typed again.

    Raises NeedsPerson: it is there, of the other sort. Usage: a product that is served over a line.
    """
    if product.mp_use != "secret":
        raise Usage(f"product {product.name} is served over a line: update authorities are for bundles")
    known = find_authority(state.connection, product.name, name)
    if known is not None:
        if known.per_device != per_device:
            sort = "for each device" if known.per_device else "for the whole product"
            raise NeedsPerson(
                f"authority {name} of {product.name} is there, with keys {sort}; boards hold them already"
            )
        return known, False
    key = _name_key(product.name, name)
    if not state.safe.has_key(key):
        state.safe.make_key(key)
    if key not in state.vault.names():
        state.vault.keep(key, Secret(os.urandom(32)))
    point = SoftKey(state.safe.load_key(key)).public_key()
    made = UpdateAuthority(product.name, name, point, per_device, key, state.clock.now())
    _enter(state, made)
    return made, True


def _enter(state: State, made: UpdateAuthority) -> None:
    row = (made.product, made.name, made.point, int(made.per_device), made.vault_name)

    def change() -> None:
        state.connection.execute(
            "INSERT INTO update_authorities (product, name, point, per_device, vault_name, made_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (*row, made.made_at),
        )

    Office(state).enter("key", f"make authority {made.name}", made.product, digest_of_object("authority", *row), change)


def find_authority(connection: Connection, product: str, name: str) -> UpdateAuthority | None:
    """By product and name."""
    return next((one for one in list_authorities(connection) if (one.product, one.name) == (product, name)), None)


def list_authorities(connection: Connection) -> list[UpdateAuthority]:
    """In the order of their products."""
    rows = connection.execute(
        "SELECT product, name, point, per_device, vault_name, made_at FROM update_authorities ORDER BY product, name"
    ).fetchall()
    return [UpdateAuthority._make((*row[:3], bool(row[3]), *row[4:])) for row in rows]


def get_authority(connection: Connection, product: str, name: str) -> UpdateAuthority:
    """Raises NeedsPerson with the next step."""
    found = find_authority(connection, product, name)
    if found is None:
        raise NeedsPerson(
            f"there is no update authority {name} of {product}: mpserver authority create {name} --product {product}"
        )
    return found


def sign_as(state: State, authority: UpdateAuthority, message: bytes) -> bytes:
    """ES256 by the authority's own key."""
    return SoftKey(state.safe.load_key(authority.vault_name)).sign(message)


def make_update_key(vault: SecretVault, authority: UpdateAuthority, uid: bytes | None) -> Secret:
    """Value of the authority's slot on this board, or on all. Raises NeedsPerson: of which board is not said."""
    key = _expand_key(vault, authority, uid)
    return Secret(UPDATE_KEY.encode(UpdateKey(authority.point, key)))


def find_vault_name(connection: Connection, product: Product, authority: str) -> str:
    """Name in the vault of what bundles of this authority are under. Raises NeedsPerson."""
    if authority != FIRST:
        return get_authority(connection, product.name, authority).vault_name
    if product.mpk is None:
        raise NeedsPerson(f"product {product.name} is served over a line: its MP key is no secret")
    return name_in_vault(product.mpk)


def expand_under(
    vault: SecretVault, connection: Connection, product: str, authority: str, vault_name: str, uid: bytes | None
) -> Expand:
    """HKDF-Expand under the PRK of a bundle (docs/wire.md 11.2). `uid` counts where each board has a key of its own.

    Raises NeedsPerson: no such authority, or it is not said which board.
    """
    if authority == FIRST:
        return partial(vault.expand, vault_name)
    prk = _expand_key(vault, get_authority(connection, product, authority), uid)
    return lambda info: hkdf.expand(prk, info)


def _expand_key(vault: SecretVault, authority: UpdateAuthority, uid: bytes | None) -> Secret:
    if authority.per_device and uid is None:
        raise NeedsPerson(
            f"authority {authority.name} of {authority.product} has a key for each device: name the boards with --uids"
        )
    return vault.expand(
        authority.vault_name,
        encode([_LABEL, authority.product, authority.name, uid if authority.per_device and uid is not None else b""]),
    )


def _name_key(product: str, name: str) -> str:
    """Of both keys: what a file and a token take, whatever the product's name holds."""
    return f"{SLOT_PREFIX}{hashlib.sha256(product.encode()).hexdigest()[:_NAME_DIGITS]}-{name}"
