"""A component's ciphertext: chunks of AES-256-GCM whose nonces say how many came before and which is the last
(docs/wire.md 11.3). A key is for one component of one bundle, so there is no nonce to choose and none to use twice.
"""

from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mpwire.errors import Unauthentic
from mpwire.limits import BUNDLE_CHUNK_BYTES
from mpwire.secret import Secret

TAG_BYTES: Final = 16
_COUNTER_BYTES: Final = 11


def count_ciphertext(size: int) -> int:
    """Bytes of the ciphertext of `size` bytes: a tag for each chunk, and one chunk where there is nothing."""
    return size + TAG_BYTES * (find_last(size) + 1)


def find_last(size: int) -> int:
    """Number of the last chunk of `size` bytes, from 0."""
    return max(0, -(-size // BUNDLE_CHUNK_BYTES) - 1)


def seal_chunks(key: Secret, chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Ciphertext of plain chunks, each of BUNDLE_CHUNK_BYTES but the last; `size` bytes in all.

    Raises ValueError when the chunks are not `size` bytes in that division: the manifest would not fit them.
    """
    cipher, done = AESGCM(key.reveal()), 0
    for number, length, is_last in _divide(size):
        chunk = next(chunks, b"")
        if len(chunk) != length:
            raise ValueError(f"a chunk of {len(chunk)} bytes after {done} of {size}")
        done += length
        yield cipher.encrypt(_nonce(number, is_last), chunk, None)


def open_chunks(key: Secret, read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    """Plain chunks of a component; `read(n)` gives the next n bytes of its ciphertext.

    Every chunk is authentic when it is given out, and that it was the last is known only at the end: nothing may be
    kept before. Raises Unauthentic("bundle-open").
    """
    cipher = AESGCM(key.reveal())
    for number, length, is_last in _divide(size):
        sealed = read(length + TAG_BYTES)
        try:
            plain = cipher.decrypt(_nonce(number, is_last), sealed, None)
        except (InvalidTag, ValueError):
            raise Unauthentic("bundle-open") from None
        if len(plain) != length:
            raise Unauthentic("bundle-open")
        yield plain


def open_last(key: Secret, sealed: bytes, number: int) -> bytes:
    """The last chunk alone, which shows that nothing is cut off. Raises Unauthentic("bundle-open")."""
    try:
        return AESGCM(key.reveal()).decrypt(_nonce(number, True), sealed, None)
    except (InvalidTag, ValueError):
        raise Unauthentic("bundle-open") from None


def read_plain(file: BinaryIO) -> Iterator[bytes]:
    """A file in chunks as `seal_chunks` takes them, whatever a single read gives."""
    while chunk := file.read(BUNDLE_CHUNK_BYTES):
        while len(chunk) < BUNDLE_CHUNK_BYTES and (more := file.read(BUNDLE_CHUNK_BYTES - len(chunk))):
            chunk += more
        yield chunk


def _divide(size: int) -> Iterator[tuple[int, int, bool]]:
    """(number, bytes of plain text, whether it is the last) of each chunk."""
    last = find_last(size)
    for number in range(last):
        yield number, BUNDLE_CHUNK_BYTES, False
    yield last, size - last * BUNDLE_CHUNK_BYTES, True


def _nonce(number: int, is_last: bool) -> bytes:
    return number.to_bytes(_COUNTER_BYTES, "big") + bytes([is_last])
