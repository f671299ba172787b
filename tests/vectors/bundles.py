"""bundles.json: bundles, update keys, policies and receipts of docs/wire.md 11 (python -m tests.vectors.bundles).

A vector of message `bundle-file` is a whole file. Beside it stand `prk` (what the MP public key `mpk` or an update key
gives), `job_secret` where one is needed, and what follows from them: `manifest_digest`, `k1`, `kek`, and for each
component its content key and SHA-256 of its plain text. `signer` is "issuer" (roots of world.json) or the point of an
update authority. A vector of message `stream` has SHA-256 of the ciphertext of `size` zeros. Rules of kind `trust` and
`check` name the check that refuses a whole and well-formed file.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from mpwire import bundle, bundlekeys, bundlereceipt, hkdf, labels, registry, stream
from mpwire.codec import decode, encode
from mpwire.cose import thumbprint, write_sign1
from mpwire.limits import BUNDLE_CHUNK_BYTES
from mpwire.messages.bundle import (
    BUNDLE,
    BUNDLE_POLICY,
    BUNDLE_RECEIPT,
    COMPONENT,
    UPDATE_KEY,
    Bundle,
    BundlePolicy,
    BundleReceipt,
    Component,
    Conditions,
    UpdateKey,
)
from mpwire.messages.grant import SlotReceipt, make_check_value
from mpwire.mpk import HiddenMpKey
from mpwire.secret import Secret
from mpwire.shape import MapOf
from mpwire.ueid import make_ueid
from tests.vectors import world
from tests.vectors.format import HERE, Vector, render, write_bytes
from tests.vectors.mutation import break_map

FILE: Final = "bundles.json"
REPEATED_MIN: Final = 1_000
ROLE: Final = world.FixedKey("bundle-role")
OWNER: Final = world.FixedKey("bundle-owner")
MPK: Final = world.FixedKey("bundle-mp").public_key()[1:]
PRK: Final = HiddenMpKey(MPK).extract()
OWNER_KEY: Final = Secret(world.fill("bundle-owner-key", 32))
JOB_SECRET: Final = Secret(world.fill("bundle-job-secret", 16))
UID: Final = bytes.fromhex("0123456789abcdef")
OTHER_UID: Final = bytes.fromhex("fedcba9876543210")
UEID: Final = make_ueid("mp", world.FAMILY, UID)
API_KEY: Final = world.fill("bundle-api-key", 32)
BLOB: Final = world.fill("bundle-blob", 40)
STREAMS: Final = (0, 1, BUNDLE_CHUNK_BYTES - 1, BUNDLE_CHUNK_BYTES, BUNDLE_CHUNK_BYTES + 1, 2 * BUNDLE_CHUNK_BYTES)
"""Sizes around a chunk's edge."""
OWNER_SLOT: Final = UPDATE_KEY.encode(UpdateKey(OWNER.public_key(), OWNER_KEY))
RIGHTS: Final = BUNDLE_POLICY.encode(BundlePolicy({"api-key": "owner"}, {"owner": 2}))
EVERYTHING: Final = (
    (Component("api-key", "static", "sealed", 1, "fill", len(API_KEY)), API_KEY),
    (Component("blob", "file", "plain", 1, "replace", len(BLOB)), BLOB),
    (Component("nothing", "random", "keyring", 1, "fill", 0), b""),
    (Component("own-key", "random", "credential", 1, "fill", 4, UID), b"mine"),
    (Component("own-key", "random", "credential", 1, "fill", 6, OTHER_UID), b"theirs"),
    (Component("update-owner", "update-key", "sealed", 1, "fill", len(OWNER_SLOT)), OWNER_SLOT),
    (Component("policy", "policy", "sealed", 1, "replace", len(RIGHTS)), RIGHTS),
)


class Made(NamedTuple):
    """A bundle and the keys it was made with."""

    raw: bytes
    bundle: Bundle
    prk: Secret
    job_secret: Secret | None
    plains: tuple[bytes, ...]
    signer: str


def issuer_headers(role: str = "bundle", product: str | None = None, **changes: Any) -> dict[int, object]:
    """The chain of the issuer's role key."""
    return {registry.HEADER_ISSUER_CHAIN: [world.certify(ROLE, world.ROOT, role, product=product, **changes)]}


