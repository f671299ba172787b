"""A bundle as a file: frame, signed manifest, ciphertexts (docs/wire.md 11.1). Nothing is decrypted here.

The order of trust: `read_bundle` looks at shape alone, `verify_issuer` or `verify_authority` at who signed, and
`check_payload` at every byte behind the manifest. Only then is there anything to decrypt.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Final, NamedTuple

from mpwire import labels, registry
from mpwire.cose import Sign1, read_sign1, thumbprint, write_sign1
from mpwire.errors import Malformed, Unauthentic
from mpwire.limits import BUNDLE_MANIFEST_MAX_BYTES, SLOT_VALUE_MAX_BYTES
from mpwire.messages.bundle import BUNDLE, Bundle, Component
from mpwire.stream import count_ciphertext
from mpwire.trust import ES256_ONLY, RoleKey, Trust, verify_named, verify_signed

MAGIC: Final = b"mpbundle"
HEAD_BYTES: Final = len(MAGIC) + 4
"""Magic, and the length of the envelope: 4 bytes, big-endian."""
READ_BYTES: Final = 1 << 20
POLICY: Final = "policy"
"""Kind and name of the component that holds the rights of update authorities."""
_ALLOWED: Final = frozenset({registry.HEADER_ISSUER_CHAIN, registry.HEADER_TRUST_UPDATE, registry.HEADER_KID})


class Place(NamedTuple):
    """Where a component's ciphertext lies in the file."""

    offset: int
    length: int


class Frame(NamedTuple):
    """A bundle of the right shape; nothing in it is authentic yet."""

    sign1: Sign1
    bundle: Bundle
    digest: bytes
    """SHA-256 of the envelope: the bundle's name in receipts."""
    places: tuple[Place, ...]
    end: int
    """Bytes of a whole file."""


def read_bundle(file: BinaryIO) -> Frame:
    """The frame and the manifest, from the file's start. Raises Malformed; the payload is not looked at."""
    head = file.read(HEAD_BYTES)
    length = int.from_bytes(head[len(MAGIC) :], "big")
    if len(head) != HEAD_BYTES or not head.startswith(MAGIC):
        raise Malformed("bundle-frame: not a bundle")
    if not 0 < length <= BUNDLE_MANIFEST_MAX_BYTES:
        raise Malformed("bundle-frame: the manifest is longer than a manifest can be")
    envelope = file.read(length)
    if len(envelope) != length:
        raise Malformed("bundle-frame: the file ends inside the manifest")
    sign1 = read_sign1(envelope, typ=labels.TYP_BUNDLE, algs=ES256_ONLY, protected_allowed=_ALLOWED)
    bundle = BUNDLE.decode(sign1.payload, BUNDLE_MANIFEST_MAX_BYTES)
    check_manifest(bundle)
    places = tuple(_lay(bundle.components, HEAD_BYTES + length))
    end = places[-1].offset + places[-1].length
    return Frame(sign1, bundle, hashlib.sha256(envelope).digest(), places, end)


def check_manifest(bundle: Bundle) -> None:
    """What a shape cannot see. Raises Malformed("bundle-manifest: ...")."""
    names = [(one.name, one.uid) for one in bundle.components]
    shared = {name for name, uid in names if uid is None}
    if len(set(names)) != len(names) or any(name in shared for name, uid in names if uid is not None):
        raise Malformed("bundle-manifest: a board would find a component twice")
    if len(bundle.digests) != len(bundle.components):
        raise Malformed("bundle-manifest: not one digest for each component")
    if bundle.minimum > bundle.version:
        raise Malformed("bundle-manifest: it would refuse itself by its minimum")
    if any(one.kind != "file" and one.size > SLOT_VALUE_MAX_BYTES for one in bundle.components):
        raise Malformed(f"bundle-manifest: a value above {SLOT_VALUE_MAX_BYTES} bytes that is no file")
    if any((one.kind == POLICY) != (one.name == POLICY) for one in bundle.components):
        raise Malformed("bundle-manifest: the rights of authorities stand in the component `policy` alone")
    uids = bundle.conditions.uids
    if uids is not None and any(one.uid is not None and one.uid not in uids for one in bundle.components):
        raise Malformed("bundle-manifest: a component for a board that the bundle is not for")


def verify_issuer(frame: Frame, trust: Trust) -> RoleKey:
    """The issuer's word: chain of role `bundle`, signature, time and realm (docs/wire.md 11.4).

    Raises Unauthentic by the name of the check that failed.
    """
    if registry.HEADER_KID in frame.sign1.headers:
        raise Unauthentic("bundle-signer")
    bundle = frame.bundle
    key = verify_signed(frame.sign1, "bundle", bundle.product, labels.AAD_BUNDLE, trust)
    if not key.covers(bundle.made_at):
        raise Unauthentic("bundle-time")
    if bundle.realm != trust.realm:
        raise Unauthentic("bundle-realm")
    return key


def verify_authority(frame: Frame, point: bytes) -> None:
    """The word of the update authority whose key a board holds. Raises Unauthentic."""
    headers = frame.sign1.headers
    if headers.keys() & {registry.HEADER_ISSUER_CHAIN, registry.HEADER_TRUST_UPDATE}:
        raise Unauthentic("bundle-signer")
    if headers.get(registry.HEADER_KID) != thumbprint(point):
        raise Unauthentic("bundle-authority-key")
    verify_named(frame.sign1, point, labels.AAD_BUNDLE, "bundle-signature")


def check_payload(file: BinaryIO, frame: Frame, progress: Callable[[int, int], None]) -> None:
    """Every byte behind the manifest is the one signed for, and there is nothing more. Raises Unauthentic.

    `progress` hears bytes done and bytes in all. Reads READ_BYTES at a time.
    """
    file.seek(frame.places[0].offset)
    for place, digest in zip(frame.places, frame.bundle.digests, strict=True):
        running, left = hashlib.sha256(), place.length
        while left:
            block = file.read(min(left, READ_BYTES))
            if not block:
                raise Unauthentic("bundle-payload")
            running.update(block)
            left -= len(block)
            progress(place.offset + place.length - left, frame.end)
        if running.digest() != digest:
            raise Unauthentic("bundle-payload")
    if file.read(1):
        raise Unauthentic("bundle-payload")


def write_envelope(bundle: Bundle, headers: dict[int, object], sign: Callable[[bytes], bytes]) -> bytes:
    """Frame and signed manifest: what the ciphertexts are written behind. Raises Malformed for what no board takes.

    `headers` are those beside alg and typ: the issuer chain, or the thumbprint of an update authority.
    """
    check_manifest(bundle)
    protected = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_BUNDLE, **headers}
    envelope = write_sign1(protected, BUNDLE.encode(bundle), labels.AAD_BUNDLE, sign)
    if len(envelope) > BUNDLE_MANIFEST_MAX_BYTES:
        raise Malformed(f"bundle-frame: a manifest above {BUNDLE_MANIFEST_MAX_BYTES} bytes; name fewer boards")
    return MAGIC + len(envelope).to_bytes(4, "big") + envelope


def find_components(bundle: Bundle, uid: bytes | None) -> tuple[tuple[int, Component], ...]:
    """What is for this board, each with its place in the manifest."""
    return tuple((at, one) for at, one in enumerate(bundle.components) if one.uid in (None, uid))


def _lay(components: Sequence[Component], start: int) -> Iterator[Place]:
    for one in components:
        length = count_ciphertext(one.size)
        yield Place(start, length)
        start += length
