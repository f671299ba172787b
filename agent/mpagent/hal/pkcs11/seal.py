"""The sealer: a 32-byte key encrypted and authenticated in the token under keys that cannot leave it.

    "MPS1" | scheme, 1 byte | id of the root, 16 bytes | nonce | ciphertext | tag

Scheme 1: AES-256-GCM, nonce 12 bytes, tag 16, all before the nonce as AAD. Scheme 2: AES-256-CBC without padding,
nonce 16 bytes, then HMAC-SHA256 by a second key over all before it, 32 bytes: for tokens without GCM, as OP-TEE's
PKCS#11 TA was up to release 4.0 at least (optee_os issue 6406).
"""

import ctypes
import hmac
import os
from typing import Any, Final

from mpagent.errors import HardwareAbsent, HardwareGone, NotMine, Tampered
from mpagent.hal.pkcs11 import faults, objects
from mpagent.hal.pkcs11.objects import Root
from mpagent.hal.pkcs11.token import Token
from mpwire.errors import Malformed, MpError
from mpwire.secret import Secret

DEK_BYTES: Final = 32
_MAGIC: Final = b"MPS1"
_HEAD_BYTES: Final = len(_MAGIC) + 1 + objects.ID_BYTES
_GCM, _CBC_HMAC = 1, 2
_NONCE_BYTES: Final = {_GCM: 12, _CBC_HMAC: 16}
"""Random. 2^32 encryptions under one key bound GCM (SP 800-38D section 8.3); a board makes a handful."""
_TAG_BYTES: Final = {_GCM: 16, _CBC_HMAC: 32}
_NEEDS: Final = {
    _GCM: ("AES_KEY_GEN", "AES_GCM"),
    _CBC_HMAC: ("AES_KEY_GEN", "AES_CBC", "GENERIC_SECRET_KEY_GEN", "SHA256_HMAC"),
}
"""Mechanisms of each scheme, the better one first."""


class _GcmParameters(ctypes.Structure):
    """CK_GCM_PARAMS (PKCS#11 2.40, pkcs11t.h). Given as bytes: 0.7 has no type for it, and 0.10 takes bytes too."""

    _fields_ = (
        ("iv", ctypes.c_void_p),
        ("iv_bytes", ctypes.c_ulong),
        ("iv_bits", ctypes.c_ulong),
        ("aad", ctypes.c_void_p),
        ("aad_bytes", ctypes.c_ulong),
        ("tag_bits", ctypes.c_ulong),
    )