def draft(contents: Sequence[tuple[Component, bytes]], **changes: Any) -> Bundle:
    """A manifest before anything is encrypted."""
    made = Bundle(
        realm=world.REALM,
        product=world.PRODUCT,
        job=world.JOB,
        authority="mp",
        version=2,
        minimum=1,
        made_at=world.NOW,
        expires=world.NOW + 30 * world.DAY,
        conditions=Conditions("closed", world.FAMILY, world.fill("bundle-srk", 32), (UID, OTHER_UID)),
        salt=world.fill("bundle-salt", 32),
        components=tuple(one for one, _ in contents),
        policy_digest=world.fill("bundle-policy", 32),
        digests=(),
        key_check=bytes(16),
    )
    return made._replace(**changes)


def seal(plan: Bundle, plains: Sequence[bytes], prk: Secret, job_secret: Secret | None) -> tuple[Bundle, bytes]:
    """The whole manifest, and all ciphertexts."""
    kek = bundlekeys.make_kek(plan, lambda info: hkdf.expand(prk, info), job_secret)
    parts = [
        b"".join(
            stream.seal_chunks(
                bundlekeys.make_content_key(kek, at, one.uid), stream.read_plain(io.BytesIO(plain)), one.size
            )
        )
        for at, (one, plain) in enumerate(zip(plan.components, plains, strict=True))
    ]
    digests = tuple(hashlib.sha256(one).digest() for one in parts)
    return plan._replace(digests=digests, key_check=bundlekeys.make_key_check(kek)), b"".join(parts)


def make(
    contents: Sequence[tuple[Component, bytes]] = EVERYTHING,
    headers: Mapping[int, object] | None = None,
    key: world.FixedKey = ROLE,
    prk: Secret = PRK,
    job_secret: Secret | None = None,
    **changes: Any,
) -> Made:
    """A first loading, unless told otherwise."""
    plan = draft(contents, secret_id=None if job_secret is None else bundlekeys.name_secret(job_secret), **changes)
    plains = tuple(plain for _, plain in contents)
    whole, payload = seal(plan, plains, prk, job_secret)
    raw = bundle.write_envelope(whole, dict(issuer_headers() if headers is None else headers), key.sign) + payload
    return Made(raw, whole, prk, job_secret, plains, "issuer" if key is ROLE else key.public_key().hex())


def make_update(**changes: Any) -> Made:
    """A bundle of the owner."""
    given: dict[str, Any] = {"authority": "owner", "prk": OWNER_KEY, "key": OWNER, "version": 3, "minimum": 2}
    kid = {registry.HEADER_KID: thumbprint(OWNER.public_key())}
    only = ((EVERYTHING[0][0]._replace(action="replace", version=2), API_KEY[::-1]),)
    return make(**{"contents": only, "headers": kid, **given, **changes})


def _good() -> Iterator[tuple[str, Made]]:
    yield "first loading with every kind of component", make()
    yield "first loading under a job secret", make(EVERYTHING[:1], job_secret=JOB_SECRET)
    yield "first loading for every board", make(EVERYTHING[:1], conditions=Conditions("any"))
    yield "update by its owner", make_update()


def _describe(name: str, made: Made) -> Vector:
    kek = bundlekeys.make_kek(made.bundle, lambda info: hkdf.expand(made.prk, info), made.job_secret)
    return {
        "name": name,
        "message": "bundle-file",
        "kind": "ok",
        "rule": "ok",
        **_keys_of(made),
        "manifest_digest": bundlekeys.digest_manifest(made.bundle).hex(),
        "k1": hkdf.expand(made.prk, bundlekeys.make_info(made.bundle)).reveal().hex(),
        "kek": kek.reveal().hex(),
        "components": [
            {
                "key": bundlekeys.make_content_key(kek, at, one.uid).reveal().hex(),
                "plain_sha256": hashlib.sha256(plain).hexdigest(),
            }
            for at, (one, plain) in enumerate(zip(made.bundle.components, made.plains, strict=True))
        ],
        "bytes": write_bytes(made.raw),
    }


def _keys_of(made: Made) -> Vector:
    told: Vector = {"signer": made.signer, "prk": made.prk.reveal().hex()}
    if made.prk is PRK:
        told["mpk"] = MPK.hex()
    if made.job_secret is not None:
        told["job_secret"] = made.job_secret.reveal().hex()
    return told


