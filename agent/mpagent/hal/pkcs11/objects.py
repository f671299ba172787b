"""Keys in the token: what a key of ours looks like, and the root that tells one token from another.

The root is an AES-256 key made in the token with a random CKA_ID. It wraps the data encryption key, and its id names
the token in everything the Shelf keeps, as the Name of a storage root does for a TPM: labels and serial numbers are
the same on many tokens.
"""

import os
from typing import Any, Final, NamedTuple

from mpagent.errors import HardwareGone, Tampered
from mpagent.hal.pkcs11.token import Token

ID_BYTES: Final = 16
"""Random CKA_ID of every key we make."""
KEY_BITS: Final = 256
_ROOT: Final = "mpagent-root"
_MAC: Final = "mpagent-root-mac"

_TOLD: Final = {"PRIVATE": True, "SENSITIVE": True, "EXTRACTABLE": False}
"""Attributes every token tells of a key."""
_BORN_HERE: Final = {"LOCAL": True, "ALWAYS_SENSITIVE": True, "NEVER_EXTRACTABLE": True}
"""The same for its whole life, where the token tells: a key that came from outside was known outside."""


class Root(NamedTuple):
    """The wrapping key of this token."""

    key: Any
    ident: bytes


def find_flaw(token: Token, key: Any, key_type: str, doing: str) -> str | None:
    """Why this is no key of ours; None when it is of this type, was born in the token and can never leave it."""
    attribute = token.p11.Attribute
    if token.read(doing, key, attribute.KEY_TYPE) != getattr(token.p11.KeyType, key_type):
        return "it is of another type"
    for wanted, untold_is_right in ((_TOLD, False), (_BORN_HERE, True)):
        for word, value in wanted.items():
            told = token.read(doing, key, getattr(attribute, word))
            if told is not value and not (told is None and untold_is_right):
                return f"CKA_{word} is {told}"
    return None


def find_root(token: Token) -> Root | None:
    """The root of this token; None where none was made yet, which the token was asked to confirm."""
    root = _find(token, _ROOT, "AES", None)
    if root is None:
        token.confirm()
    return root


def find_or_make_root(token: Token) -> Root:
    """The root; the token has it durably when this returns. A cut in between leaves none or a whole one."""
    return find_root(token) or _make(token, _ROOT, "AES", os.urandom(ID_BYTES))


def find_mac(token: Token, root: Root) -> Any:
    """The HMAC key that belongs to this root, or None."""
    mac = _find(token, _MAC, "GENERIC_SECRET", root.ident)
    return mac.key if mac else None


def find_or_make_mac(token: Token, root: Root) -> Any:
    """The HMAC key that belongs to this root."""
    return find_mac(token, root) or _make(token, _MAC, "GENERIC_SECRET", root.ident).key


def _find(token: Token, label: str, key_type: str, ident: bytes | None) -> Root | None:
    """The one key of this label that is ours. What else stands under it is never used: a key planted there, or one
    that a power cut left half-made in a token that does not make objects whole."""
    attribute = token.p11.Attribute
    wanted = {attribute.CLASS: token.p11.ObjectClass.SECRET_KEY, attribute.LABEL: label}
    if ident is not None:
        wanted[attribute.ID] = ident
    every = (_as_root(token, key, key_type, label) for key in token.find(f"looking for {label}", wanted))
    found = [root for root in every if root is not None]
    if len(found) > 1:
        raise Tampered(f"the PKCS#11 token holds {len(found)} keys {label}: another program added to ours")
    return found[0] if found else None


def _as_root(token: Token, key: Any, key_type: str, label: str) -> Root | None:
    doing, attribute = f"looking at {label}", token.p11.Attribute
    if find_flaw(token, key, key_type, doing) or token.read(doing, key, attribute.VALUE_LEN) != KEY_BITS // 8:
        return None
    ident = bytes(token.read(doing, key, attribute.ID) or b"")
    return Root(key, ident) if len(ident) == ID_BYTES else None


def _make(token: Token, label: str, key_type: str, ident: bytes) -> Root:
    p11 = token.p11
    flags, mechanism = p11.MechanismFlag, getattr(p11.Mechanism, f"{key_type}_KEY_GEN")
    uses = flags.ENCRYPT | flags.DECRYPT if key_type == "AES" else flags.SIGN | flags.VERIFY
    # VALUE_LEN once more, because 0.7 leaves it out for any key but AES.
    never_out = {p11.Attribute.EXTRACTABLE: False, p11.Attribute.VALUE_LEN: KEY_BITS // 8}
    key = token.run(
        f"making {label}",
        lambda session: session.generate_key(
            getattr(p11.KeyType, key_type),
            KEY_BITS,
            id=ident,
            label=label,
            store=True,
            capabilities=uses,
            mechanism=mechanism,
            template=never_out,
        ),
    )
    flaw = find_flaw(token, key, key_type, f"looking at {label}")
    if flaw:
        raise HardwareGone(f"the PKCS#11 token made {label} otherwise than it was asked to: {flaw}")
    return Root(key, ident)
