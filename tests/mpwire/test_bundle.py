"""A bundle's file, keys and chunks: what comes back, and what a swapped, cut or re-used part does."""

import hashlib
import io
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from mpwire import bundle, bundlekeys, hkdf, stream
from mpwire.codec import encode
from mpwire.errors import Malformed, Unauthentic
from mpwire.limits import BUNDLE_CHUNK_BYTES
from mpwire.messages.bundle import Bundle, Component, Conditions
from mpwire.messages.grant import make_check_value, make_check_value_of_file
from mpwire.mpk import HiddenMpKey
from mpwire.p256 import SoftKey
from mpwire.secret import Secret

AUTHORITY = SoftKey.from_scalar(Secret(bytes(31) + b"\x21"))
PRK = Secret(hashlib.sha256(b"prk").digest())
JOB_SECRET = Secret(hashlib.sha256(b"job").digest()[:16])
SIZES = (0, 1, BUNDLE_CHUNK_BYTES - 1, BUNDLE_CHUNK_BYTES, BUNDLE_CHUNK_BYTES + 1, 3 * BUNDLE_CHUNK_BYTES)


def expand(info: bytes) -> Secret:
    return hkdf.expand(PRK, info)


def plan(*components: Component, **changes: object) -> Bundle:
    made = Bundle(
        realm="lab",
        product="camera",
        job="lot-1",
        authority="owner",
        version=3,
        minimum=2,
        made_at=1_800_000_000,
        expires=1_900_000_000,
        conditions=Conditions("closed"),
        salt=bytes(32),
        components=components or (Component("api-key", "static", "sealed", 1, "fill", 4),),
        policy_digest=bytes(32),
        digests=(),
        key_check=bytes(16),
    )
    return made._replace(**changes)  # type: ignore[arg-type]


def build(draft: Bundle, plains: list[bytes], job_secret: Secret | None = None) -> bytes:
    """A whole file, sealed and signed."""
    kek = bundlekeys.make_kek(draft, expand, job_secret)
    parts = [
        b"".join(stream.seal_chunks(key_of(kek, at, one), stream.read_plain(io.BytesIO(plain)), one.size))
        for at, (one, plain) in enumerate(zip(draft.components, plains, strict=True))
    ]
    whole = draft._replace(
        digests=tuple(hashlib.sha256(one).digest() for one in parts), key_check=bundlekeys.make_key_check(kek)
    )
    head = bundle.write_envelope(whole, {4: thumb()}, AUTHORITY.sign)
    return head + b"".join(parts)


def key_of(kek: Secret, at: int, one: Component) -> Secret:
    return bundlekeys.make_content_key(kek, at, one.uid)


def thumb() -> bytes:
    from mpwire.cose import thumbprint

    return thumbprint(AUTHORITY.public_key())


def open_all(raw: bytes, job_secret: Secret | None = None) -> list[bytes]:
    """As a board does: shape, signer, payload, keys, chunks."""
    file = io.BytesIO(raw)
    frame = bundle.read_bundle(file)
    bundle.verify_authority(frame, AUTHORITY.public_key())
    bundle.check_payload(file, frame, lambda done, end: None)
    kek = bundlekeys.make_kek(frame.bundle, expand, job_secret)
    bundlekeys.check_key(frame.bundle, kek)
    found = []
    for at, (one, place) in enumerate(zip(frame.bundle.components, frame.places, strict=True)):
        file.seek(place.offset)
        found.append(b"".join(stream.open_chunks(key_of(kek, at, one), file.read, one.size)))
    return found


@pytest.mark.parametrize("size", SIZES)
def test_component_comes_back_whatever_its_size(size: int) -> None:
    plain = hashlib.shake_128(b"plain").digest(size)
    draft = plan(
        Component("blob", "file", "sealed", 1, "fill", size), Component("two", "static", "sealed", 1, "fill", 3)
    )
    raw = build(draft, [plain, b"two"])
    assert open_all(raw) == [plain, b"two"]
    assert size < 32 or plain not in raw


