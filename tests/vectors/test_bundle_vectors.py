"""bundles.json against mpwire and docs/wire.cddl."""

import hashlib
import io
import json
from typing import Any

import pytest

from mpwire import bundle, bundlekeys, bundlereceipt, hkdf, labels, stream
from mpwire.codec import decode
from mpwire.cose import read_sign1
from mpwire.errors import Malformed, Unauthentic
from mpwire.limits import BUNDLE_MANIFEST_MAX_BYTES, RECEIPT_MAX_BYTES
from mpwire.messages.bundle import BUNDLE, BUNDLE_POLICY, BUNDLE_RECEIPT, RECEIPT_ROW, UPDATE_KEY
from mpwire.mpk import HiddenMpKey
from mpwire.secret import Secret
from mpwire.trust import ES256_ONLY, Trust
from tests.vectors.format import HERE, Vector, load, read_bytes
from tests.vectors.test_wire_vectors import ask_schema
from tests.walls.checks import SPEAKING_OF_BUNDLES, names_of_checks

VECTORS = load("bundles.json")
WORLD: dict[str, Any] = json.loads((HERE / "world.json").read_text())
SCHEMA_SEES = ("bundle", "bundle-receipt", "update-key", "bundle-policy", "receipts-row")


def chosen(message: str, *kinds: str) -> pytest.MarkDecorator:
    found = [one for one in VECTORS if one["message"] == message and one["kind"] in kinds]
    assert found
    return pytest.mark.parametrize("vector", found, ids=[one["name"] for one in found])


def prk_of(vector: Vector) -> Secret:
    return Secret(bytes.fromhex(vector["prk"]))


def read_file(vector: Vector) -> list[str]:
    """Every step of docs/wire.md 11.4 that bytes alone decide; SHA-256 of each plain text."""
    file = io.BytesIO(read_bytes(vector["bytes"]))
    frame = bundle.read_bundle(file)
    if vector["signer"] == "issuer":
        roots = tuple(bytes.fromhex(WORLD["keys"][name]["point"]) for name in ("root", "standby_root"))
        bundle.verify_issuer(frame, Trust(WORLD["realm"], roots, WORLD["issuer_epoch"], WORLD["device_floor"]))
    else:
        bundle.verify_authority(frame, bytes.fromhex(vector["signer"]))
    bundle.check_payload(file, frame, lambda done, end: None)
    kek = kek_of(vector, frame.bundle)
    bundlekeys.check_key(frame.bundle, kek)
    found = []
    for at, (one, place) in enumerate(zip(frame.bundle.components, frame.places, strict=True)):
        file.seek(place.offset)
        key = bundlekeys.make_content_key(kek, at, one.uid)
        found.append(hashlib.sha256(b"".join(stream.open_chunks(key, file.read, one.size))).hexdigest())
    return found


def kek_of(vector: Vector, manifest: Any) -> Secret:
    secret = vector.get("job_secret")
    return bundlekeys.make_kek(
        manifest,
        lambda info: hkdf.expand(prk_of(vector), info),
        None if secret is None else Secret(bytes.fromhex(secret)),
    )


@chosen("bundle-file", "ok")
def test_bundle_opens_with_the_keys_of_the_document(vector: Vector) -> None:
    assert read_file(vector) == [one["plain_sha256"] for one in vector["components"]]
    manifest = bundle.read_bundle(io.BytesIO(read_bytes(vector["bytes"]))).bundle
    assert bundlekeys.digest_manifest(manifest).hex() == vector["manifest_digest"]
    assert hkdf.expand(prk_of(vector), bundlekeys.make_info(manifest)).reveal().hex() == vector["k1"]
    kek = kek_of(vector, manifest)
    assert kek.reveal().hex() == vector["kek"]
    for at, (one, told) in enumerate(zip(manifest.components, vector["components"], strict=True)):
        assert bundlekeys.make_content_key(kek, at, one.uid).reveal().hex() == told["key"]
    if "mpk" in vector:
        assert HiddenMpKey(bytes.fromhex(vector["mpk"])).extract() == prk_of(vector)


@chosen("bundle-file", "encoding", "trust", "check")
def test_bundle_is_refused_by_the_check_it_names(vector: Vector) -> None:
    with pytest.raises((Malformed, Unauthentic)) as caught:
        read_file(vector)
    assert str(caught.value).startswith(vector["rule"])


