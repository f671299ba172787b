"""Nested evidence: the attester's COSE_Sign1 over the device key's COSE_Sign1 over the EAT (docs/wire.md 4.3).

Building and reading only; whose key and what the claims must say is the issuer's business (mpissuer/evidence.py).
"""

from typing import Final

from mpwire import labels, registry
from mpwire.codec import decode, encode
from mpwire.cose import Sign1, read_sign1
from mpwire.errors import Malformed
from mpwire.limits import OPTEE_MEASUREMENT_BYTES, OPTEE_SIGNATURE_BYTES
from mpwire.messages.eat import CLAIMS, Claims
from mpwire.shape import Integer, ListOf, Octets, Row

CLAIMS_MAX_BYTES: Final = 3_584
"""So that the attester's Sig_structure stays below what MPSign takes (4096 bytes) with its framing."""
INNER_ALGS: Final = frozenset({registry.ALG_ES256})
OUTER_ALGS: Final = frozenset(
    {registry.ALG_ES256, registry.ALG_MP_ES256, registry.ALG_TPM_QUOTE_ES256, registry.ALG_OPTEE_PS256}
    | registry.UNVERIFIED_ALGS
)
OUTER_BESIDE: Final = frozenset({registry.HEADER_MPMR, registry.HEADER_ATTEST_PCRS})
OUTER_PROTECTED: Final = frozenset({registry.HEADER_PROFILE})
PCRS: Final = ListOf(Row(Integer(23), Octets(32)), 24)
TPM_SIGNATURE: Final = Row(Octets(1, 1_024), Octets(64))
"""[TPMS_ATTEST, r || s]: the signature bytes of TPM-QUOTE-ES256."""
OPTEE_SIGNATURE: Final = Row(Octets(OPTEE_MEASUREMENT_BYTES), Octets(OPTEE_SIGNATURE_BYTES))
"""[hash of OP-TEE's memory, RSA-PSS signature]: the signature bytes of OPTEE-PS256."""


def outer_headers(alg: int, profile: str | None) -> dict[int, object]:
    """Protected headers of the attester's envelope."""
    headers: dict[int, object] = {registry.HEADER_ALG: alg, registry.HEADER_TYP: labels.TYP_EVIDENCE}
    if profile is not None:
        headers[registry.HEADER_PROFILE] = profile
    return headers


def read_outer(raw: bytes) -> Sign1:
    """The attester's envelope, nothing of it verified. Raises Malformed."""
    return read_sign1(
        raw,
        typ=labels.TYP_EVIDENCE,
        algs=OUTER_ALGS,
        unprotected_allowed=OUTER_BESIDE,
        protected_allowed=OUTER_PROTECTED,
    )


def read_mpmr(outer: Sign1) -> bytes:
    """The MPMR beside an MP signature. Raises Malformed."""
    if outer.unprotected.keys() != {registry.HEADER_MPMR}:
        raise Malformed("evidence-headers")
    mpmr: bytes = Octets(32).read(outer.unprotected[registry.HEADER_MPMR], "mpmr")
    return mpmr


def read_quote(outer: Sign1) -> tuple[bytes, bytes, tuple[tuple[int, bytes], ...]]:
    """TPMS_ATTEST, r || s and the PCR values beside a quote. Raises Malformed."""
    if outer.unprotected.keys() != {registry.HEADER_ATTEST_PCRS}:
        raise Malformed("evidence-headers")
    pcrs = PCRS.read(outer.unprotected[registry.HEADER_ATTEST_PCRS], "pcrs")
    attest, signature = TPM_SIGNATURE.read(decode(outer.signature), "quote")
    return attest, signature, pcrs


def check_bare(outer: Sign1) -> None:
    """Nothing may stand beside a card's signature. Raises Malformed."""
    if outer.unprotected:
        raise Malformed("evidence-headers")


def read_optee(outer: Sign1) -> tuple[bytes, bytes]:
    """Measurement and RSA signature of OPTEE-PS256. Raises Malformed."""
    check_bare(outer)
    measurement, signature = OPTEE_SIGNATURE.read(decode(outer.signature), "optee")
    return measurement, signature


def write_optee_signature(measurement: bytes, signature: bytes) -> bytes:
    """The signature bytes of OPTEE-PS256."""
    return encode([measurement, signature])


def write_tpm_signature(attest: bytes, signature: bytes) -> bytes:
    """The signature bytes of TPM-QUOTE-ES256."""
    return encode([attest, signature])


def read_inner(payload: bytes) -> tuple[Sign1, Claims]:
    """The device key's envelope and its claims, nothing of it verified. Raises Malformed."""
    inner = read_sign1(payload, typ=labels.TYP_EAT, algs=INNER_ALGS)
    return inner, CLAIMS.decode(inner.payload, CLAIMS_MAX_BYTES)
