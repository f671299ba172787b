"""HPKE base mode, one message per key (RFC 9180): DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.

Written here because the device's floor (cryptography 42) has no HPKE, and because the receiver's private key may live
in a chip: its Diffie-Hellman is a port.
"""

import hmac
from typing import Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mpwire import p256
from mpwire.errors import Unauthentic
from mpwire.secret import Secret

TAG_BYTES: Final = 16

_KEM_SUITE: Final = b"KEM\x00\x10"
_SUITE: Final = b"HPKE\x00\x10\x00\x01\x00\x02"


class Ecdh(Protocol):
    """The receiver's private key, wherever it lives."""

    def public_key(self) -> bytes:
        """The 65-byte point."""

    def ecdh(self, peer: bytes) -> Secret:
        """The X coordinate of the shared point, 32 bytes; Malformed when the peer's point is not on the curve."""


class Schedule(NamedTuple):
    """Result of KeySchedule (RFC 9180 section 5.1) that single-shot use needs. Every field but the nonce is secret."""

    key: Secret
    base_nonce: bytes
    exporter: Secret


def seal_base(
    peer: bytes, info: bytes, aad: bytes, plain: Secret, *, _ephemeral: p256.SoftKey | None = None
) -> tuple[bytes, bytes]:
    """SealBase (RFC 9180 section 6.1): (enc, ciphertext); the ciphertext is TAG_BYTES longer than the plain text.

    `_ephemeral` is for test vectors alone: two messages under one ephemeral key give both away.
    Raises Malformed when the peer's point is not on the curve.
    """
    ephemeral = _ephemeral or p256.SoftKey.generate()
    enc = ephemeral.public_key()
    made = schedule(agree(ephemeral.ecdh(peer), enc, peer), info)
    return enc, AESGCM(made.key.reveal()).encrypt(made.base_nonce, plain.reveal(), aad)


def open_base(key: Ecdh, enc: bytes, info: bytes, aad: bytes, ciphertext: bytes) -> Secret:
    """OpenBase (RFC 9180 section 6.1). Raises Unauthentic: another key, info, aad or ciphertext; Malformed for enc."""
    p256.load_point(enc)
    made = schedule(agree(key.ecdh(enc), enc, key.public_key()), info)
    if len(ciphertext) < TAG_BYTES:
        raise Unauthentic("hpke-open")
    try:
        return Secret(AESGCM(made.key.reveal()).decrypt(made.base_nonce, ciphertext, aad))
    except InvalidTag:
        raise Unauthentic("hpke-open") from None


def agree(dh: Secret, enc: bytes, receiver: bytes) -> Secret:
    """ExtractAndExpand over kem_context = enc || receiver (RFC 9180 section 4.1): the KEM's shared secret."""
    prk = _extract(_KEM_SUITE, b"", b"eae_prk", dh.reveal())
    return Secret(_expand(_KEM_SUITE, prk, b"shared_secret", enc + receiver, 32))


def schedule(shared: Secret, info: bytes) -> Schedule:
    """KeySchedule of base mode (RFC 9180 section 5.1), without a PSK."""
    context = b"\x00" + _PSK_ID_HASH + _extract(_SUITE, b"", b"info_hash", info)
    secret = _extract(_SUITE, shared.reveal(), b"secret", b"")
    return Schedule(
        key=Secret(_expand(_SUITE, secret, b"key", context, 32)),
        base_nonce=_expand(_SUITE, secret, b"base_nonce", context, 12),
        exporter=Secret(_expand(_SUITE, secret, b"exp", context, 32)),
    )


def _extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    """LabeledExtract (RFC 9180 section 4); an empty HMAC key equals HKDF's salt of zeros."""
    return hmac.digest(salt, b"HPKE-v1" + suite + label + ikm, "sha256")


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, size: int) -> bytes:
    """LabeledExpand (RFC 9180 section 4) for 1 to 32 bytes: HKDF-Expand's first block."""
    return hmac.digest(prk, size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info + b"\x01", "sha256")[:size]


_PSK_ID_HASH: Final = _extract(_SUITE, b"", b"psk_id_hash", b"")