@pytest.mark.parametrize("size", SIZES)
def test_chunks_cut_short_doubled_or_exchanged_do_not_open(size: int) -> None:
    """T-640 Torn: what ends at a chunk's edge is no shorter component, and chunks have one order."""
    key, plain = Secret(bytes(32)), hashlib.shake_128(b"plain").digest(size)
    sealed = list(stream.seal_chunks(key, stream.read_plain(io.BytesIO(plain)), size))
    assert sum(map(len, sealed)) == stream.count_ciphertext(size)
    spoilt: list[bytes] = [b"".join(sealed)[:-1], b"".join(sealed[:-1])]
    if len(sealed) > 1:
        spoilt += [b"".join([sealed[1], sealed[0], *sealed[2:]]), b"".join([sealed[0], *sealed[:-1]])]
    for raw in spoilt:
        with pytest.raises(Unauthentic, match="bundle-open"):
            list(stream.open_chunks(key, io.BytesIO(raw).read, size))
    with pytest.raises(Unauthentic, match="bundle-open"):  # the same bytes as a component of another length
        list(stream.open_chunks(key, io.BytesIO(b"".join(sealed)).read, size + 1))


def test_writer_refuses_chunks_that_are_not_the_size_promised() -> None:
    for size in (3, 5):
        with pytest.raises(ValueError, match="a chunk of"):
            list(stream.seal_chunks(Secret(bytes(32)), iter([b"four"]), size))


def test_every_4_kib_cut_is_refused() -> None:
    """T-641 Torn: a bundle cut at any block of the medium is refused before a component opens."""
    size = 3 * BUNDLE_CHUNK_BYTES + 17
    raw = build(plan(Component("blob", "file", "sealed", 1, "fill", size)), [bytes(size)])
    for end in range(0, len(raw), 4_096):
        with pytest.raises((Malformed, Unauthentic), match=r"bundle-(frame|payload)"):
            open_all(raw[:end])
    with pytest.raises(Unauthentic, match="bundle-payload"):
        open_all(raw + b"\0")


def test_component_of_another_bundle_does_not_open() -> None:
    """T-642 Swap: the same component under another salt is other bytes, and its key is another."""
    one = build(plan(), [b"four"])
    other = build(plan(salt=b"\1" * 32), [b"four"])
    assert one[-20:] != other[-20:]
    with pytest.raises(Unauthentic, match="bundle-payload"):
        open_all(one[:-20] + other[-20:])


def test_every_bit_of_a_bundle_counts() -> None:
    """T-643 Tampering: one bit anywhere and the bundle is refused."""
    raw = build(plan(), [b"four"])
    for at in range(len(raw)):
        spoilt = bytearray(raw)
        spoilt[at] ^= 1
        with pytest.raises((Malformed, Unauthentic)):
            open_all(bytes(spoilt))


def test_job_secret_is_needed_where_the_manifest_says_so() -> None:
    """T-644 Leaked key: with the class key alone a bundle under a job secret stays shut."""
    draft = plan(secret_id=bundlekeys.name_secret(JOB_SECRET))
    raw = build(draft, [b"four"], JOB_SECRET)
    assert open_all(raw, JOB_SECRET) == [b"four"]
    for wrong in (None, Secret(bytes(16))):
        with pytest.raises(Unauthentic, match="bundle-secret"):
            open_all(raw, wrong)
    with pytest.raises(Unauthentic, match="bundle-secret"):
        open_all(build(plan(), [b"four"]), JOB_SECRET)


def test_another_key_is_named_before_anything_opens() -> None:
    draft = plan()
    kek = bundlekeys.make_kek(draft, lambda info: hkdf.expand(Secret(b"other" * 8), info), None)
    whole = draft._replace(key_check=bundlekeys.make_key_check(bundlekeys.make_kek(draft, expand, None)))
    with pytest.raises(Unauthentic, match="bundle-key"):
        bundlekeys.check_key(whole, kek)


def test_every_salt_gives_other_keys_for_the_same_manifest() -> None:
    """T-645 Nonce reuse: a key belongs to one salt, one place and one board, so fixed nonces never meet twice."""
    keys = []
    for salt in (bytes(32), b"\1" * 32):
        kek = bundlekeys.make_kek(plan(salt=salt), expand, None)
        keys += [bundlekeys.make_content_key(kek, at, uid).reveal() for at in (0, 1) for uid in (None, b"u" * 8)]
    assert len(set(keys)) == len(keys)