def _refused() -> Iterator[tuple[str, str, str, bytes]]:
    """(name, kind, rule, bytes): files that are whole in shape."""
    first, only = make(EVERYTHING[:1]), EVERYTHING[:1]
    raw = first.raw
    yield "another frame", "encoding", "bundle-frame: not a bundle", b"mpbundlf" + raw[8:]
    yield "nothing", "encoding", "bundle-frame: not a bundle", b""
    yield "a manifest of no bytes", "encoding", "bundle-frame: the manifest is longer", raw[:8] + bytes(4) + raw[12:]
    yield "a manifest of 4 GiB", "encoding", "bundle-frame: the manifest is longer", raw[:8] + b"\xff" * 4 + raw[12:]
    yield "cut in the manifest", "encoding", "bundle-frame: the file ends inside the manifest", raw[:200]
    stranger = world.FixedKey("bundle-stranger")
    yield (
        "signed by a stranger under our chain",
        "trust",
        "bundle-signature",
        _resign(first, issuer_headers(), stranger),
    )
    yield "signed with a grant key", "trust", "issuer-role", _resign(first, issuer_headers("grant"))
    yield "signed for another product", "trust", "issuer-product", _resign(first, issuer_headers(product="other"))
    kid = {registry.HEADER_KID: thumbprint(ROLE.public_key())}
    both = {**issuer_headers(), **kid}
    yield "signed by chain and by name", "trust", "bundle-signer", _resign(first, both)
    yield "made outside its key's life", "trust", "bundle-time", make(only, made_at=world.NOW + 90 * world.DAY).raw
    foreign = make(only, headers=issuer_headers(realm="lab"), realm="production").raw
    yield "of another realm than its key", "trust", "bundle-realm", foreign
    update = make_update()
    yield "an owner's by another key", "trust", "bundle-authority-key", _resign(update, kid, ROLE)
    owner = {registry.HEADER_KID: thumbprint(OWNER.public_key())}
    yield "an owner's forged", "trust", "bundle-signature", _resign(update, owner, stranger)
    yield "an owner's under a chain", "trust", "bundle-signer", _resign(update, issuer_headers(), OWNER)
    yield "one byte less", "check", "bundle-payload", raw[:-1]
    yield "one byte more", "check", "bundle-payload", raw + b"\0"
    yield "one bit of a ciphertext", "check", "bundle-payload", raw[:-1] + bytes([raw[-1] ^ 1])
    other = make(only, salt=bytes(32)).raw
    yield "ciphertext of another salt", "check", "bundle-payload", raw[:-48] + other[-48:]
    yield "job secret left out", "check", "bundle-secret", make(only, job_secret=JOB_SECRET).raw
    yield "another class key", "check", "bundle-key", make(only, prk=OWNER_KEY).raw
    yield "sealed otherwise than it says", "check", "bundle-open", _misplaced()


def _resign(made: Made, headers: Mapping[int, object], key: world.FixedKey = ROLE) -> bytes:
    payload = made.raw[bundle.read_bundle(io.BytesIO(made.raw)).places[0].offset :]
    return bundle.write_envelope(made.bundle, dict(headers), key.sign) + payload


def _misplaced() -> bytes:
    """Two components whose ciphertexts, and digests, changed places under a good signature."""
    same = tuple((Component(name, "static", "sealed", 1, "fill", 4), b"four") for name in ("a", "b"))
    made = make(same)
    offset = bundle.read_bundle(io.BytesIO(made.raw)).places[0].offset
    half = (len(made.raw) - offset) // 2
    swapped = made.bundle._replace(digests=made.bundle.digests[::-1])
    payload = made.raw[offset + half :] + made.raw[offset : offset + half]
    return bundle.write_envelope(swapped, issuer_headers(), ROLE.sign) + payload


def receipt(**changes: Any) -> BundleReceipt:
    """What a board said after the first loading."""
    check = make_check_value(Secret(world.fill("bundle-check", 32)), "api-key", 1, Secret(API_KEY))
    made = BundleReceipt(
        bundle_digest=world.fill("bundle-digest", 32),
        ueid=UEID,
        key=world.DEVICE_SIGN.public_key(),
        hardware_ids={"imx-uid": UID},
        product=world.PRODUCT,
        job=world.JOB,
        authority="mp",
        version=2,
        slots=(SlotReceipt("api-key", "caam", 1, check),),
        skipped=("blob",),
        rollback="none",
        closed_proof="mp-key",
        agent_version="1.0",
        life_cycle=3,
    )
    return made._replace(**changes)


