"""Negative vectors of the decoder and of the envelope: one or more for every name in codec.RULES and cose.RULES."""

from collections.abc import Iterator
from typing import Any, Final

from mpwire import labels, limits, registry
from mpwire.codec import Tag, decode, encode
from mpwire.messages.plain import CLOSED, HELLO, PROOF
from tests.vectors import golden, world
from tests.vectors.format import Vector, write_bytes

ITEMS: Final = (
    ("nothing", "truncated", ""),
    ("a head without its argument", "truncated", "18"),
    ("half an argument", "truncated", "1901"),
    ("a string longer than the rest", "truncated", "4401 02"),
    ("an array without its member", "count", "81"),
    ("a text key cut short", "truncated", "a1 7818"),
    ("a second item", "trailing-bytes", "00 00"),
    ("a second map", "trailing-bytes", "a0 a0"),
    ("23 in two bytes", "not-shortest", "18 17"),
    ("255 in three bytes", "not-shortest", "19 00ff"),
    ("65535 in five bytes", "not-shortest", "1a 0000ffff"),
    ("2^32 - 1 in nine bytes", "not-shortest", "1b 00000000ffffffff"),
    ("-1 in two bytes", "not-shortest", "38 00"),
    ("a string's length in two bytes", "not-shortest", "58 01 00"),
    ("an array's count in two bytes", "not-shortest", "98 01 00"),
    ("a map key in two bytes", "not-shortest", "a1 1801 00"),
    ("a tag in three bytes", "not-shortest", "d9 0012 00"),
    ("a string in chunks", "indefinite-length", "5f 4100 ff"),
    ("a text in chunks", "indefinite-length", "7f 6161 ff"),
    ("an array without a count", "indefinite-length", "9f 00 ff"),
    ("a map without a count", "indefinite-length", "bf 00 00 ff"),
    ("a stray end mark", "indefinite-length", "ff"),
    ("additional information 28", "reserved-length", "1c"),
    ("additional information 30 of a string", "reserved-length", "5e"),
    ("simple value head 28", "reserved-length", "fc"),
    ("an array of 2^64 - 1", "count", "9b ffffffffffffffff"),
    ("a map of 2^32", "count", "bb 0000000100000000 00"),
    ("an array of two in one byte", "count", "82 00"),
    ("17 arrays in each other", "depth", "81" * 17 + "00"),
    ("1000 arrays in each other", "depth", "81" * 1000 + "00"),
    ("a byte string as a key", "map-key-type", "a1 4101 00"),
    ("an array as a key", "map-key-type", "a1 80 00"),
    ("a truth value as a key", "map-key-type", "a1 f5 00"),
    ("a tag as a key", "map-key-type", "a1 d2 00 00"),
    ("keys falling", "map-key-order", "a2 02 00 01 00"),
    ("a negative key before a positive one", "map-key-order", "a2 20 00 01 00"),
    ("keys in the order of RFC 7049", "map-key-order", "a2 20 00 1864 00"),
    ("a text key before an integer", "map-key-order", "a2 6161 00 01 00"),
    ("a key twice", "map-key-duplicate", "a2 01 00 01 01"),
    ("a text key twice", "map-key-duplicate", "a2 6161 00 6161 00"),
    ("tag 24", "tag", "d818 4100"),
    ("a bignum", "tag", "c2 4101"),
    ("self-described CBOR", "tag", "d9d9f7 00"),
    ("tag 2^32", "tag", "db 0000000100000000 00"),
    ("half a float", "float", "f9 3c00"),
    ("a float", "float", "fa 3f800000"),
    ("a double", "float", "fb 3ff0000000000000"),
    ("undefined", "simple-value", "f7"),
    ("simple value 0", "simple-value", "e0"),
    ("simple value in two bytes", "simple-value", "f8 20"),
    ("false in two bytes", "simple-value", "f8 14"),
    ("a lone continuation byte", "utf-8", "61 80"),
    ("a surrogate", "utf-8", "63 eda080"),
    ("an overlong slash", "utf-8", "62 c0af"),
    ("a text cut inside a letter", "utf-8", "61 c3"),
)
"""(what, rule, hex)."""