def test_keys_are_those_of_rfc_5869() -> None:
    """By another implementation, as docs/wire.md 11.2 spells them."""
    draft = plan(secret_id=bundlekeys.name_secret(JOB_SECRET))
    info = encode(["mpagent/1/bundle-key", "camera", "lot-1", 2, bundlekeys.digest_manifest(draft), bytes(32)])
    first = HKDFExpand(hashes.SHA256(), 32, info).derive(PRK.reveal())
    kek = HKDF(hashes.SHA256(), 32, JOB_SECRET.reveal(), b"kek").derive(first)
    made = bundlekeys.make_kek(draft, expand, JOB_SECRET)
    assert made.reveal() == kek
    content = HKDFExpand(hashes.SHA256(), 32, encode(["mpagent/1/bundle-content", 7, b"u" * 8])).derive(kek)
    assert bundlekeys.make_content_key(made, 7, b"u" * 8).reveal() == content


def shapes() -> Iterator[tuple[str, Bundle]]:
    slot = Component("a", "static", "sealed", 1, "fill", 4)
    yield "twice", plan(slot, slot, digests=(bytes(32),) * 2)
    yield "twice", plan(slot, slot._replace(uid=b"u" * 8), digests=(bytes(32),) * 2)
    yield "one digest for each", plan(slot, digests=())
    yield "refuse itself", plan(version=1, minimum=2, digests=(bytes(32),))
    yield "no file", plan(slot._replace(size=32_769), digests=(bytes(32),))
    yield "policy", plan(slot._replace(kind="policy"), digests=(bytes(32),))
    yield "policy", plan(slot._replace(name="policy"), digests=(bytes(32),))
    other = Conditions("closed", uids=(b"v" * 8,))
    yield "not for", plan(slot._replace(uid=b"u" * 8), conditions=other, digests=(bytes(32),))


@pytest.mark.parametrize(("words", "made"), list(shapes()))
def test_manifest_that_contradicts_itself_is_refused(words: str, made: Bundle) -> None:
    with pytest.raises(Malformed, match=f"bundle-manifest: .*{words}"):
        bundle.check_manifest(made)


def test_bundle_of_a_stranger_is_refused() -> None:
    """T-646 Stranger: another key, a chain beside it, the issuer's way with an authority's key."""
    raw = build(plan(), [b"four"])
    frame = bundle.read_bundle(io.BytesIO(raw))
    stranger = SoftKey.generate()
    with pytest.raises(Unauthentic, match="bundle-authority-key"):
        bundle.verify_authority(frame, stranger.public_key())
    forged = bundle.write_envelope(frame.bundle, {4: thumb()}, stranger.sign)
    with pytest.raises(Unauthentic, match="bundle-signature"):
        bundle.verify_authority(bundle.read_bundle(io.BytesIO(forged)), AUTHORITY.public_key())


def test_hidden_key_refuses_to_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    """T-647 Careless print: repr, str, format, JSON, pickle, copies and logging of a hidden MP key all refuse."""
    import copy
    import json
    import logging
    import pickle

    point = SoftKey.generate().public_key()[1:]
    key = HiddenMpKey(point)
    for show in (repr, str, format, bytes, json.dumps, pickle.dumps, copy.copy, copy.deepcopy, list, "{}".format, hash):
        with pytest.raises(TypeError):
            show(key)  # type: ignore[operator]
    log = logging.Logger("alone")  # of no parent: pytest's own handler would raise instead of saying it
    log.addHandler(logging.StreamHandler())
    log.error("%s", key)
    said = capsys.readouterr()
    assert "Logging error" in said.err
    assert point.hex() not in (said.out + said.err).lower() and str(point) not in said.out + said.err
    assert key == HiddenMpKey(point) and key.reveal() == point
    assert key.extract() == hkdf.extract(b"mpagent/mpk/v1", Secret(point))
    key.wipe()
    assert key.reveal() == bytes(64)


@pytest.mark.parametrize("raw", [bytes(64), b"\1" * 64, bytes(63)])
def test_hidden_key_is_on_the_curve(raw: bytes) -> None:
    with pytest.raises(Malformed):
        HiddenMpKey(raw)


@pytest.mark.parametrize("size", [*SIZES, 23, 24, 255, 256])
def test_check_value_of_a_file_is_that_of_its_bytes_at_once(size: int) -> None:
    """A receipt of 200 MiB is compared by the same formula as one of 32 bytes."""
    key, plain = Secret(bytes(32)), hashlib.shake_128(b"plain").digest(size)
    chunks = list(stream.read_plain(io.BytesIO(plain)))
    assert make_check_value_of_file(key, "blob", 7, size, chunks) == make_check_value(key, "blob", 7, Secret(plain))
    with pytest.raises(ValueError, match="promised"):
        make_check_value_of_file(key, "blob", 7, size + 1, chunks)
