"""CKM_AES_GCM as a token has it: the parameters, and whether it works with a nonce of ours."""

import ctypes
import os
from typing import Any, Final

from mpserver.safe import WRAP_NONCE_BYTES

TAG_BYTES: Final = 16


class _GcmParameters(ctypes.Structure):
    """CK_GCM_PARAMS (PKCS#11 2.40, pkcs11t.h). Given as bytes, so that a nonce the token chose can be read back."""

    _fields_ = (
        ("iv", ctypes.c_void_p),
        ("iv_bytes", ctypes.c_ulong),
        ("iv_bits", ctypes.c_ulong),
        ("aad", ctypes.c_void_p),
        ("aad_bytes", ctypes.c_ulong),
        ("tag_bits", ctypes.c_ulong),
    )


def write_parameters(nonce: Any, aad: Any) -> bytes:
    """Points into both buffers: the caller keeps them until the call is over."""
    return bytes(
        _GcmParameters(
            iv=ctypes.addressof(nonce),
            iv_bytes=len(nonce),
            iv_bits=8 * len(nonce),
            aad=ctypes.addressof(aad),
            aad_bytes=len(aad),
            tag_bits=8 * TAG_BYTES,
        )
    )


def check_round_trip(key: Any, mechanism: Any) -> None:
    """Many tokens have but CKR_GENERAL_ERROR for a wrong tag: one that opens what it wraps now was given wrong bytes.

    Raises what the token says where it does not.
    """
    nonce, aad = (ctypes.create_string_buffer(text, len(text)) for text in (os.urandom(WRAP_NONCE_BYTES), b"check"))
    sealed = key.encrypt(b"check", mechanism=mechanism, mechanism_param=write_parameters(nonce, aad))
    key.decrypt(sealed, mechanism=mechanism, mechanism_param=write_parameters(nonce, aad))