@chosen("stream", "ok")
def test_zeros_become_the_ciphertext_of_the_document(vector: Vector) -> None:
    key, plain = Secret(bytes.fromhex(vector["key"])), io.BytesIO(bytes(vector["size"]))
    sealed = b"".join(stream.seal_chunks(key, stream.read_plain(plain), vector["size"]))
    assert hashlib.sha256(sealed).hexdigest() == vector["sha256"]


READERS = {
    "bundle": lambda raw: BUNDLE.decode(
        read_sign1(
            raw, typ=labels.TYP_BUNDLE, algs=ES256_ONLY, protected_allowed=frozenset({-70103, -70105, 4})
        ).payload,
        BUNDLE_MANIFEST_MAX_BYTES,
    ),
    "bundle-receipt": lambda raw: BUNDLE_RECEIPT.decode(
        read_sign1(raw, typ=labels.TYP_BUNDLE_RECEIPT, algs=ES256_ONLY).payload, RECEIPT_MAX_BYTES
    ),
    "update-key": lambda raw: UPDATE_KEY.decode(raw, 1_024),
    "bundle-policy": lambda raw: BUNDLE_POLICY.decode(raw, 32_768),
    "receipts-row": lambda raw: RECEIPT_ROW.read(decode(raw), "row"),
}


@pytest.mark.parametrize("message", sorted(READERS.keys() - {"receipts-row"}))
def test_broken_structures_are_refused_by_their_rule(message: str) -> None:
    found = [one for one in VECTORS if one["message"] == message and one["kind"] == "structure"]
    assert len(found) > 10
    for vector in found:
        with pytest.raises(Malformed) as caught:
            READERS[message](read_bytes(vector["bytes"]))
        assert str(caught.value).startswith(vector["rule"]), vector["name"]


@chosen("receipts-row", "ok", "trust")
def test_receipt_counts_by_both_its_proofs(vector: Vector) -> None:
    key = bundlekeys.make_receipt_key(lambda info: hkdf.expand(prk_of(vector), info), WORLD["product"], "order-17")
    assert key.reveal().hex() == vector["receipt_key"]
    raw = read_bytes(vector["bytes"])
    if vector["kind"] == "ok":
        bundlereceipt.check_mac(bundlereceipt.read_receipt(raw), key)
        return
    with pytest.raises(Unauthentic, match=f"^{vector['rule']}$"):
        bundlereceipt.check_mac(bundlereceipt.read_receipt(raw), key)


def test_every_check_of_a_bundle_has_a_vector() -> None:
    shown = {vector["rule"].split(":")[0] for vector in VECTORS}
    raised = set().union(*(names_of_checks(path) for path in SPEAKING_OF_BUNDLES))
    assert len(raised) > 8 and raised - shown == set()


def test_schema_takes_what_the_reader_takes_and_refuses_broken_structures() -> None:
    vectors = [one for one in VECTORS if one["message"] in SCHEMA_SEES]
    vectors += [
        {**one, "message": "bundle", "bytes": envelope_of(one)}
        for one in VECTORS
        if one["message"] == "bundle-file" and one["kind"] in ("ok", "trust", "check")
    ]
    answers = {one["name"]: (one["kind"], why) for one, why in zip(vectors, ask_schema(vectors), strict=True)}
    both = {"signed by chain and by name"}
    assert {
        name: why for name, (kind, why) in answers.items() if kind != "structure" and why and name not in both
    } == {}
    assert [name for name, (kind, why) in answers.items() if kind == "structure" and why is None] == []
    assert answers["signed by chain and by name"][1] is not None


def envelope_of(vector: Vector) -> str:
    raw = read_bytes(vector["bytes"])
    return raw[bundle.HEAD_BYTES : bundle.HEAD_BYTES + int.from_bytes(raw[8:12], "big")].hex()


@pytest.mark.ceiling
def test_a_rerun_changes_nothing() -> None:
    from tests.vectors import bundles  # deterministic signatures are newer than the floor
    from tests.vectors.format import render

    assert render(bundles.vectors()) == (HERE / bundles.FILE).read_text()
