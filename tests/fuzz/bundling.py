"""Doors of bundles and their receipts: what a stranger may put on a medium or into a receipts file."""

import io

from mpwire import bundle, bundlekeys, bundlereceipt, hkdf, stream
from mpwire.inspection import inspect_message
from mpwire.messages.bundle import BUNDLE, BUNDLE_POLICY, UPDATE_KEY
from tests.fuzz.decoders import TRUST, Door, same
from tests.fuzz.mutation import mutate_bytes
from tests.vectors import bundles, world


def feed_file(raw: bytes) -> None:
    """A whole file; what is taken is a bundle that the issuer signed, byte for byte."""
    file = io.BytesIO(raw)
    frame = bundle.read_bundle(file)
    assert frame.end >= frame.places[0].offset > len(bundle.MAGIC)
    bundle.verify_issuer(frame, TRUST)
    bundle.check_payload(file, frame, lambda done, end: None)
    same(raw, MADE.raw)
    _open(raw, frame)


def feed_manifest(raw: bytes) -> None:
    """A manifest under a good signature, as a stolen key could make it: its keys are others, so nothing opens."""
    manifest = BUNDLE.decode(raw, 1 << 20)
    payload = MADE.raw[bundle.read_bundle(io.BytesIO(MADE.raw)).places[0].offset :]
    whole = bundle.write_envelope(manifest, bundles.issuer_headers(), bundles.ROLE.sign) + payload
    file = io.BytesIO(whole)
    frame = bundle.read_bundle(file)
    bundle.verify_issuer(frame, TRUST)
    bundle.check_payload(file, frame, lambda done, end: None)
    _open(whole, frame)
    same(raw, BUNDLE.encode(MADE.bundle))


def _open(raw: bytes, frame: bundle.Frame) -> None:
    kek = bundlekeys.make_kek(frame.bundle, lambda info: hkdf.expand(bundles.PRK, info), None)
    bundlekeys.check_key(frame.bundle, kek)
    file = io.BytesIO(raw)
    for at, (one, place) in enumerate(zip(frame.bundle.components, frame.places, strict=True)):
        file.seek(place.offset)
        key = bundlekeys.make_content_key(kek, at, one.uid)
        assert sum(map(len, stream.open_chunks(key, file.read, one.size))) == one.size


def feed_inspection(raw: bytes) -> None:
    """What `inspect` prints of a file from a medium: nothing in it may steer a terminal."""
    assert all(line.isprintable() for line in inspect_message(raw).split("\n"))


def feed_receipts(raw: bytes) -> None:
    """A receipts file: what is taken was written by the device key and a holder of the class key."""
    for row in bundlereceipt.split_receipts(io.BytesIO(raw)):
        bundlereceipt.check_mac(bundlereceipt.read_receipt(row), RECEIPT_KEY)
        same(row, ROW)


MADE = bundles.make(bundles.EVERYTHING[:1])
RECEIPT_KEY = bundlekeys.make_receipt_key(lambda info: hkdf.expand(bundles.PRK, info), world.PRODUCT, world.JOB)
WRITTEN = bundlereceipt.write_receipt(bundles.receipt(), world.DEVICE_SIGN.sign, RECEIPT_KEY)
ROW = WRITTEN[4:]


def bundle_doors() -> dict[str, Door]:
    """Files, and what stands in them behind a signature or a cipher."""
    return {
        "file": Door(feed_file, MADE.raw, mutate_bytes),
        "manifest": Door(feed_manifest, BUNDLE.encode(MADE.bundle)),
        "receipts": Door(feed_receipts, WRITTEN, mutate_bytes),
        "shown-file": Door(feed_inspection, MADE.raw, mutate_bytes),
        "shown-receipts": Door(feed_inspection, WRITTEN * 2, mutate_bytes),
        "receipt": Door(bundlereceipt.read_receipt, ROW),
        "update-key": Door(lambda raw: same(UPDATE_KEY.encode(UPDATE_KEY.decode(raw, 1_024)), raw), bundles.OWNER_SLOT),
        "policy": Door(lambda raw: same(BUNDLE_POLICY.encode(BUNDLE_POLICY.decode(raw, 32_768)), raw), bundles.RIGHTS),
    }
