"""OPTEE-PS256: what OP-TEE's attestation PTA signs with the RSA key it keeps in secure storage, and how to verify it.

The PTA hashes nonce || measurement once with SHA-256 and signs that digest by RSASSA-PSS (MGF1 with SHA-256, a salt of
32 bytes). The nonce is SHA-256 of what we want signed; the measurement is the hash of OP-TEE's own code and constants.
Source: optee_os core/pta/attestation.c (digest_nonce_and_hash, sign_digest), since 3.17.
"""

from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from mpwire.errors import Malformed, Unauthentic
from mpwire.limits import OPTEE_MEASUREMENT_BYTES, OPTEE_SIGNATURE_BYTES

KEY_BITS: Final = 3_072
"""CFG_ATTESTATION_PTA_KEY_SIZE as OP-TEE ships it; the only size of wire version 1."""
EXPONENT: Final = 65_537

_PSS: Final = padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=32)
_PREHASHED: Final = Prehashed(SHA256())


def make_nonce(message: bytes) -> bytes:
    """What the PTA is given as nonce for a whole message: SHA-256, 32 bytes."""
    return sha256(message).digest()


def write_public(modulus: bytes, exponent: bytes) -> bytes:
    """SubjectPublicKeyInfo, DER, of the two big-endian numbers the PTA returns. Raises Malformed as `read_public`."""
    if len(modulus) != OPTEE_SIGNATURE_BYTES or not modulus[0] & 0x80 or not modulus[-1] & 1:
        raise Malformed("optee-key: the modulus is not an odd number of 3072 bits")
    if int.from_bytes(exponent, "big") != EXPONENT:
        raise Malformed("optee-key: the exponent is not 65537")
    numbers = rsa.RSAPublicNumbers(EXPONENT, int.from_bytes(modulus, "big"))
    return numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_public(der: bytes) -> rsa.RSAPublicKey:
    """The key of a SubjectPublicKeyInfo in its one spelling; Malformed for any other key, size or exponent."""
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed("optee-key: no SubjectPublicKeyInfo") from None
    if not isinstance(key, rsa.RSAPublicKey) or (key.key_size, key.public_numbers().e) != (KEY_BITS, EXPONENT):
        raise Malformed("optee-key: not RSA of 3072 bits with exponent 65537")
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != der:
        raise Malformed("optee-key: not in DER")
    return key


def key_id(der: bytes) -> bytes:
    """The attester-id of an attestation key: SHA-256 of its SubjectPublicKeyInfo. Raises Malformed."""
    read_public(der)
    return sha256(der).digest()


def verify_optee(der: bytes, message: bytes, measurement: bytes, signature: bytes) -> None:
    """Raises Unauthentic unless the key `der` signed `message` in an OP-TEE that measured itself so."""
    if len(measurement) != OPTEE_MEASUREMENT_BYTES or len(signature) != OPTEE_SIGNATURE_BYTES:
        raise Unauthentic("optee-signature")
    digest = sha256(make_nonce(message) + measurement).digest()
    try:
        read_public(der).verify(signature, digest, _PSS, _PREHASHED)
    except InvalidSignature:
        raise Unauthentic("optee-signature") from None