def decoder_vectors() -> list[Vector]:
    """decoder.json."""
    return [
        {"name": what, "message": "item", "kind": "encoding", "rule": rule, "bytes": write_bytes(bytes.fromhex(told))}
        for what, rule, told in ITEMS
    ]


def cose_vectors() -> list[Vector]:
    """cose.json: a Receipt's envelope bent, and what a schema cannot see in maps."""
    return [*_envelopes(), *_keys(), *_texts(), *_sizes()]


def _vector(name: str, message: str, rule: str, raw: bytes, kind: str = "structure") -> Vector:
    return {"name": name, "message": message, "kind": kind, "rule": rule, "bytes": write_bytes(raw)}


def _envelopes() -> Iterator[Vector]:
    tagged: Any = decode(golden.RECEIPT)
    protected, beside, payload, signature = tagged.value
    headers: Any = decode(protected)

    def envelope(*parts: object) -> bytes:
        return encode(Tag(18, list(parts)))  # type: ignore[arg-type]

    def with_headers(changes: dict[Any, Any]) -> bytes:
        kept = {key: one for key, one in {**headers, **changes}.items() if one is not None}
        return envelope(encode(kept), beside, payload, signature)

    alg, crit, typ = registry.HEADER_ALG, registry.HEADER_CRIT, registry.HEADER_TYP
    yield _vector("envelope without its tag", "receipt", "cose-structure", encode(tagged.value))
    yield _vector("envelope around a map", "receipt", "cose-structure", encode(Tag(18, {})))
    yield _vector("envelope of three parts", "receipt", "cose-structure", envelope(protected, beside, payload))
    yield _vector(
        "envelope of five parts", "receipt", "cose-structure", envelope(protected, beside, payload, signature, b"")
    )
    yield _vector(
        "protected headers not wrapped", "receipt", "cose-structure", envelope(headers, beside, payload, signature)
    )
    yield _vector(
        "unprotected headers wrapped", "receipt", "cose-structure", envelope(protected, b"", payload, signature)
    )
    yield _vector(
        "protected headers an array", "receipt", "cose-protected", envelope(b"\x80", beside, payload, signature)
    )
    yield _vector("no protected headers", "receipt", "cose-alg", envelope(b"", beside, payload, signature))
    yield _vector("no alg", "receipt", "cose-alg", with_headers({alg: None}))
    yield _vector("alg of another list", "receipt", "cose-alg", with_headers({alg: registry.ALG_MP_ES256}))
    yield _vector("alg HMAC", "receipt", "cose-alg", with_headers({alg: 5}))
    yield _vector("alg as a text", "receipt", "cose-alg", with_headers({alg: "ES256"}))
    outside = envelope(encode({typ: headers[typ]}), {alg: registry.ALG_ES256}, payload, signature)
    yield _vector("alg outside the protected headers", "receipt", "cose-alg", outside)
    yield _vector("a critical header", "receipt", "cose-crit", with_headers({crit: [-70001], -70001: 1}))
    yield _vector("an empty list of critical headers", "receipt", "cose-crit", with_headers({crit: []}))
    yield _vector("no typ", "receipt", "cose-typ", with_headers({typ: None}))
    yield _vector("typ of a Grant", "receipt", "cose-typ", with_headers({typ: labels.TYP_GRANT}))
    yield _vector("typ as a number", "receipt", "cose-typ", with_headers({typ: 18}))
    yield _vector("an unknown protected header", "receipt", "cose-header", with_headers({99: 1}))
    chain = {registry.HEADER_ISSUER_CHAIN: world.grant_chain()}
    yield _vector("an issuer chain on a Receipt", "receipt", "cose-header", with_headers(chain))
    for name, unprotected in (("kid", {4: b"x"}), ("alg again", {alg: -7}), ("a text label", {"x": 0})):
        raw = envelope(protected, unprotected, payload, signature)
        yield _vector(f"unprotected {name}", "receipt", "cose-unprotected", raw)
    yield _vector("detached payload", "receipt", "cose-detached", envelope(protected, beside, None, signature))
    yield _vector("payload not wrapped", "receipt", "cose-detached", envelope(protected, beside, {}, signature))
    yield _vector("no signature", "receipt", "cose-signature", envelope(protected, beside, payload, b""))
    yield _vector("signature nil", "receipt", "cose-signature", envelope(protected, beside, payload, None))
    yield _vector(
        "garbage as protected headers", "receipt", "indefinite-length", envelope(b"\xff", beside, payload, signature)
    )
    yield _vector("garbage as payload", "receipt", "indefinite-length", envelope(protected, beside, b"\xff", signature))
    spelled = bytes.fromhex("a2 1801 26 10") + encode(headers[typ])
    raw = envelope(spelled, beside, payload, signature)
    yield _vector("a protected label in two bytes", "receipt", "not-shortest", raw, "encoding")
    raw = envelope(protected, beside, payload + b"\x00", signature)
    yield _vector("a payload with a second item", "receipt", "trailing-bytes", raw, "encoding")


