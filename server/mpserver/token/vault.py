"""mpissuer.ports.SecretVault in a token: imported as non-extractable, expanded there, destroyed there.

The expansion is HKDF-Expand with SHA-256 for 32 bytes (RFC 5869 section 2.3), by one of two ways that give the same
bytes. Both bring K1 into this process's memory, for that is what the port returns; the kept secret never comes out.

- CKM_SHA256_HMAC: C_Sign over info and the octet 1. The key may sign and nothing else.
- CKM_HKDF_DERIVE, expand only, into a session object that is read and destroyed. The key may derive and nothing else.
  Taken where the token has it and derives from a secret like ours what RFC 5869 says; and only where the token does
  none of the derivations by which whoever has the PIN takes a key that may derive out piece by piece. Both are tried:
  a list of mechanisms is no answer.
"""

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from mpserver.token import objects, policy
from mpserver.token.faults import is_gone
from mpserver.token.objects import KeyMissing
from mpserver.token.policy import VAULT
from mpserver.token.pool import Pool, Session
from mpserver.vault import already_kept, check_name, check_secret, not_kept
from mpwire.secret import Secret

HKDF_DERIVE: Final = 0x402A
"""CKM_HKDF_DERIVE (PKCS#11 3.0, section 2.63), which python-pkcs11 has no name for."""
_SHA256, _SALT_NULL = 0x250, 1
TAKES_APART: Final = (
    *("CONCATENATE_BASE_AND_KEY", "CONCATENATE_BASE_AND_DATA", "CONCATENATE_DATA_AND_BASE"),
    *("XOR_BASE_AND_DATA", "EXTRACT_KEY_FROM_KEY"),
)
"""Derivations that give away their key. NSS's token does them without listing them."""
_OUTPUT_BYTES: Final = 32
# RFC 5869 appendix A.1.
_KNOWN_PRK: Final = Secret(bytes.fromhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"))
_KNOWN_INFO: Final = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9")
_KNOWN_OKM: Final = Secret(bytes.fromhex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"))


class _HkdfParameters(ctypes.Structure):
    """CK_HKDF_PARAMS (PKCS#11 3.0, pkcs11t.h)."""

    _fields_ = (
        ("extract", ctypes.c_ubyte),
        ("expand", ctypes.c_ubyte),
        ("prf", ctypes.c_ulong),
        ("salt_type", ctypes.c_ulong),
        ("salt", ctypes.c_void_p),
        ("salt_bytes", ctypes.c_ulong),
        ("salt_key", ctypes.c_ulong),
        ("info", ctypes.c_char_p),
        ("info_bytes", ctypes.c_ulong),
    )


class TokenVault:
    """Secrets of one issuer in one token. `lock` keeps another process from keeping under the same name."""

    def __init__(self, pool: Pool, lock: Callable[[], AbstractContextManager[None]]) -> None:
        self._pool, self._lock = pool, lock

    def keep(self, name: str, secret: Secret) -> None:
        """See ports.SecretVault."""
        check_name(name)
        check_secret(secret)
        label = VAULT + name
        with self._lock():
            if self._pool.run("looking for it", lambda session: objects.exists(session, label)):
                raise already_kept(name)
            self._pool.run(
                "importing a secret",
                lambda session: objects.import_secret(session, label, secret, find_way(session)),
            )

    def names(self) -> tuple[str, ...]:
        """Of this issuer's alone."""
        found = self._pool.run("listing", lambda session: objects.list_names(session, VAULT))
        return tuple(found)

    def expand(self, name: str, info: bytes) -> Secret:
        """By the way the key was imported for."""
        check_name(name)
        try:
            return self._pool.run("expanding", lambda session: self._expand(session, VAULT + name, info))
        except KeyMissing:
            raise not_kept(name) from None

    def destroy(self, name: str) -> None:
        """C_DestroyObject."""
        check_name(name)
        if not self._pool.run("destroying", lambda session: objects.destroy(session, VAULT + name)):
            raise not_kept(name)

    def _expand(self, session: Session, label: str, info: bytes) -> Secret:
        key = objects.find(session, label)
        if key[session.p11.Attribute.DERIVE]:
            return expand_by_hkdf(session, key, info)
        return expand_by_hmac(session, key, info)


def find_way(session: Session) -> str:
    """What a secret is imported for here: "DERIVE" where HKDF in the token was seen to work, else "SIGN"."""
    if HKDF_DERIVE not in {int(one) for one in session.token.slot.get_mechanisms()}:
        return "SIGN"
    closed = {**policy.CLOSED, "TOKEN": False}
    key = _try(lambda: session.raw.create_object(objects.write_template(session, _KNOWN_PRK, "DERIVE", closed)))
    if key is None:
        return "SIGN"
    try:
        fits = derives_as_told(session, key) and not find_ways_out(session, key)
    finally:
        key.destroy()
    return "DERIVE" if fits else "SIGN"


def derives_as_told(session: Session, key: Any) -> bool:
    """Whether the token gives what RFC 5869 says for the RFC's own secret, which `key` is, as closed as ours are."""
    return bool(_try(lambda: expand_by_hkdf(session, key, _KNOWN_INFO)) == _KNOWN_OKM)


def find_ways_out(session: Session, key: Any) -> list[str]:
    """Mechanisms that the token does with this key, listed or not, and that take it apart."""
    data = ctypes.create_string_buffer(b"\0", 1)
    told = bytes((ctypes.c_ulong * 2)(ctypes.addressof(data), 1))  # CK_KEY_DERIVATION_STRING_DATA
    number = {"CONCATENATE_BASE_AND_KEY": key.handle, "EXTRACT_KEY_FROM_KEY": 0}
    parameters = {name: bytes(ctypes.c_ulong(number[name])) if name in number else told for name in TAKES_APART}
    return [name for name, parameter in parameters.items() if _derives(session, key, name, parameter)]


def _derives(session: Session, key: Any, name: str, parameter: bytes) -> bool:
    p11 = session.p11
    uses, mechanism = p11.MechanismFlag.SIGN, getattr(p11.Mechanism, name)
    made = _try(
        lambda: key.derive_key(
            p11.KeyType.GENERIC_SECRET, 8, capabilities=uses, mechanism=mechanism, mechanism_param=parameter
        )
    )
    if made is not None:
        made.destroy()
    return made is not None


def _try(act: Callable[[], Any]) -> Any:
    """None where the token refuses. A token that is gone is no refusal."""
    try:
        return act()
    except RuntimeError as refused:
        if is_gone(refused):
            raise
        return None


def expand_by_hmac(session: Session, key: Any, info: bytes) -> Secret:
    """C_Sign: the first block of HKDF-Expand is an HMAC over info and the octet 1."""
    return Secret(key.sign(info + b"\x01", mechanism=session.p11.Mechanism.SHA256_HMAC))


def expand_by_hkdf(session: Session, key: Any, info: bytes) -> Secret:
    """C_DeriveKey into an object of this session, which is read and destroyed."""
    p11 = session.p11
    parameters = _HkdfParameters(expand=1, prf=_SHA256, salt_type=_SALT_NULL, info=info, info_bytes=len(info))
    derived = key.derive_key(
        p11.KeyType.GENERIC_SECRET,
        8 * _OUTPUT_BYTES,
        store=False,
        capabilities=p11.MechanismFlag(0),
        mechanism=_name_mechanism(p11),
        mechanism_param=bytes(parameters),
        template={p11.Attribute.SENSITIVE: False, p11.Attribute.EXTRACTABLE: True},
    )
    try:
        return Secret(derived[p11.Attribute.VALUE])
    finally:
        derived.destroy()


def _name_mechanism(p11: Any) -> Any:
    """A member that the enumeration does not have: python-pkcs11 asks for one of its type, and passes on the number."""
    made = int.__new__(p11.Mechanism, HKDF_DERIVE)
    made._name_, made._value_ = "HKDF_DERIVE", HKDF_DERIVE
    return made
