"""TPM2_MakeCredential in software (TPM 2.0 Library Part 1 section 24): a secret that only one EK and one AK can have.

For EKs of the TCG EK Credential Profile's templates L-1 (RSA-2048) and L-2 (P-256): nameAlg SHA-256, AES-128-CFB.
"""

import hmac
import secrets
import struct
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256

from mpwire import p256, tpm2
from mpwire.errors import Malformed
from mpwire.ueid import TPM_NAME_BYTES

SECRET_MAX_BYTES: Final = 32
"""Largest secret: a digest of the EK's nameAlg (Part 3 section 12.6)."""

_IDENTITY: Final = b"IDENTITY\x00"
_OAEP: Final = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=_IDENTITY)
_BLOCK: Final = 16


def make_credential(ek_public: bytes, ak_name: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """(TPMS_ID_OBJECT, TPM2B_ENCRYPTED_SECRET's buffer), fresh on every call.

    `ek_public` is a TPMT_PUBLIC, `ak_name` the 34-byte Name of the key that must live beside the EK.
    Raises Malformed for either of another shape, Unauthentic("tpm-ek-attributes") for a key that is no EK.
    """
    ek = tpm2.read_public(ek_public)
    tpm2.check_ek(ek)
    if len(ak_name) != TPM_NAME_BYTES:
        raise Malformed("tpm-name")
    if not 0 < len(secret) <= SECRET_MAX_BYTES:
        raise ValueError("credential secret size")
    seed, encrypted_seed = _share_seed_ecc(ek) if ek.is_ecc else _share_seed_rsa(ek)
    identity = _encrypt_cfb(_derive(seed, b"STORAGE", ak_name, 128), struct.pack(">H", len(secret)) + secret)
    integrity = hmac.digest(_derive(seed, b"INTEGRITY", b"", 256), identity + ak_name, "sha256")
    return struct.pack(">H", len(integrity)) + integrity + identity, encrypted_seed


def _share_seed_ecc(ek: tpm2.Public) -> tuple[bytes, bytes]:
    """Seed by one-pass ECDH (Part 1 annex C.6.4) and KDFe (section 11.4.10.3); the TPM gets the ephemeral point."""
    ephemeral = p256.SoftKey.generate()
    point = ephemeral.public_key()
    parties = point[1:33] + ek.unique[1:33]
    seed = sha256(b"\x00\x00\x00\x01" + ephemeral.ecdh(ek.unique).reveal() + _IDENTITY + parties).digest()
    size = struct.pack(">H", 32)
    return seed, size + point[1:33] + size + point[33:]


def _share_seed_rsa(ek: tpm2.Public) -> tuple[bytes, bytes]:
    """Random seed under OAEP with the label IDENTITY (Part 1 annex B.10.4)."""
    seed = secrets.token_bytes(32)
    key = rsa.RSAPublicNumbers(ek.exponent or 65537, int.from_bytes(ek.unique, "big")).public_key()
    return seed, key.encrypt(seed, _OAEP)


def _derive(seed: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa (Part 1 section 11.4.10.2) for at most one SHA-256 block."""
    counted = b"\x00\x00\x00\x01" + label + b"\x00" + context + struct.pack(">I", bits)
    return hmac.digest(seed, counted, "sha256")[: bits // 8]


def _encrypt_cfb(key: bytes, plain: bytes) -> bytes:
    """AES-128-CFB from a zero IV, built on single blocks: releases of `cryptography` move their CFB about."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    before, out = bytes(_BLOCK), b""
    for start in range(0, len(plain), _BLOCK):
        part = plain[start : start + _BLOCK]
        before = bytes(a ^ b for a, b in zip(part, block.update(before), strict=False))
        out += before
    return out
