"""How a data encryption key is wrapped under a trusted key that nobody sees: AES-256-CCM, done by the kernel.

Two ways give the same bytes, so that a kernel that loses one of them still opens what the other made: a socket of
AF_ALG that takes the key by its serial, and AES blocks through a dm-crypt volume on that key. AF_ALG is being
withdrawn from kernels, so it is never the only way.
"""

import hmac
import struct
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
AAD_BYTES: Final = 32
"""The associated data is a SHA-256, so that its blocks stay few where each one costs a disk write."""
_LENGTH_BYTES: Final = 15 - NONCE_BYTES
"""L of RFC 3610: how many bytes tell the length of the text."""
_BLOCK: Final = 16
_FLAGS: Final = 0x40 | (TAG_BYTES - 2) // 2 << 3 | _LENGTH_BYTES - 1


class HeldKey(NamedTuple):
    """A key in the kernel, for as long as its ring stands."""

    serial: int
    description: str
    """Without white space, and unlike any other: dm-crypt finds the key by it."""


class Wrapper(Protocol):
    """AES-CCM under a key in the kernel. Raises OSError as the kernel does."""

    name: str
    """"af_alg" or "dm-crypt"."""

    def wrap(self, key: HeldKey, nonce: bytes, aad: bytes, text: bytes) -> bytes:
        """Ciphertext and tag. `nonce` has 12 bytes, `aad` 32."""

    def unwrap(self, key: HeldKey, nonce: bytes, aad: bytes, sealed: bytes) -> bytes | None:
        """The text, or None when key, nonce, aad or text are not those of wrap()."""


def make_iv(nonce: bytes) -> bytes:
    """The 16 bytes that the kernel's ccm(aes) takes: L − 1, the nonce, L zero bytes (RFC 3610 section 2.3)."""
    return bytes([_LENGTH_BYTES - 1]) + nonce + bytes(_LENGTH_BYTES)


def ccm_wrap(encrypt: Callable[[bytes], bytes], nonce: bytes, aad: bytes, text: bytes) -> bytes:
    """AES-CCM (RFC 3610) by `encrypt`, which turns whole AES blocks into as many, each for itself."""
    mask = _key_stream(encrypt, nonce, len(text))
    tag = _mac(encrypt, nonce, aad, text)
    return _xor(text, mask[_BLOCK:]) + _xor(tag, mask[:_BLOCK])


def ccm_unwrap(encrypt: Callable[[bytes], bytes], nonce: bytes, aad: bytes, sealed: bytes) -> bytes | None:
    """The text, or None when the tag is wrong."""
    if len(sealed) < TAG_BYTES:
        return None
    hidden, tag = sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]
    mask = _key_stream(encrypt, nonce, len(hidden))
    text = _xor(hidden, mask[_BLOCK:])
    return text if hmac.compare_digest(_xor(_mac(encrypt, nonce, aad, text), mask[:_BLOCK]), tag) else None


def _key_stream(encrypt: Callable[[bytes], bytes], nonce: bytes, size: int) -> bytes:
    """S_0, S_1, ... of RFC 3610 section 2.3."""
    count = 1 + -(-size // _BLOCK)
    head = bytes([_LENGTH_BYTES - 1]) + nonce
    return encrypt(b"".join(head + number.to_bytes(_LENGTH_BYTES, "big") for number in range(count)))


def _mac(encrypt: Callable[[bytes], bytes], nonce: bytes, aad: bytes, text: bytes) -> bytes:
    """T of RFC 3610 section 2.2, for associated data of 1 to 65279 bytes."""
    first = bytes([_FLAGS]) + nonce + len(text).to_bytes(_LENGTH_BYTES, "big")
    blocks = first + _pad(struct.pack(">H", len(aad)) + aad) + _pad(text)
    state = bytes(_BLOCK)
    for place in range(0, len(blocks), _BLOCK):
        state = encrypt(_xor(state, blocks[place : place + _BLOCK]))
    return state


def _pad(part: bytes) -> bytes:
    return part + bytes(-len(part) % _BLOCK)


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=False))
