"""Receipts of boards without a line, one after another: whose they are, and what is wrong with one by itself.

A conflict keeps nothing out: a receipt whose MAC holds was made by a holder of the bundle's key, and whoever looks at
the ledger shall see it. What nobody can vouch for is told and not kept.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

from mpserver.store.bundles import BundleRow, BundleSlot, find_bundle, find_highest
from mpserver.store.database import Connection
from mpserver.store.receipts import UID, ReceiptRow, name_ids
from mpwire.bundle import POLICY
from mpwire.bundlekeys import Expand, make_receipt_key
from mpwire.bundlereceipt import HeardReceipt, check_mac
from mpwire.messages.bundle import BundleReceipt
from mpwire.secret import Secret

CLOSED: Final = 3
"""Life cycle of a closed part, as in the claims."""
ExpandOf: TypeAlias = Callable[[BundleRow], Expand]
"""HKDF-Expand under the PRK of a bundle's key. Raises MpError where the vault has it no more."""


class Heard(NamedTuple):
    """A receipt to keep."""

    row: ReceiptRow
    job: str
    ids: Mapping[str, bytes]


class Stranger(NamedTuple):
    """A receipt that this ledger cannot place, so that nobody can say whose it is. Not kept."""

    digest: bytes
    ueid: bytes
    bundle: bytes
    said: str


class Reception:
    """Knows the bundles and their receipt keys; each is asked for once."""

    def __init__(self, connection: Connection, expand_of: ExpandOf, rules: Mapping[str, str]) -> None:
        """`rules`: what each product demands of the life cycle, "closed" or "any"."""
        self._connection, self._expand_of, self._rules = connection, expand_of, rules
        self._bundles: dict[bytes, BundleRow | None] = {}
        self._keys: dict[bytes, Secret] = {}

    def hear(self, heard: HeardReceipt) -> Heard | Stranger:
        """Raises Unauthentic("receipt-mac"), and what `expand_of` raises."""
        receipt, digest = heard.receipt, hashlib.sha256(heard.signed).digest()
        bundle = self._find(receipt.bundle_digest)
        if bundle is None:
            return Stranger(digest, receipt.ueid, receipt.bundle_digest, self._say_unknown(receipt))
        check_mac(heard, self._find_key(bundle))
        faults = " ".join(find_faults(receipt, bundle, self._rules.get(bundle.product, "closed")))
        row = ReceiptRow(digest, bundle.digest, receipt.ueid, receipt.key, heard.signed, heard.mac, faults)
        return Heard(row, bundle.job, name_ids(receipt))

    def _find(self, digest: bytes) -> BundleRow | None:
        if digest not in self._bundles:
            self._bundles[digest] = find_bundle(self._connection, digest)
        return self._bundles[digest]

    def _find_key(self, bundle: BundleRow) -> Secret:
        """By the bundle's own product and job: a receipt that tells others of them has another MAC."""
        if bundle.digest not in self._keys:
            self._keys[bundle.digest] = make_receipt_key(self._expand_of(bundle), bundle.product, bundle.job)
        return self._keys[bundle.digest]

    def _say_unknown(self, receipt: BundleReceipt) -> str:
        highest, _ = find_highest(self._connection, receipt.product, receipt.authority)
        told = f"version {receipt.version} of {receipt.product}, authority {receipt.authority}"
        if receipt.version > highest > 0:
            return f"it tells of {told}, and {highest} is the newest here: no bundle of ours, or an older ledger"
        return f"it tells of {told}: a bundle of another server or realm, one that only says so, or an older ledger"


def find_faults(receipt: BundleReceipt, bundle: BundleRow, life_cycle: str) -> Iterator[str]:
    """Names of docs/operate.md of what is wrong between a receipt and what was printed; none for a good one."""
    said = (receipt.product, receipt.job, receipt.authority, receipt.version)
    if said != (bundle.product, bundle.job, bundle.authority, bundle.version):
        yield "bundle"
    uid = receipt.hardware_ids.get(UID)
    if bundle.uids is not None and uid not in bundle.uids:
        yield "uid"
    yield from _find_slot_faults(receipt, bundle, uid)
    if life_cycle == "closed" and (receipt.closed_proof == "none" or receipt.life_cycle != CLOSED):
        yield "life-cycle"


def _find_slot_faults(receipt: BundleReceipt, bundle: BundleRow, uid: bytes | None) -> Iterator[str]:
    """A slot that was filled before keeps a value that this bundle's check says nothing of."""
    held = {slot.name: slot for slot in receipt.slots}
    printed = [one for one in bundle.slots if one.uid in (None, uid) and one.name != POLICY]
    taken = [one for one in printed if not _is_skipped(one, receipt)]
    if any(one.name not in held for one in printed) or any(
        one.name in held and held[one.name].version != one.version for one in taken
    ):
        yield "slots"
    if any(one.name in held and held[one.name].check != one.check for one in taken):
        yield "check-value"


def _is_skipped(one: BundleSlot, receipt: BundleReceipt) -> bool:
    return one.action == "fill" and one.name in receipt.skipped
