"""Making what one board gets (docs/wire.md 4.4): values allocated once, encrypted to its attested key, signed."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

from mpissuer.orders import GrantOrder
from mpissuer.policy import SlotPolicy
from mpissuer.ports import Authority, GrantRow, SlotCheck, StoredValue
from mpwire import hpke, labels, p256
from mpwire.codec import encode
from mpwire.messages.grant import CONTENTS, GRANT, Contents, Grant, SlotGrant, make_check_value, make_grant_info
from mpwire.secret import Secret
from mpwire.trust import write_signed

NEVER_ENDS: Final = 253402300799
"""9999-12-31T23:59:59Z: a device certificate without an end (IEEE 802.1AR section 8.7)."""


def allocate(order: GrantOrder, authority: Authority, random: Callable[[int], bytes]) -> dict[str, Secret]:
    """3.47. Every value the issuer makes for this board, by slot. Called once a board."""
    values = {slot.name: _make_value(slot, order, authority, random) for slot in order.product.slots}
    return {name: value for name, value in values.items() if value is not None}


def _make_value(
    slot: SlotPolicy, order: GrantOrder, authority: Authority, random: Callable[[int], bytes]
) -> Secret | None:
    if slot.kind == "random":
        return Secret(random(slot.length))
    if slot.kind == "static":
        return slot.value
    if slot.kind == "certificate":
        point = order.certificate_keys[slot.name]
        return Secret(encode(list(authority.certify(point, slot.name, order.ueid, NEVER_ENDS))))
    return None


def wrap(values: Mapping[str, Secret], order: GrantOrder, job: str, authority: Authority) -> list[StoredValue]:
    """The allocation as it is kept: each value under the job's key."""
    return [
        StoredValue(
            slot.name,
            slot.version,
            authority.wrap(job, values[slot.name], _at_rest(order.ueid, slot.name, slot.version)),
        )
        for slot in order.product.slots
        if slot.name in values
    ]


def unwrap(stored: Mapping[str, StoredValue], ueid: bytes, job: str, authority: Authority) -> dict[str, Secret]:
    """An allocation kept before. Raises Refused("job-ended") once its key is destroyed."""
    return {name: authority.unwrap(job, one.wrapped, _at_rest(ueid, name, one.version)) for name, one in stored.items()}


def _at_rest(ueid: bytes, slot: str, version: int) -> bytes:
    """What a wrapped value is bound to: it opens for this board, slot and version only."""
    return encode([ueid, slot, version])


def write_grant(
    order: GrantOrder, job: str, values: Mapping[str, Secret], authority: Authority, now: int, check_key: Secret
) -> GrantRow:
    """3.48. The Grant over an allocation; `check_key` is fresh, 32 bytes, for this Grant alone."""
    slots = tuple([_grant_slot(slot, values, check_key) for slot in order.product.slots])
    product = order.product
    contents = Contents(slots=slots, check_key=check_key, policy_digest=product.digest, manifest=product.image)
    answer = _seal(order, job, Secret(CONTENTS.encode(contents)), authority, now)
    return GrantRow(
        digest=hashlib.sha256(answer).digest(),
        ueid=order.ueid,
        product=order.product.name,
        job=job,
        sign_key=order.sign_key,
        checks={slot.name: SlotCheck(slot.version, slot.check, slot.escrow is not None) for slot in slots},
        answer=answer,
    )


def _grant_slot(slot: SlotPolicy, values: Mapping[str, Secret], check_key: Secret) -> SlotGrant:
    if slot.kind == "local":
        return SlotGrant(slot.name, slot.kind, slot.destination, slot.version, escrow=slot.escrow)
    value = values[slot.name]
    check = make_check_value(check_key, slot.name, slot.version, value)
    return SlotGrant(slot.name, slot.kind, slot.destination, slot.version, value, check)


def _seal(order: GrantOrder, job: str, contents: Secret, authority: Authority, now: int) -> bytes:
    """HPKE to the attested KEM key, bound to the exchange, then signed by the grant key."""
    issuer_hash = hashlib.sha256(p256.write_spki(authority.public_key("grant"))).digest()
    open_head = Grant(
        hello_hash=order.hello_hash,
        nonce=order.nonce,
        ueid=order.ueid,
        product=order.product.name,
        job=job,
        realm=authority.realm,
        issued_at=now,
        encapsulated=b"",
        ciphertext=b"",
    )
    info = make_grant_info(open_head, order.evidence_hash, issuer_hash)
    encapsulated, ciphertext = hpke.seal_base(order.kem_key, info, b"", contents)
    payload = GRANT.encode(open_head._replace(encapsulated=encapsulated, ciphertext=ciphertext))
    return write_signed(
        payload, labels.TYP_GRANT, labels.AAD_GRANT, authority.chain("grant"), lambda raw: authority.sign("grant", raw)
    )
