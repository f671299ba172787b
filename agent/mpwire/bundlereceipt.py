"""Receipts of bundles: signed by the device key, and under an HMAC that only a holder of the bundle's key can make
(docs/wire.md 11.6). No signature of the MP engine stands in one: it would give the MP public key away.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, NamedTuple

from mpwire import labels, registry
from mpwire.codec import decode, encode
from mpwire.cose import read_sign1, write_sign1
from mpwire.errors import Malformed, Unauthentic
from mpwire.limits import RECEIPT_MAX_BYTES
from mpwire.messages.bundle import BUNDLE_RECEIPT, RECEIPT_ROW, BundleReceipt
from mpwire.secret import Secret
from mpwire.trust import ES256_ONLY, verify_named

ROW_MAX_BYTES: Final = RECEIPT_MAX_BYTES + 64
LENGTH_BYTES: Final = 4
"""Before each receipt of a file, big-endian."""
SUFFIX: Final = ".receipts"
"""How the name of a receipts file ends: by it a folder is searched for them. Source: docs/wire.md 11.6."""


class HeardReceipt(NamedTuple):
    """A receipt whose own signature holds; that a board of ours made it, only `check_mac` shows."""

    receipt: BundleReceipt
    signed: bytes
    mac: bytes


def write_receipt(receipt: BundleReceipt, sign: Callable[[bytes], bytes], key: Secret) -> bytes:
    """One receipt of a receipts file, with its length before it: files may be joined end to end."""
    headers = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_BUNDLE_RECEIPT}
    signed = write_sign1(headers, BUNDLE_RECEIPT.encode(receipt), labels.AAD_BUNDLE_RECEIPT, sign)
    row = encode([signed, _make_mac(key, signed)])
    return len(row).to_bytes(LENGTH_BYTES, "big") + row


def split_receipts(file: BinaryIO) -> Iterator[bytes]:
    """The rows of a receipts file. Raises Malformed("receipts-file: ...") at the first that is not whole."""
    while head := file.read(LENGTH_BYTES):
        length = int.from_bytes(head, "big")
        if len(head) != LENGTH_BYTES or not 0 < length <= ROW_MAX_BYTES:
            raise Malformed("receipts-file: not a length of a receipt")
        row = file.read(length)
        if len(row) != length:
            raise Malformed("receipts-file: it ends inside a receipt")
        yield row


def read_receipt(row: bytes) -> HeardReceipt:
    """Shape, and the signature by the device key that it names. Raises Malformed, Unauthentic("receipt-signature")."""
    if len(row) > ROW_MAX_BYTES:
        raise Malformed("bundle-receipt: too long")
    signed, mac = RECEIPT_ROW.read(decode(row), "bundle-receipt")
    envelope = read_sign1(signed, typ=labels.TYP_BUNDLE_RECEIPT, algs=ES256_ONLY)
    receipt = BUNDLE_RECEIPT.decode(envelope.payload, RECEIPT_MAX_BYTES)
    verify_named(envelope, receipt.key, labels.AAD_BUNDLE_RECEIPT, "receipt-signature")
    return HeardReceipt(receipt, signed, mac)


def check_mac(heard: HeardReceipt, key: Secret) -> None:
    """Raises Unauthentic("receipt-mac"): not made by a holder of the key that the bundle is under."""
    if not hmac.compare_digest(heard.mac, _make_mac(key, heard.signed)):
        raise Unauthentic("receipt-mac")


def _make_mac(key: Secret, signed: bytes) -> bytes:
    return hmac.digest(key.reveal(), signed, hashlib.sha256)
