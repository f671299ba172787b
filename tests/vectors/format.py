"""How vectors lie in their files, and what reads each kind of message.

A file is a JSON array with one vector a line. `bytes` is hex, or an array of hex strings and [hex, times] pairs that
stand for a part repeated: otherwise a value of one byte too many would fill the file.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mpwire import evidence, labels, limits, registry
from mpwire.codec import decode
from mpwire.cose import read_key, read_sign1
from mpwire.messages.eat import CLAIMS
from mpwire.messages.grant import CONTENTS, GRANT, RECEIPT
from mpwire.messages.issuer import ENTRY, HEAD, ISSUER_CERTIFICATE, TRUST_UPDATE
from mpwire.messages.plain import CHALLENGE, CLOSED, HELLO, PROOF, REFUSAL
from mpwire.shape import MapOf
from mpwire.trust import CERTIFICATE_MAX_BYTES, ES256_ONLY, read_signed

HERE: Final = Path(__file__).parent
REPEAT_MIN: Final = 256
"""A run of one byte value at least so long is written as a repetition."""

Vector = dict[str, Any]


def write_bytes(raw: bytes) -> str | list[Any]:
    """`bytes` of a vector."""
    parts: list[Any] = []
    start = at = 0
    while at < len(raw):
        end = at
        while end < len(raw) and raw[end] == raw[at]:
            end += 1
        if end - at >= REPEAT_MIN:
            parts += [raw[start:at].hex(), [raw[at : at + 1].hex(), end - at]]
            start = end
        at = end
    return [*parts, raw[start:].hex()] if parts else raw.hex()


def read_bytes(told: str | list[Any]) -> bytes:
    """The bytes of a vector."""
    parts = [told] if isinstance(told, str) else told
    return b"".join(
        bytes.fromhex(part) if isinstance(part, str) else bytes.fromhex(part[0]) * part[1] for part in parts
    )


def render(vectors: Sequence[Vector]) -> str:
    """The text of a file."""
    names = [vector["name"] for vector in vectors]
    assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1]
    return "[\n" + ",\n".join(json.dumps(vector) for vector in vectors) + "\n]\n"


def load(name: str) -> list[Vector]:
    """The vectors of one file."""
    vectors: list[Vector] = json.loads((HERE / name).read_text())
    return vectors


def _plain(shape: MapOf[Any], high: int) -> Callable[[bytes], Any]:
    return lambda raw: shape.decode(raw, high)


def _read_evidence(raw: bytes) -> Any:
    outer = evidence.read_outer(raw)
    if outer.alg == registry.ALG_MP_ES256:
        evidence.read_mpmr(outer)
    elif outer.alg == registry.ALG_TPM_QUOTE_ES256:
        evidence.read_quote(outer)
    elif outer.alg == registry.ALG_OPTEE_PS256:
        evidence.read_optee(outer)
    elif outer.alg == registry.ALG_ES256:
        evidence.check_bare(outer)
    return evidence.read_inner(outer.payload)


def _signed(typ: str, shape: MapOf[Any], high: int) -> Callable[[bytes], Any]:
    return lambda raw: shape.decode(read_signed(raw, typ).payload, high)


def _simple(typ: str, shape: MapOf[Any], high: int, *allowed: int) -> Callable[[bytes], Any]:
    """An envelope with nothing in its headers but alg, typ and what is named."""
    return lambda raw: shape.decode(
        read_sign1(raw, typ=typ, algs=ES256_ONLY, protected_allowed=frozenset(allowed)).payload, high
    )


READERS: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "item": decode,
    "key": lambda raw: read_key(decode(raw)),
    "hello": _plain(HELLO, limits.HELLO_MAX_BYTES),
    "challenge": _plain(CHALLENGE, limits.CHALLENGE_MAX_BYTES),
    "proof": _plain(PROOF, limits.PROOF_MAX_BYTES),
    "evidence": _read_evidence,
    "eat": evidence.read_inner,
    "eat-claims": _plain(CLAIMS, evidence.CLAIMS_MAX_BYTES),
    "grant": _signed(labels.TYP_GRANT, GRANT, limits.GRANT_MAX_BYTES),
    "contents": _plain(CONTENTS, limits.GRANT_MAX_BYTES),
    "receipt": _simple(labels.TYP_RECEIPT, RECEIPT, limits.RECEIPT_MAX_BYTES),
    "closed": _plain(CLOSED, limits.CLOSED_MAX_BYTES),
    "refusal": _plain(REFUSAL, limits.REFUSAL_MAX_BYTES),
    "issuer-certificate": _simple(labels.TYP_ISSUER_CERTIFICATE, ISSUER_CERTIFICATE, CERTIFICATE_MAX_BYTES),
    "trust-update": _simple(labels.TYP_TRUST_UPDATE, TRUST_UPDATE, CERTIFICATE_MAX_BYTES, registry.HEADER_KID),
    "head": _signed(labels.TYP_HEAD, HEAD, CERTIFICATE_MAX_BYTES),
    "entry": _plain(ENTRY, limits.CLOSED_MAX_BYTES),
}
"""By the name of a rule in docs/wire.cddl: what reads that message in mpwire."""

PAYLOADS: Final[dict[str, tuple[str, MapOf[Any], int, bool]]] = {
    "hello-with-everything": ("hello", HELLO, limits.HELLO_MAX_BYTES, False),
    "challenge-tpm": ("challenge", CHALLENGE, limits.CHALLENGE_MAX_BYTES, False),
    "proof-tpm": ("proof", PROOF, limits.PROOF_MAX_BYTES, False),
    "eat-tpm": ("eat", CLAIMS, evidence.CLAIMS_MAX_BYTES, True),
    "grant": ("grant", GRANT, limits.GRANT_MAX_BYTES, True),
    "contents-with-everything": ("contents", CONTENTS, limits.GRANT_MAX_BYTES, False),
    "receipt-with-everything": ("receipt", RECEIPT, limits.RECEIPT_MAX_BYTES, True),
    "closed": ("closed", CLOSED, limits.CLOSED_MAX_BYTES, False),
    "refusal-with-wait": ("refusal", REFUSAL, limits.REFUSAL_MAX_BYTES, False),
    "issuer-certificate-delegated": ("issuer-certificate", ISSUER_CERTIFICATE, CERTIFICATE_MAX_BYTES, True),
    "trust-update": ("trust-update", TRUST_UPDATE, CERTIFICATE_MAX_BYTES, True),
    "head": ("head", HEAD, CERTIFICATE_MAX_BYTES, True),
    "entry": ("entry", ENTRY, limits.CLOSED_MAX_BYTES, False),
}
"""By the golden vector that is broken: message, shape of its map, most bytes of that map, enveloped or not."""
