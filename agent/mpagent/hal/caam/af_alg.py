"""ccm(aes) by AF_ALG with a key's serial (Linux 6.2 and later, where it is not restricted)."""

import errno
import socket
import struct
from typing import Final

from mpagent.hal.caam.wrap import TAG_BYTES, HeldKey, make_iv

_SET_KEY_BY_SERIAL: Final = 7
"""ALG_SET_KEY_BY_KEY_SERIAL (include/uapi/linux/if_alg.h); Python has no name for it."""
_CIPHER: Final = ("aead", "ccm(aes)")
_NOT_OFFERED: Final = frozenset(
    {
        errno.EAFNOSUPPORT,  # no AF_ALG, or closed for all
        errno.ENOENT,  # no aead sockets, no ccm(aes), or not on the list of what is allowed
        errno.EPERM,
        errno.EACCES,
        errno.ENOPROTOOPT,  # a kernel before 6.2
        errno.EPROTONOSUPPORT,
        errno.ESOCKTNOSUPPORT,
    }
)


class AfAlg:  # not here: a real kernel's, in the QEMU bench
    """One socket for each call; the kernel copies the key, so it may be dropped afterwards."""

    name: str = "af_alg"

    def wrap(self, key: HeldKey, nonce: bytes, aad: bytes, text: bytes) -> bytes:
        return _transform(socket.ALG_OP_ENCRYPT, key.serial, nonce, aad, text, len(text) + TAG_BYTES)

    def unwrap(self, key: HeldKey, nonce: bytes, aad: bytes, sealed: bytes) -> bytes | None:
        try:
            return _transform(socket.ALG_OP_DECRYPT, key.serial, nonce, aad, sealed, len(sealed) - TAG_BYTES)
        except OSError as refused:
            if refused.errno == errno.EBADMSG:
                return None
            raise


def is_offered(user_key: int) -> bool:  # not here: a real kernel's, in the QEMU bench
    """Whether this kernel takes the serial of a 32-byte `user` key for ccm(aes). Raises OSError for anything odd."""
    try:
        with _open(user_key):
            return True
    except OSError as refused:
        if refused.errno in _NOT_OFFERED:
            return False
        raise


def _open(serial: int) -> socket.socket:  # not here: a real kernel's, in the QEMU bench
    alg = socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC, 0)
    try:
        alg.bind(_CIPHER)
        alg.setsockopt(socket.SOL_ALG, _SET_KEY_BY_SERIAL, struct.pack("=i", serial))
        alg.setsockopt(socket.SOL_ALG, socket.ALG_SET_AEAD_AUTHSIZE, None, TAG_BYTES)
    except OSError:
        alg.close()
        raise
    return alg


def _transform(
    operation: int, serial: int, nonce: bytes, aad: bytes, text: bytes, size: int
) -> bytes:  # not here: a real kernel's, in the QEMU bench
    with _open(serial) as alg:
        request, _ = alg.accept()
        with request:
            request.sendmsg_afalg([aad + text], op=operation, iv=make_iv(nonce), assoclen=len(aad))
            return request.recv(len(aad) + size)[len(aad) :]