def _keys() -> Iterator[Vector]:
    point = world.OTHER.public_key()
    x, y = point[1:33], point[33:]
    yield _vector("key off the curve", "key", "p256-point", encode({1: 2, -1: 1, -2: x, -3: x}), "point")
    yield _vector("key zero", "key", "p256-point", encode({1: 2, -1: 1, -2: bytes(32), -3: bytes(32)}), "point")
    prime = (2**256 - 2**224 + 2**192 + 2**96 - 1).to_bytes(32, "big")
    yield _vector("key with x = p", "key", "p256-point", encode({1: 2, -1: 1, -2: prime, -3: y}), "point")
    yield _vector("key compressed", "key", "cose-key", encode({1: 2, -1: 1, -2: x, -3: bool(y[-1] & 1)}))
    yield _vector("key with a private part", "key", "cose-key", encode({1: 2, -1: 1, -2: x, -3: y, -4: bytes(32)}))
    yield _vector("key of kty OKP", "key", "cose-key", encode({1: 1, -1: 1, -2: x, -3: y}))


def _texts() -> Iterator[Vector]:
    item: Any = decode(golden.MP.hello)
    for name, text in (
        ("an escape sequence", "gate\x1b[2Jway"),
        ("a line break", "gateway\nallowed"),
        ("a zero byte", "gateway\x00"),
        ("a direction override", "gateway\u202e2"),
        ("33 letters of two bytes", "é" * 33),
    ):
        raw = encode({**item, 2: text})
        yield _vector(f"a name with {name}", "hello", "hello.product: not a printable text", raw, "text")


def _sizes() -> Iterator[Vector]:
    """Every part within its bound, the whole beyond its own."""
    big = bytes(4_096)
    item: Any = decode(golden.MP.hello)
    hello = encode({**item, 4: {**item[4], 5: big, 7: [big, big]}})
    yield _vector(
        "a hello of three large certificates", "hello", f"hello: longer than {limits.HELLO_MAX_BYTES}", hello, "size"
    )
    proof: Any = decode(golden.MP.proof)
    attested = {f"k{count:02}": {1: big[:1024], 2: big[:1024], 3: big[:64]} for count in range(18)}
    csrs = {f"k{count:02}": big[:2048] for count in range(16)}
    raw = encode({**proof, 5: csrs, 6: attested})
    yield _vector("a proof full of requests", "proof", f"proof: longer than {limits.PROOF_MAX_BYTES}", raw, "size")
    for message, raw, shape, high in (
        ("hello", golden.MP.hello, HELLO, limits.HELLO_MAX_BYTES),
        ("proof", golden.MP.proof, PROOF, limits.PROOF_MAX_BYTES),
        ("closed", golden.CLOSED, CLOSED, limits.CLOSED_MAX_BYTES),
    ):
        padded = raw + bytes(high + 1 - len(raw))
        yield _vector(f"a {message} with a long rest", message, f"{shape.title}: longer than {high}", padded, "size")
