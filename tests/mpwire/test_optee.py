"""OPTEE-PS256: one digest, one salt length, one key size; everything near it is refused."""

from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from mpwire import limits, optee
from mpwire.errors import Malformed, Unauthentic
from tests.vectors.rsa import MEASUREMENT, OPTEE, OTHER_OPTEE

MESSAGE = b"a Sig_structure"
DIGEST = sha256(sha256(MESSAGE).digest() + MEASUREMENT).digest()
SIGNATURE = OPTEE.sign_digest(DIGEST)


def spki(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def private() -> rsa.RSAPrivateKey:
    """The fixed key as the library has it."""
    d = pow(optee.EXPONENT, -1, (OPTEE.p - 1) * (OPTEE.q - 1))
    public = rsa.RSAPublicNumbers(optee.EXPONENT, OPTEE.modulus)
    crt = rsa.rsa_crt_dmp1(d, OPTEE.p), rsa.rsa_crt_dmq1(d, OPTEE.q), rsa.rsa_crt_iqmp(OPTEE.p, OPTEE.q)
    return rsa.RSAPrivateNumbers(OPTEE.p, OPTEE.q, d, *crt, public).private_key()


def test_what_the_pta_signs_verifies_whoever_pads_it() -> None:
    """Once padded by hand after RFC 8017, once by the library."""
    optee.verify_optee(OPTEE.public, MESSAGE, MEASUREMENT, SIGNATURE)
    pss = padding.PSS(padding.MGF1(SHA256()), 32)
    by_library = private().sign(sha256(MESSAGE).digest() + MEASUREMENT, pss, SHA256())
    optee.verify_optee(OPTEE.public, MESSAGE, MEASUREMENT, by_library)


@pytest.mark.parametrize(
    ("public", "message", "measurement", "signature"),
    [
        (OTHER_OPTEE.public, MESSAGE, MEASUREMENT, SIGNATURE),
        (OPTEE.public, MESSAGE + b"!", MEASUREMENT, SIGNATURE),
        (OPTEE.public, MESSAGE, bytes(32), SIGNATURE),
        (OPTEE.public, MESSAGE, MEASUREMENT[:-1], SIGNATURE),
        (OPTEE.public, MESSAGE, MEASUREMENT, SIGNATURE[:-1]),
        (OPTEE.public, MESSAGE, MEASUREMENT, b"\x00" + SIGNATURE),
        (OPTEE.public, MESSAGE, MEASUREMENT, bytes(384)),
        (OPTEE.public, MESSAGE, MEASUREMENT, b"\xff" * 384),
        (OPTEE.public, MESSAGE, MEASUREMENT, OPTEE.sign_digest(sha256(DIGEST).digest())),
        (OPTEE.public, MESSAGE, MEASUREMENT, OPTEE.sign_digest(DIGEST, 20)),
        (OPTEE.public, MESSAGE, MEASUREMENT, OPTEE.sign_digest(sha256(MESSAGE + MEASUREMENT).digest())),
        (OPTEE.public, MESSAGE, MEASUREMENT, private().sign(DIGEST, padding.PKCS1v15(), Prehashed(SHA256()))),
        (
            OPTEE.public,
            MESSAGE,
            MEASUREMENT,
            private().sign(DIGEST, padding.PSS(padding.MGF1(SHA384()), 32), Prehashed(SHA256())),
        ),
    ],
    ids=[
        *("other key", "other message", "other measurement", "short measurement", "short signature", "long signature"),
        *("zeros", "ones", "hashed twice", "short salt", "message not hashed", "PKCS#1 v1.5", "another MGF"),
    ],
)
def test_anything_else_is_unauthentic(public: bytes, message: bytes, measurement: bytes, signature: bytes) -> None:
    with pytest.raises(Unauthentic, match="optee-signature"):
        optee.verify_optee(public, message, measurement, signature)


def test_the_numbers_of_the_pta_make_the_one_spelling() -> None:
    modulus = OPTEE.modulus.to_bytes(384, "big")
    for exponent in (b"\x01\x00\x01", b"\x00\x01\x00\x01"):
        assert optee.write_public(modulus, exponent) == OPTEE.public
    assert len(OPTEE.public) == 422 <= limits.RSA_PUBLIC_MAX_BYTES
    assert optee.key_id(OPTEE.public) == sha256(OPTEE.public).digest()


@pytest.mark.parametrize(
    ("modulus", "exponent", "said"),
    [
        (bytes(384), b"\x01\x00\x01", "modulus"),
        (b"\x7f" + b"\xff" * 383, b"\x01\x00\x01", "modulus"),
        (b"\xff" * 383 + b"\xfe", b"\x01\x00\x01", "modulus"),
        (b"\xff" * 256, b"\x01\x00\x01", "modulus"),
        (b"", b"\x01\x00\x01", "modulus"),
        (b"\xff" * 384, b"\x03", "exponent"),
        (b"\xff" * 384, b"", "exponent"),
    ],
)
def test_numbers_of_another_kind_of_key_are_refused(modulus: bytes, exponent: bytes, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        optee.write_public(modulus, exponent)


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30\x00",
        OPTEE.public[:-1],
        OPTEE.public + b"\x00",
        b"\x30\x80" + OPTEE.public[4:] + b"\x00\x00",
        spki(rsa.RSAPublicNumbers(65_537, OPTEE.p * OTHER_OPTEE.p >> 1024 | 1).public_key()),
        spki(rsa.RSAPublicNumbers(3, OPTEE.modulus).public_key()),
        spki(ec.derive_private_key(7, ec.SECP256R1()).public_key()),
    ],
    ids=["nothing", "empty", "cut", "with a rest", "indefinite", "2048 bits", "exponent 3", "P-256"],
)
def test_another_key_or_spelling_is_malformed(der: bytes) -> None:
    with pytest.raises(Malformed, match="optee-key"):
        optee.read_public(der)


@given(raw=st.binary(max_size=500))
def test_noise_is_no_key(raw: bytes) -> None:
    with pytest.raises(Malformed):
        optee.key_id(raw)
