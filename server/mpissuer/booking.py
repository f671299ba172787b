"""What the books decide, inside one transaction (docs/wire.md 4.3 steps 3.40 to 3.48, and 4.5).

Promises P2 to P4: nothing is counted twice, nothing leaves before it is stored, a newcomer never displaces a unit.
"""

import hashlib
from collections.abc import Mapping

from mpissuer.errors import Again, NotNow, Refused
from mpissuer.grant import allocate, unwrap, wrap, write_grant
from mpissuer.issuer import Issuer
from mpissuer.orders import GrantOrder, ReceiptOrder
from mpissuer.ports import Books, Job, Unit
from mpwire import p256
from mpwire.codec import encode
from mpwire.cose import thumbprint
from mpwire.messages.issuer import ENTRY, Entry
from mpwire.messages.plain import CLOSED, Closed
from mpwire.secret import Secret

DEVICE_KEY = "device-key"
"""Hardware-id kind under which device keys are remembered: one key never serves two boards."""


def book_grant(order: GrantOrder, books: Books, issuer: Issuer) -> bytes:
    """The answer to a verified Proof: a Grant new or stored, or the unit's Closed. Raises Refused."""
    said = books.find_said(order.proof_digest, order.nonce)
    if said is not None and said.proof_digest == order.proof_digest:  # 3.40
        return said.answer
    if said is not None:  # 3.41
        raise Refused("nonce-used", "another proof already answered this challenge", alarm=True)
    ids = {**order.hardware_ids, DEVICE_KEY: thumbprint(order.sign_key)}
    unit = books.unit(order.ueid)
    check_not_clone(order, ids, unit, books)  # 3.42
    if unit is None:
        unit, values = _admit(order, ids, books, issuer)
    elif unit.closed is not None:  # 3.43
        return unit.closed
    elif unit.state == "scrapped":  # 3.44
        raise Refused("scrapped", "this unit was scrapped", again=Again.FINAL)
    else:
        values = _recall_values(order, unit, books, issuer)
        books.add_hardware_ids(unit.ueid, {kind: ids[kind] for kind in ids.keys() - unit.hardware_ids.keys()})
    now = issuer.clock.now()
    row = write_grant(order, unit.job, values, issuer.authority, now, Secret(issuer.random(32)))  # 3.48
    books.add_grant(row, order.nonce, order.proof_digest)
    books.append(ENTRY.encode(Entry("grant", now, unit.job, row.digest, order.ueid)))
    return row.answer


def check_not_clone(order: GrantOrder, ids: Mapping[str, bytes], unit: Unit | None, books: Books) -> None:
    """3.42: no id this board shows belongs to another unit, and this unit shows the key and ids it first came with.

    An id of a kind it never showed before (a newer image reads more) is remembered from then on.

    The newcomer is refused and the alarm kept; the good unit is untouched (promise P3).
    """
    for kind, owner in books.owners(ids).items():
        if owner != order.ueid:
            raise Refused("clone", f"{kind} {ids[kind].hex()[:24]} belongs to unit {owner.hex()[:16]}", alarm=True)
    if unit is not None and unit.sign_key != order.sign_key:
        raise Refused("clone", f"unit {order.ueid.hex()[:16]} came back with another device key", alarm=True)
    for kind, known in unit.hardware_ids.items() if unit is not None else ():
        if ids.get(kind, known) != known:
            raise Refused("clone", f"unit {order.ueid.hex()[:16]} came back with another {kind}", alarm=True)


def _admit(
    order: GrantOrder, ids: Mapping[str, bytes], books: Books, issuer: Issuer
) -> tuple[Unit, Mapping[str, Secret]]:
    """3.45 to 3.47: count a new board under the open job and give it its values, once."""
    job = _open_job(order, books)
    unit = Unit(
        ueid=order.ueid,
        product=order.product.name,
        job=job.name,
        state="granted",
        sign_key=order.sign_key,
        attester=order.attester,
        grade=order.grade,
        hardware_ids=ids,
    )
    values = allocate(order, issuer.authority, issuer.random)
    wrapped = wrap(
        values, order, job.name, issuer.authority
    )  # a key that is gone is found out before anything is written
    books.add_unit(unit)
    books.add_values(order.ueid, wrapped)
    if job.granted + 1 >= job.quota:
        books.set_job_state(job.name, "exhausted")
    return unit, values


def _recall_values(order: GrantOrder, unit: Unit, books: Books, issuer: Issuer) -> Mapping[str, Secret]:
    """What this board was allocated; a product changed since then would need other values (promise P3: the same)."""
    stored = books.values(unit.ueid)
    wanted = {slot.name: slot.version for slot in order.product.slots if slot.kind != "local"}
    if {name: one.version for name, one in stored.items()} != wanted:
        raise Refused("allocation", "the product's slots changed after this board was given its values: rework it")
    values = unwrap(stored, unit.ueid, unit.job, issuer.authority)
    for slot, point in order.certificate_keys.items():
        if p256.write_spki(point) not in values[slot].reveal():
            raise Refused("allocation", f"slot {slot} was certified for another key of this board: rework it")
    return values


def _open_job(order: GrantOrder, books: Books) -> Job:
    """The job as it stands inside this transaction."""
    job = books.open_job(order.product.name)
    if job is None:
        raise Refused("job", f"no job is open for {order.product.name}")
    if job.granted >= job.quota:
        raise Refused("quota", f"job {job.name} has granted all {job.quota} boards")
    if job.state != "open":
        raise NotNow(f"job {job.name} is {job.state}")
    return job


def book_receipt(order: ReceiptOrder, books: Books, issuer: Issuer) -> bytes | None:
    """5.8. None: appended just now, the ledger makes the Closed; else the stored Closed of this very Receipt."""
    unit = books.unit(order.row.ueid)
    if unit is None or unit.sign_key != order.row.sign_key:
        raise Refused("receipt-unit", "the unit of this grant is not there, or was reworked since")
    if order.is_final and unit.closed is None:
        raise Refused("receipt-unfinished", "a production image reports, and its board never said what it sealed")
    closed = unit.final if order.is_final else unit.closed
    if closed is not None:
        if CLOSED.decode(closed, len(closed)).receipt_digest != order.digest:
            raise Refused("receipt-other", "this unit was closed with another receipt")
        return closed
    books.append(ENTRY.encode(Entry("receipt", issuer.clock.now(), unit.job, order.digest, unit.ueid)))
    return None


def make_closed(order: ReceiptOrder, index: int, path: list[bytes], entry: bytes, head: bytes) -> bytes:
    """6. The Closed for a receipt whose entry stands at `index` of the tree under the signed `head`."""
    return CLOSED.encode(Closed(order.digest, index, tuple(path), entry, head))


def digest_of_object(*parts: object) -> bytes:
    """SHA-256 of CBOR[parts]: how administrative acts (product, job, key) stand in the ledger."""
    return hashlib.sha256(encode(list(parts))).digest()
