"""Public areas (TPMT_PUBLIC) as bytes: what we ask a TPM to make, and what we accept back from a disk.

Everything here is P-256 with SHA-256 names. Attribute bits: TPM 2.0 Library, Part 2, section 8.3.
Nothing we make is subject to dictionary-attack protection (noDA): after a few power cuts a TPM without an orderly
shutdown would otherwise lock it, and the parent counts as well as the child.
"""

import hashlib
import struct
from typing import Final

_FIXED_TPM: Final = 1 << 1
_FIXED_PARENT: Final = 1 << 4
_SENSITIVE_DATA_ORIGIN: Final = 1 << 5
_USER_WITH_AUTH: Final = 1 << 6
_ADMIN_WITH_POLICY: Final = 1 << 7
_NO_DA: Final = 1 << 10
_RESTRICTED: Final = 1 << 16
_DECRYPT: Final = 1 << 17
_SIGN: Final = 1 << 18

_ALG_AES: Final = 0x0006
_ALG_KEYEDHASH: Final = 0x0008
_ALG_SHA256: Final = 0x000B
_ALG_NULL: Final = 0x0010
_ALG_ECDSA: Final = 0x0018
_ALG_ECC: Final = 0x0023
_ALG_CFB: Final = 0x0043
_CURVE_P256: Final = 0x0003

_AES_128_CFB: Final = struct.pack(">HHH", _ALG_AES, 128, _ALG_CFB)
_NONE: Final = struct.pack(">H", _ALG_NULL)
_ECDSA_SHA256: Final = struct.pack(">HH", _ALG_ECDSA, _ALG_SHA256)

_HELD: Final = _FIXED_TPM | _FIXED_PARENT | _USER_WITH_AUTH | _NO_DA
_BORN: Final = _HELD | _SENSITIVE_DATA_ORIGIN

_EK_POLICY: Final = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""TPM2_PolicySecret(TPM_RH_ENDORSEMENT). Source: TCG EK Credential Profile, template L-2."""

ECC_UNIQUE_BYTES: Final = 68
"""The last bytes of a P-256 public area as a TPM returns it: two lengths and two coordinates of 32 bytes."""
SEALED_UNIQUE_BYTES: Final = 34
"""The last bytes of a sealed object's public area: one length and a SHA-256 digest."""


def _head(kind: int, attributes: int, policy: bytes) -> bytes:
    return struct.pack(">HHIH", kind, _ALG_SHA256, attributes, len(policy)) + policy


def _ecc(attributes: int, symmetric: bytes, scheme: bytes, policy: bytes, unique: bytes) -> bytes:
    details = symmetric + scheme + struct.pack(">H", _CURVE_P256) + _NONE
    return _head(_ALG_ECC, attributes, policy) + details + unique


_ZEROS: Final = struct.pack(">H32xH32x", 32, 32)
_EMPTY: Final = struct.pack(">HH", 0, 0)

ENDORSEMENT: Final = _ecc(
    _FIXED_TPM | _FIXED_PARENT | _SENSITIVE_DATA_ORIGIN | _ADMIN_WITH_POLICY | _RESTRICTED | _DECRYPT,
    _AES_128_CFB,
    _NONE,
    _EK_POLICY,
    _ZEROS,
)
"""The EK of template L-2 (ECC NIST P-256). Any other template gives another EK than the certificate's."""
STORAGE_ROOT: Final = _ecc(_BORN | _RESTRICTED | _DECRYPT, _AES_128_CFB, _NONE, b"", _ZEROS)
"""The SRK: a primary made anew at each start from the owner seed, so its Name is the same at every boot."""
ATTESTATION: Final = _ecc(_BORN | _RESTRICTED | _SIGN, _NONE, _ECDSA_SHA256, b"", _EMPTY)
"""The AK: restricted, so that it signs only what the TPM itself made."""
DEVICE_KEY: Final = _ecc(_BORN | _SIGN | _DECRYPT, _NONE, _NONE, b"", _EMPTY)
"""One key for both ECDSA and ECDH, as the holder's labels keep them apart."""
SEALED: Final = _head(_ALG_KEYEDHASH, _HELD, b"") + _NONE + struct.pack(">H", 0)
"""A sealed object; its data comes from us, so sensitiveDataOrigin is clear."""


def fits(public: bytes, template: bytes, unique_bytes: int) -> bool:
    """Whether a public area differs from the template in its `unique` field alone.

    A disk may hold a public area that somebody else wrote, e.g. of a key they made outside and imported.
    """
    empty = len(_EMPTY) if unique_bytes == ECC_UNIQUE_BYTES else 2
    return len(public) == len(template) - empty + unique_bytes and public.startswith(template[:-empty])


def name_of(public: bytes) -> bytes:
    """Name of an object: algorithm id and SHA-256 of its TPMT_PUBLIC, 34 bytes."""
    return struct.pack(">H", _ALG_SHA256) + hashlib.sha256(public).digest()


def point_of(public: bytes) -> bytes:
    """The uncompressed point, 65 bytes, of a P-256 public area as a TPM returns it."""
    unique = public[-ECC_UNIQUE_BYTES:]
    return b"\x04" + unique[2:34] + unique[36:68]
