"""Deciding whether a Grant or a Closed is for us and whole (docs/wire.md 4.4, 4.6). Touches nothing."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mpagent.image import Image, WantedSlot
from mpwire import labels, merkle, p256, registry
from mpwire.codec import decode
from mpwire.cose import Sign1
from mpwire.errors import Malformed, PeerBroke
from mpwire.hpke import Ecdh, open_base
from mpwire.limits import CLOSED_MAX_BYTES, GRANT_MAX_BYTES
from mpwire.messages.grant import CONTENTS, GRANT, Contents, Grant, SlotGrant, make_check_value, make_grant_info
from mpwire.messages.issuer import ENTRY
from mpwire.messages.plain import CLOSED, Closed
from mpwire.shape import ListOf, Octets
from mpwire.trust import Trust, apply_trust_update, read_head, read_signed, verify_signed

CHAIN = ListOf(Octets(1, 4_096), 4, 1)
"""A certificate slot's value: CBOR array of DER certificates, leaf first, without the root."""


class Pending(NamedTuple):
    """The exchange this device is in: what a Grant must name."""

    hello: bytes
    nonce: bytes
    proof: bytes
    evidence: bytes
    ueid: bytes


class Accepted(NamedTuple):
    """A Grant that is ours: its head, its opened contents, and what is believed from now on."""

    grant: Grant
    contents: Contents
    trust: Trust
    update: bytes | None
    """The TrustUpdate it brought, verified."""
    digest: bytes


def accept_grant(raw: bytes, pending: Pending, image: Image, trust: Trust, kem: Ecdh) -> Accepted:
    """4.1 to 4.7 in the order of docs/wire.md. The first failure raises PeerBroke; nothing has changed then."""
    if len(raw) > GRANT_MAX_BYTES:
        raise Malformed("grant-size")
    envelope = read_signed(raw, labels.TYP_GRANT)  # 4.1
    update = _find_update(envelope)  # 4.2
    trust = trust if update is None else apply_trust_update(update, trust)
    signer = verify_signed(envelope, "grant", image.product, labels.AAD_GRANT, trust)  # 4.3, 4.4
    grant = GRANT.decode(envelope.payload, GRANT_MAX_BYTES)
    if not signer.covers(grant.issued_at):
        raise PeerBroke("grant-time: the grant speaks of a time outside its key's life")
    _check_answers(grant, pending)  # 4.5
    _check_subject(grant, pending, image)  # 4.6
    info = make_grant_info(
        grant, hashlib.sha256(pending.evidence).digest(), hashlib.sha256(p256.write_spki(signer.point)).digest()
    )
    opened = open_base(kem, grant.encapsulated, info, b"", grant.ciphertext)  # 4.7
    contents = CONTENTS.decode(opened.reveal(), GRANT_MAX_BYTES)
    return Accepted(grant, contents, trust, update, hashlib.sha256(raw).digest())


def _find_update(envelope: Sign1) -> bytes | None:
    update = envelope.headers.get(registry.HEADER_TRUST_UPDATE)
    if update is not None and not isinstance(update, bytes):
        raise Malformed("trust-update")
    return update


def _check_answers(grant: Grant, pending: Pending) -> None:
    if grant.hello_hash != hashlib.sha256(pending.hello).digest():
        raise PeerBroke("grant-hello: the grant answers another hello")
    if grant.nonce != pending.nonce:
        raise PeerBroke("grant-nonce: the grant answers another challenge")


def _check_subject(grant: Grant, pending: Pending, image: Image) -> None:
    if grant.realm != image.realm:
        raise PeerBroke("grant-realm: the grant is of another realm")
    if grant.product != image.product:
        raise PeerBroke("grant-product: the grant is for another product")
    if grant.ueid != pending.ueid:
        raise PeerBroke("grant-ueid: the grant is not for this device")


def check_slots(
    contents: Contents, wanted: Sequence[WantedSlot], stored: Mapping[str, int], points: Mapping[str, bytes]
) -> None:
    """4.8, 4.9: every wanted slot there, none extra, as the image says, none older, each value whole.

    `stored`: versions the vault holds. `points`: the public key asked to be certified, by certificate slot.
    """
    granted = {slot.name: slot for slot in contents.slots}
    if len(granted) != len(contents.slots) or granted.keys() != {slot.name for slot in wanted}:
        raise PeerBroke("grant-slots: the grant does not hold exactly the slots this image asks for")
    for want in wanted:
        slot = granted[want.name]
        if (slot.kind, slot.destination) != (want.kind, want.destination):
            raise PeerBroke(f"grant-slot-kind: slot {want.name} is not what this image asks for")
        if slot.version < stored.get(want.name, 0):
            raise PeerBroke(f"grant-slot-version: slot {want.name} is older than the one stored")
        _check_value(slot, contents)
        if want.kind == "certificate":
            _check_certificate(slot, points[want.name])


def _check_value(slot: SlotGrant, contents: Contents) -> None:
    """The value is there exactly when the issuer makes it, and its check value is right."""
    if slot.kind == "local":
        if slot.value is not None or slot.check is not None or slot.content is not None:
            raise PeerBroke(f"grant-slot-value: slot {slot.name} is made here, yet a value was sent")
        return
    if slot.value is None or slot.check is None or slot.content is not None:
        raise PeerBroke(f"grant-slot-value: slot {slot.name} has no inline value")
    right = make_check_value(contents.check_key, slot.name, slot.version, slot.value)
    if not hmac.compare_digest(right, slot.check):
        raise PeerBroke(f"grant-check-value: the value of slot {slot.name} is not the one that was sent")


def _check_certificate(slot: SlotGrant, point: bytes) -> None:
    """The leaf certifies the key we asked for: its SubjectPublicKeyInfo stands in it once, byte for byte."""
    assert slot.value is not None  # _check_value looked
    chain = CHAIN.read(decode(slot.value.reveal()), f"slot {slot.name}")
    if chain[0].count(p256.write_spki(point)) != 1:
        raise PeerBroke(f"grant-certificate: the certificate of slot {slot.name} is for another key")


def accept_closed(raw: bytes, ueid: bytes, receipt: bytes | None, trust: Trust) -> tuple[Closed, int]:
    """6.1 to 6.5. (Closed, issuer's time). `receipt` is None where the Receipt was lost with the journal.

    Raises PeerBroke, Malformed or Unauthentic; nothing has changed then.
    """
    closed = CLOSED.decode(raw, CLOSED_MAX_BYTES)
    if receipt is not None and closed.receipt_digest != hashlib.sha256(receipt).digest():
        raise PeerBroke("closed-receipt: the answer closes another receipt")
    entry = ENTRY.decode(closed.entry, CLOSED_MAX_BYTES)
    if (entry.kind, entry.ueid, entry.digest) != ("receipt", ueid, closed.receipt_digest):
        raise PeerBroke("closed-entry: the ledger entry is not about this device's receipt")
    head = read_head(closed.head, trust)
    merkle.verify_inclusion(merkle.leaf_hash(closed.entry), closed.leaf_index, head.size, closed.path, head.root)
    return closed, head.time
