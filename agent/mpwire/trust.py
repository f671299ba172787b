"""Which issuer keys count: certificates under a pinned root, epochs, trust updates, tree heads (docs/wire.md 5).

Pure: roots, epoch and time come as arguments, and nothing is remembered here.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from mpwire import labels, limits, p256, registry
from mpwire.codec import encode
from mpwire.cose import Sign1, read_sign1, sign_protected, thumbprint, verify_es256
from mpwire.errors import Malformed, Unauthentic
from mpwire.messages.issuer import (
    HEAD,
    ISSUER_CERTIFICATE,
    ISSUER_CHAIN,
    TRUST_UPDATE,
    Head,
    IssuerCertificate,
)

ES256_ONLY: Final = frozenset({registry.ALG_ES256})
CERTIFICATE_MAX_BYTES: Final = 2_048
PROTECTED_KEPT: Final = 16
"""Protected headers kept, at most 8 KiB each: one for each kind of thing that is signed, and those before a renewal."""
ROOTS_MAX: Final = 8
"""Roots a device believes at most: two in the image and a few rotations."""


class Trust(NamedTuple):
    """What a device believes at one moment."""

    realm: str
    roots: tuple[bytes, ...]
    epoch: int
    """Certificates below it are revoked."""
    now: int
    """Time floor, seconds since 1970, UTC: real time is this or later."""


class RoleKey(NamedTuple):
    """A key that a chain certified."""

    point: bytes
    not_before: int
    not_after: int
    """Seconds since 1970, UTC: nothing the key signs can speak of an earlier or a later time."""

    def covers(self, time: int) -> bool:
        """Whether the key may speak of this time."""
        return self.not_before <= time <= self.not_after


def read_signed(raw: bytes, typ: str) -> Sign1:
    """An envelope signed by an issuer role key: its chain stands in the protected header. Raises Malformed."""
    allowed = frozenset({registry.HEADER_ISSUER_CHAIN, registry.HEADER_TRUST_UPDATE})
    return read_sign1(raw, typ=typ, algs=ES256_ONLY, protected_allowed=allowed)


def check_chain(sign1: Sign1, role: str, product: str | None, trust: Trust) -> RoleKey:
    """The key certified for `role` by the chain in the header (docs/wire.md 5.1).

    `product` is None where the object concerns no single product (a tree head).
    Raises Unauthentic naming the rule: issuer-root, issuer-signature, issuer-role, issuer-realm, issuer-product,
    issuer-epoch, issuer-life, issuer-expired, issuer-delegation.
    """
    chain = ISSUER_CHAIN.read(sign1.headers.get(registry.HEADER_ISSUER_CHAIN), "issuer-chain")
    signers = {thumbprint(root): root for root in trust.roots}
    above: IssuerCertificate | None = None
    for raw in reversed(chain):
        envelope, certificate = _read_certificate(raw)
        if certificate.signer not in signers:
            raise Unauthentic("issuer-root")
        verify_named(envelope, signers[certificate.signer], labels.AAD_ISSUER_CERTIFICATE, "issuer-signature")
        _check_certificate(certificate, role, product, trust)
        if above is not None:
            _check_delegation(certificate, above)
        above, signers = certificate, {thumbprint(certificate.key): certificate.key}
    assert above is not None  # ISSUER_CHAIN holds one or two
    return RoleKey(above.key, above.not_before, above.not_after)


def _read_certificate(raw: bytes) -> tuple[Sign1, IssuerCertificate]:
    envelope = read_sign1(raw, typ=labels.TYP_ISSUER_CERTIFICATE, algs=ES256_ONLY)
    return envelope, ISSUER_CERTIFICATE.decode(envelope.payload, CERTIFICATE_MAX_BYTES)


def _check_certificate(certificate: IssuerCertificate, role: str, product: str | None, trust: Trust) -> None:
    if certificate.role != role:
        raise Unauthentic("issuer-role")
    if certificate.realm != trust.realm:
        raise Unauthentic("issuer-realm")
    if certificate.product is not None and certificate.product != product:
        raise Unauthentic("issuer-product")
    if certificate.epoch < trust.epoch:
        raise Unauthentic("issuer-epoch")
    if certificate.not_after - certificate.not_before > limits.ROLE_MAX_S:
        raise Unauthentic("issuer-life")
    if certificate.not_after < trust.now:
        raise Unauthentic("issuer-expired")


def _check_delegation(below: IssuerCertificate, above: IssuerCertificate) -> None:
    lasts = below.not_after - below.not_before
    inside = above.not_before <= below.not_before and below.not_after <= above.not_after
    if lasts > limits.DELEGATED_MAX_S or not inside or below.epoch < above.epoch:
        raise Unauthentic("issuer-delegation")
    if above.product is not None and below.product != above.product:
        raise Unauthentic("issuer-delegation")


def verify_named(envelope: Sign1, point: bytes, aad: bytes, name: str) -> None:
    """`verify_es256` whose refusal begins with the check `name`. Raises Unauthentic."""
    try:
        verify_es256(envelope, point, aad)
    except Unauthentic:
        raise Unauthentic(name) from None


def verify_signed(sign1: Sign1, role: str, product: str | None, aad: bytes, trust: Trust) -> RoleKey:
    """Chain first, then the signature; the key that signed. Raises Unauthentic, "<role>-signature" for the latter."""
    key = check_chain(sign1, role, product, trust)
    verify_named(sign1, key.point, aad, f"{role}-signature")
    return key


def apply_trust_update(raw: bytes, trust: Trust) -> Trust:
    """What is believed after a root-signed update (docs/wire.md 5.2). Raises Malformed, Unauthentic.

    A lower epoch than the present one is refused, an equal one may still bring roots.
    """
    envelope = read_sign1(
        raw, typ=labels.TYP_TRUST_UPDATE, algs=ES256_ONLY, protected_allowed=frozenset({registry.HEADER_KID})
    )
    signer = envelope.headers.get(registry.HEADER_KID)
    root = next((one for one in trust.roots if thumbprint(one) == signer), None)
    if root is None:
        raise Unauthentic("trust-update-root")
    verify_named(envelope, root, labels.AAD_TRUST_UPDATE, "trust-update-signature")
    update = TRUST_UPDATE.decode(envelope.payload, CERTIFICATE_MAX_BYTES)
    if update.realm != trust.realm:
        raise Unauthentic("trust-update-realm")
    if update.epoch < trust.epoch:
        raise Unauthentic("trust-update-epoch")
    for point, signature in update.roots:
        _check_rotated_root(point, signature, update.realm, update.epoch)
    roots = tuple(dict.fromkeys((*trust.roots, *(point for point, _ in update.roots))))
    if len(roots) > ROOTS_MAX:
        raise Unauthentic("trust-update-roots")
    return trust._replace(epoch=update.epoch, roots=roots)


def rotated_root_statement(realm: str, epoch: int, point: bytes) -> bytes:
    """What a new root signs with its own key, so that nobody can name a key he does not hold."""
    return encode([labels.ROTATED_ROOT, realm, epoch, thumbprint(point)])


def _check_rotated_root(point: bytes, signature: bytes, realm: str, epoch: int) -> None:
    try:
        p256.verify(point, rotated_root_statement(realm, epoch, point), signature)
    except Unauthentic:
        raise Unauthentic("trust-update-new-root") from None


def read_head(raw: bytes, trust: Trust) -> Head:
    """A tree head whose signature and chain hold under `trust`. Raises Malformed, Unauthentic."""
    envelope = read_signed(raw, labels.TYP_HEAD)
    if registry.HEADER_TRUST_UPDATE in envelope.headers:
        raise Malformed("cose-header")
    key = verify_signed(envelope, "head", None, labels.AAD_HEAD, trust)
    head = HEAD.decode(envelope.payload, CERTIFICATE_MAX_BYTES)
    if head.realm != trust.realm:
        raise Unauthentic("head-realm")
    if not key.covers(head.time):
        raise Unauthentic("head-time")
    return head


def write_signed(
    payload: bytes,
    typ: str,
    aad: bytes,
    chain: Sequence[bytes],
    sign: Callable[[bytes], bytes],
    trust_update: bytes | None = None,
) -> bytes:
    """A Grant or a head: the payload under the role key whose chain is given."""
    return sign_protected(_protect(typ, tuple(chain), trust_update), payload, aad, sign)


@lru_cache(maxsize=PROTECTED_KEPT)
def _protect(typ: str, chain: tuple[bytes, ...], trust_update: bytes | None) -> bytes:
    """The protected header: the same for all that a key signs."""
    headers: dict[int, object] = {
        registry.HEADER_ALG: registry.ALG_ES256,
        registry.HEADER_TYP: typ,
        registry.HEADER_ISSUER_CHAIN: list(chain),
    }
    if trust_update is not None:
        headers[registry.HEADER_TRUST_UPDATE] = trust_update
    return encode(headers)