class Pkcs11Sealer:
    """Seals for this token until it is initialised anew."""

    def __init__(self, token: Token, scheme: int) -> None:
        self.name: str = "optee" if token.is_optee else "pkcs11"
        self._token = token
        self._scheme = scheme

    def seal(self, dek: Secret) -> bytes:
        """C_Encrypt, by the better scheme the token offers; 81 or 101 bytes."""
        if len(dek) != DEK_BYTES:
            raise Malformed(f"a data encryption key has {DEK_BYTES} bytes, not {len(dek)}")
        root = objects.find_or_make_root(self._token)
        head = _MAGIC + bytes((self._scheme,)) + root.ident
        if self._scheme == _GCM:
            return head + self._seal_gcm(root, head, dek)
        nonce = os.urandom(_NONCE_BYTES[_CBC_HMAC])
        mac = objects.find_or_make_mac(self._token, root)
        body = head + nonce + self._cipher(root, "encrypt", "AES_CBC", dek.reveal(), nonce)
        return body + self._sum(mac, body)

    def unseal(self, blob: bytes) -> Secret:
        """C_Decrypt. Raises NotMine also for a damaged blob; HardwareGone when the token lost the blob's scheme."""
        scheme = blob[len(_MAGIC)] if blob.startswith(_MAGIC) and len(blob) > _HEAD_BYTES else 0
        if scheme not in _NEEDS or len(blob) != _HEAD_BYTES + _NONCE_BYTES[scheme] + DEK_BYTES + _TAG_BYTES[scheme]:
            raise NotMine("not a blob that a PKCS#11 token sealed for us")
        root = objects.find_root(self._token)
        if root is None or blob[len(_MAGIC) + 1 : _HEAD_BYTES] != root.ident:
            raise NotMine("sealed by another PKCS#11 token, or before this one was initialised anew")
        missing = self._token.lacks(*_NEEDS[scheme])
        if missing:
            raise HardwareGone(
                f"this blob was sealed with {_words(_NEEDS[scheme][1:])}, and the token no longer offers "
                f"{_words(missing)}",
                advice="bring back the token's firmware or settings that offered it",
            )
        return self._open_gcm(root, blob) if scheme == _GCM else self._open_cbc(root, blob)

    def _seal_gcm(self, root: Root, head: bytes, dek: Secret) -> bytes:
        """Nonce, ciphertext and tag. The nonce is read back: some tokens put one of their own into its place."""
        nonce = ctypes.create_string_buffer(os.urandom(_NONCE_BYTES[_GCM]), _NONCE_BYTES[_GCM])
        aad = ctypes.create_string_buffer(head, len(head))
        sealed = self._cipher(root, "encrypt", "AES_GCM", dek.reveal(), _gcm_parameters(nonce, aad))
        return nonce.raw + sealed

    def _open_gcm(self, root: Root, blob: bytes) -> Secret:
        rest = _HEAD_BYTES + _NONCE_BYTES[_GCM]
        nonce = ctypes.create_string_buffer(blob[_HEAD_BYTES:rest], _NONCE_BYTES[_GCM])
        aad = ctypes.create_string_buffer(blob[:_HEAD_BYTES], _HEAD_BYTES)

        def judge(refused: RuntimeError) -> MpError | None:
            # Many tokens have but CKR_GENERAL_ERROR for a wrong tag. One that still opens what it seals now was
            # given damaged bytes; this raises HardwareGone by itself when it does not.
            if not faults.is_about_ciphertext(refused):
                self._check_round_trip(root)
            return NotMine("a sealed blob that was damaged")

        parameters = _gcm_parameters(nonce, aad)
        return Secret(self._cipher(root, "decrypt", "AES_GCM", blob[rest:], parameters, judge))

    def _check_round_trip(self, root: Root) -> None:
        nonce = ctypes.create_string_buffer(os.urandom(_NONCE_BYTES[_GCM]), _NONCE_BYTES[_GCM])
        aad = ctypes.create_string_buffer(b"check", 5)
        sealed = self._cipher(root, "encrypt", "AES_GCM", bytes(DEK_BYTES), _gcm_parameters(nonce, aad))
        self._cipher(root, "decrypt", "AES_GCM", sealed, _gcm_parameters(nonce, aad))

    def _open_cbc(self, root: Root, blob: bytes) -> Secret:
        mac = objects.find_mac(self._token, root)
        if mac is None:
            raise Tampered("the PKCS#11 token has lost the key that authenticates sealed blobs")
        body, tag = blob[: -_TAG_BYTES[_CBC_HMAC]], blob[-_TAG_BYTES[_CBC_HMAC] :]
        if not hmac.compare_digest(self._sum(mac, body), tag):
            raise NotMine("a sealed blob that was damaged")
        rest = _HEAD_BYTES + _NONCE_BYTES[_CBC_HMAC]
        return Secret(self._cipher(root, "decrypt", "AES_CBC", body[rest:], body[_HEAD_BYTES:rest]))

    def _cipher(self, root: Root, verb: str, mechanism: str, text: bytes, parameters: bytes, *meaning: Any) -> bytes:
        chosen = getattr(self._token.p11.Mechanism, mechanism)
        doing = "sealing" if verb == "encrypt" else "unsealing"
        return bytes(
            self._token.run(
                doing,
                lambda _session: getattr(root.key, verb)(text, mechanism=chosen, mechanism_param=parameters),
                *meaning,
            )
        )

    def _sum(self, mac: Any, body: bytes) -> bytes:
        mechanism = self._token.p11.Mechanism.SHA256_HMAC
        return bytes(self._token.run("authenticating a blob", lambda _session: mac.sign(body, mechanism=mechanism)))


def open_sealer(token: Token) -> Pkcs11Sealer:
    """The sealer by the better scheme the token offers.

    Raises HardwareAbsent when it offers neither, and HardwareGone when it once did: then a root is there.
    """
    for scheme, needed in _NEEDS.items():
        if not token.lacks(*needed):
            return Pkcs11Sealer(token, scheme)
    raise explain_lack(token, "seal", token.lacks(*_NEEDS[_CBC_HMAC]))


def explain_lack(token: Token, ability: str, missing: tuple[str, ...]) -> HardwareGone:
    """A token that never could is absent; one that holds a root of ours and cannot any more is broken."""
    text = f"the PKCS#11 token {token.label!r} cannot {ability}: it does not offer {_words(missing)}"
    if objects.find_root(token) is None:
        return HardwareAbsent(text)
    return HardwareGone(text, advice="it did so before: bring back its firmware or settings")


def _words(mechanisms: tuple[str, ...]) -> str:
    return ", ".join(f"CKM_{name}" for name in mechanisms)


def _gcm_parameters(nonce: Any, aad: Any) -> bytes:
    """Points into both buffers: the caller keeps them until the call is over."""
    return bytes(
        _GcmParameters(
            iv=ctypes.addressof(nonce),
            iv_bytes=len(nonce),
            iv_bits=8 * len(nonce),
            aad=ctypes.addressof(aad),
            aad_bytes=len(aad),
            tag_bits=8 * _TAG_BYTES[_GCM],
        )
    )