def _receipts() -> Iterator[Vector]:
    key = bundlekeys.make_receipt_key(lambda info: hkdf.expand(PRK, info), world.PRODUCT, world.JOB)
    row = bundlereceipt.write_receipt(receipt(), world.DEVICE_SIGN.sign, key)[4:]
    common: Vector = {"message": "receipts-row", "prk": PRK.reveal().hex(), "receipt_key": key.reveal().hex()}
    yield {"name": "receipt", "kind": "ok", "rule": "ok", **common, "bytes": row.hex()}
    signed, mac = decode(row)  # type: ignore[misc]  # an array of two
    forged = write_sign1(
        {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_BUNDLE_RECEIPT},
        BUNDLE_RECEIPT.encode(receipt()),
        labels.AAD_BUNDLE_RECEIPT,
        world.FixedKey("bundle-stranger").sign,
    )
    for name, rule, spoilt in (
        ("receipt signed by another key", "receipt-signature", [forged, mac]),
        ("receipt without the class key", "receipt-mac", [signed, bytes(32)]),
    ):
        yield {"name": name, "kind": "trust", "rule": rule, **common, "bytes": encode(spoilt).hex()}


PARTS: Final[tuple[tuple[str, MapOf[Any], bytes], ...]] = (
    ("update-key", UPDATE_KEY, OWNER_SLOT),
    ("bundle-policy", BUNDLE_POLICY, RIGHTS),
)
"""What stands inside components: message, shape and a good one."""


def _broken() -> Iterator[Vector]:
    """Shapes broken in every way."""
    everything = make(job_secret=JOB_SECRET)
    headers = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_BUNDLE, **issuer_headers()}
    for what, rule, item in break_map(BUNDLE, decode(BUNDLE.encode(everything.bundle)), "bundle"):  # type: ignore[arg-type]
        raw = write_sign1(headers, encode(item), labels.AAD_BUNDLE, ROLE.sign)
        yield _structure(f"bundle {what}", "bundle", rule, raw)
    headers = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_BUNDLE_RECEIPT}
    for what, rule, item in break_map(BUNDLE_RECEIPT, decode(BUNDLE_RECEIPT.encode(receipt())), "bundle-receipt"):  # type: ignore[arg-type]
        raw = write_sign1(headers, encode(item), labels.AAD_BUNDLE_RECEIPT, world.DEVICE_SIGN.sign)
        yield _structure(f"receipt {what}", "bundle-receipt", rule, raw)
    for message, shape, good in PARTS:
        yield {"name": message, "message": message, "kind": "ok", "rule": "ok", "bytes": good.hex()}
        for what, rule, item in break_map(shape, decode(good), message):  # type: ignore[arg-type]
            yield _structure(f"{message} {what}", message, rule, encode(item))


def _structure(name: str, message: str, rule: str, raw: bytes) -> Vector:
    return {"name": name, "message": message, "kind": "structure", "rule": rule, "bytes": _fold(raw)}


def _fold(raw: bytes) -> str | list[Any]:
    """`bytes` of a vector; a member repeated thousands of times is written once."""
    rows = (encode(make_digest()), encode(UID), encode(decode(COMPONENT.encode(EVERYTHING[0][0]))))
    for row in rows:
        if (start := raw.find(row * REPEATED_MIN)) >= 0:
            end = start
            while raw.startswith(row, end):
                end += len(row)
            return [raw[:start].hex(), [row.hex(), (end - start) // len(row)], raw[end:].hex()]
    return write_bytes(raw)


def make_digest() -> bytes:
    """Of the first ciphertext of the bundle that is broken."""
    return make(job_secret=JOB_SECRET).bundle.digests[0]


def _streams() -> Iterator[Vector]:
    key = Secret(world.fill("bundle-stream", 32))
    for size in STREAMS:
        sealed = b"".join(stream.seal_chunks(key, stream.read_plain(io.BytesIO(bytes(size))), size))
        common: Vector = {"message": "stream", "kind": "ok", "rule": "ok", "key": key.reveal().hex()}
        yield {"name": f"stream of {size}", **common, "size": size, "sha256": hashlib.sha256(sealed).hexdigest()}


def vectors() -> list[Vector]:
    """All of them."""
    made = [_describe(name, one) for name, one in _good()]
    made += [
        {
            "name": name,
            "message": "bundle-file",
            "kind": kind,
            "rule": rule,
            "signer": OWNER.public_key().hex() if "owner's" in name else "issuer",
            "prk": PRK.reveal().hex(),
            "bytes": write_bytes(raw),
        }
        for name, kind, rule, raw in _refused()
    ]
    return [*made, *_streams(), *_receipts(), *_broken()]


def main() -> None:
    """Write the file."""
    (HERE / FILE).write_text(render(vectors()))


if __name__ == "__main__":
    main()
