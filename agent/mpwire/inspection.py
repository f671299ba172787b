"""A decoded, commented print of any message or signed object, made from the tables that parse it.

Only what goes over the line can be shown. The contents of a Grant have no reader here: their plain text never
leaves the device, so there is nothing this module could print of it. Nothing is verified but the shape.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeVar

from mpwire import evidence, labels, limits, registry
from mpwire.bundle import HEAD_BYTES, MAGIC, read_bundle
from mpwire.bundlereceipt import split_receipts
from mpwire.codec import Tag, decode
from mpwire.cose import Sign1, read_key, read_sign1
from mpwire.errors import Malformed
from mpwire.keys import PublicKey
from mpwire.messages.bundle import BUNDLE, BUNDLE_RECEIPT, RECEIPT_ROW
from mpwire.messages.eat import CLAIMS
from mpwire.messages.grant import GRANT, RECEIPT
from mpwire.messages.issuer import ENTRY, HEAD, IMPORT_LIST, ISSUER_CERTIFICATE, ISSUER_CHAIN, TRUST_UPDATE
from mpwire.messages.plain import CHALLENGE, CLOSED, HASH, HELLO, MATERIAL, PROOF, REFUSAL
from mpwire.shape import Integer, ListOf, MapOf, Octets, Row, Shape, TableOf, Text
from mpwire.trust import CERTIFICATE_MAX_BYTES, ES256_ONLY
from mpwire.ueid import TPM_NAME_BYTES

T = TypeVar("T")

SHOWN_MAX_BYTES: Final = 128
"""Longest byte string printed in full; of a longer one its size and SHA-256. Keys, hashes and nonces are below."""
LIST_MAX_CHARACTERS: Final = 400
"""A list whose members take more is printed one member a line."""
BY_LENGTH: Final = frozenset({"grant.ciphertext", "receipt.escrow"})
"""Fields whose bytes are a secret under encryption: only their length is shown."""
BY_KEY_ID: Final = frozenset({"import-record.key"})
"""Fields shown as a key id: a TPM's Name as it is, else the SHA-256, for an MP public key may be a secret."""
MP_USE: Final = 4
"""Key of mp_use in an import-record. Of a key that is a secret its SHA-256 is not shown either (docs/wire.md 11)."""
INSPECTED_MAX_BYTES: Final = max(limits.MESSAGE_MAX_BYTES, limits.IMPORT_MAX_BYTES)
"""Most bytes of anything that can be shown; a message of the line has its own, lower bound."""


class Line(NamedTuple):
    """One printed thing and the things within it."""

    key: int | str | None
    """The map key on the wire; None where there is none (the whole, an array's member, a payload)."""
    name: str
    value: Any = None
    """What JSON can hold; None where `inside` says it all."""
    note: str = ""
    inside: tuple["Line", ...] = ()


RECEIPTS: Final = bytes(2)
"""What a receipts file begins with: the upper half of a length that is below 65,536. No message begins so."""


def describe_message(raw: bytes) -> dict[str, Any]:
    """The message as a tree for --json: name, key, value, note, inside. Raises Malformed naming the place."""
    return _to_tree(_describe(raw))


def inspect_message(raw: bytes) -> str:
    """The same tree as lines of text, one field a line. Raises Malformed naming the place; nothing is printed then."""
    return "\n".join(_to_text(_describe(raw), 0)) + "\n"


def _to_tree(line: Line) -> dict[str, Any]:
    tree: dict[str, Any] = {"name": line.name}
    if line.key is not None:
        tree["key"] = line.key
    if line.value is not None:
        tree["value"] = line.value
    if line.note:
        tree["note"] = line.note
    if line.inside:
        tree["inside"] = [_to_tree(one) for one in line.inside]
    return tree


def _to_text(line: Line, depth: int) -> Iterator[str]:
    head = "  " * depth + ("" if line.key is None else f"{line.key} ") + line.name
    if line.value is not None:
        value = ", ".join(map(str, line.value)) if isinstance(line.value, list) else line.value
        head += f" = {value}"
    yield f"{head:<60}  # {line.note}" if line.note else head
    for one in line.inside:
        yield from _to_text(one, depth + 1)


def _describe(raw: bytes) -> Line:
    if raw.startswith(MAGIC):
        return _describe_bundle(raw)
    if len(raw) > INSPECTED_MAX_BYTES:
        raise Malformed(f"message: longer than {INSPECTED_MAX_BYTES} bytes")
    if raw.startswith(RECEIPTS):
        return _describe_receipts(raw)
    item = decode(raw)
    if isinstance(item, Tag):
        return _describe_envelope(raw, "message")
    if isinstance(item, dict):
        if item.get(0) == registry.HELLO and isinstance(item.get(1), str):
            return _describe_map(raw, ENTRY, 4_096)
        if registry.CLAIM_PROFILE in item:
            return _describe_map(raw, CLAIMS, evidence.CLAIMS_MAX_BYTES)
        number = item.get(0)
        if isinstance(number, int) and number in _PLAIN:
            return _describe_map(raw, *_PLAIN[number])
    raise Malformed("message: neither a message of wire version 1 nor an object signed in one")


_PLAIN: Final[Mapping[int, tuple[MapOf[Any], int]]] = {
    registry.HELLO: (HELLO, limits.HELLO_MAX_BYTES),
    registry.CHALLENGE: (CHALLENGE, limits.CHALLENGE_MAX_BYTES),
    registry.PROOF: (PROOF, limits.PROOF_MAX_BYTES),
    registry.CLOSED: (CLOSED, limits.CLOSED_MAX_BYTES),
    registry.REFUSAL: (REFUSAL, limits.REFUSAL_MAX_BYTES),
}


def _describe_map(raw: bytes, shape: MapOf[Any], high: int) -> Line:
    shape.decode(raw, high)
    return _whole(shape.title, raw, _fields(shape, decode(raw)))


def _whole(name: str, raw: bytes, inside: tuple[Line, ...]) -> Line:
    return Line(None, name, f"{len(raw)} bytes, SHA-256 {sha256(raw).hexdigest()}", "", inside)


def _fields(shape: MapOf[Any], item: Any) -> tuple[Line, ...]:
    """The lines of a map that `shape` has read without complaint."""
    lines = [_constant(shape, key) for key in shape.constants]
    for field in shape.fields:
        if field.key in item:
            place = f"{shape.title}.{field.name}"
            if place in BY_KEY_ID and item.get(MP_USE) == "secret":
                lines.append(Line(field.key, field.name, f"{len(item[field.key])} bytes, not shown", field.note))
                continue
            lines.append(_describe_field(place, field.key, field.name, field.shape, item[field.key], field.note))
    return tuple(lines)


def _constant(shape: MapOf[Any], key: int) -> Line:
    value = shape.constants[key]
    if key == 0 and value in _PLAIN and _PLAIN[value][0] is shape:
        return Line(key, "message", value, f"says that this is a {shape.title}")
    return Line(key, "wire_version", value, "the one this table is of")


def _describe_field(place: str, key: int, name: str, shape: Shape, item: Any, note: str) -> Line:
    if place in BY_LENGTH:
        return Line(key, name, _lengths(item), note)
    if place in BY_KEY_ID and len(item) != TPM_NAME_BYTES:
        return Line(key, name, f"{len(item)} bytes, SHA-256 {sha256(item).hexdigest()}", note)
    if place in _NESTED:
        return Line(key, name, None, note, (_nested(_NESTED[place], item, place),))
    return _show(shape, item, key, name, note)


def _lengths(item: Any) -> str:
    if isinstance(item, bytes):
        return f"{len(item)} bytes"
    return ", ".join(f"{slot}: {len(sealed)} bytes" for slot, (_, sealed) in item.items()) or "none"


def _nested(describe: Callable[[bytes], T], raw: bytes, place: str) -> T:
    try:
        return describe(raw)
    except Malformed as error:
        raise Malformed(f"{place}: {error}") from None


def _show(shape: Shape, item: Any, key: int | str | None, name: str, note: str = "") -> Line:
    """One item of any shape. Byte strings print as hex, a public key as its point."""
    if isinstance(shape, MapOf):
        return Line(key, name, None, note, _fields(shape, item))
    if isinstance(shape, PublicKey):
        return Line(key, name, f"point {read_key(item).hex()}", note)
    if isinstance(shape, TableOf):
        inside = tuple(_show(shape.of, one, of, "") for of, one in item.items())
        return Line(key, name, None if inside else "none", note, inside)
    if isinstance(shape, ListOf | Row):
        shapes = shape.places if isinstance(shape, Row) else (shape.of,) * len(item)
        inside = tuple(_show(of, one, None, "-") for of, one in zip(shapes, item, strict=True))
        if any(one.inside for one in inside) or len(str(inside)) > LIST_MAX_CHARACTERS:
            return Line(key, name, None, note, inside)
        return Line(key, name, [one.value for one in inside], note)
    return Line(key, name, _show_bytes(item) if isinstance(item, bytes) else item, note)


def _show_bytes(item: bytes) -> str:
    if len(item) <= SHOWN_MAX_BYTES:
        return item.hex()
    return f"{len(item)} bytes, SHA-256 {sha256(item).hexdigest()}"


class _Envelope(NamedTuple):
    """How one kind of COSE_Sign1 is read. `payload` is None where another envelope lies inside."""

    title: str
    payload: MapOf[Any] | None
    high: int
    """Most bytes of the payload map."""
    allowed: frozenset[int] = frozenset()
    """Protected headers beside alg and typ."""
    required: frozenset[int] = frozenset()


_CHAIN: Final = frozenset({registry.HEADER_ISSUER_CHAIN})
_KID: Final = frozenset({registry.HEADER_KID})
_ENVELOPES: Final[Mapping[str, _Envelope]] = {
    labels.TYP_EVIDENCE: _Envelope("evidence", None, 0),
    labels.TYP_EAT: _Envelope("eat", CLAIMS, evidence.CLAIMS_MAX_BYTES),
    labels.TYP_GRANT: _Envelope(
        "grant", GRANT, limits.GRANT_MAX_BYTES, _CHAIN | {registry.HEADER_TRUST_UPDATE}, _CHAIN
    ),
    labels.TYP_RECEIPT: _Envelope("receipt", RECEIPT, limits.RECEIPT_MAX_BYTES),
    labels.TYP_HEAD: _Envelope("head", HEAD, CERTIFICATE_MAX_BYTES, _CHAIN, _CHAIN),
    labels.TYP_ISSUER_CERTIFICATE: _Envelope("issuer-certificate", ISSUER_CERTIFICATE, CERTIFICATE_MAX_BYTES),
    labels.TYP_TRUST_UPDATE: _Envelope(
        *("trust-update", TRUST_UPDATE, CERTIFICATE_MAX_BYTES),
        _KID,
        _KID,
    ),
    labels.TYP_IMPORT: _Envelope("import-list", IMPORT_LIST, limits.IMPORT_MAX_BYTES, _KID, _KID),
    labels.TYP_BUNDLE: _Envelope(
        *("bundle", BUNDLE, limits.BUNDLE_MANIFEST_MAX_BYTES),
        _CHAIN | _KID | {registry.HEADER_TRUST_UPDATE},
    ),
    labels.TYP_BUNDLE_RECEIPT: _Envelope("bundle-receipt", BUNDLE_RECEIPT, limits.RECEIPT_MAX_BYTES),
}


def _describe_envelope(raw: bytes, place: str) -> Line:
    """A COSE_Sign1 of any kind: the protected `typ` says which."""
    typ = _read_typ(raw)
    if typ not in _ENVELOPES:
        raise Malformed(f"{place}: cose-typ")
    kind = _ENVELOPES[typ]
    if kind.payload is None:
        return _describe_evidence(raw)
    sign1 = read_sign1(raw, typ=typ, algs=ES256_ONLY, protected_allowed=kind.allowed)
    if not kind.required <= sign1.headers.keys():
        raise Malformed(f"{kind.title}: cose-header")
    payload = _describe_map(sign1.payload, kind.payload, kind.high)._replace(name="payload")
    return _whole(kind.title, raw, (*_headers(sign1), payload, Line(None, "signature", _show_bytes(sign1.signature))))


def _read_typ(raw: bytes) -> str:
    """The typ header as it stands, before any reader has agreed; empty where there is none."""
    tagged = decode(raw)
    parts = tagged.value if isinstance(tagged, Tag) else None
    if not isinstance(parts, list) or not parts or not isinstance(parts[0], bytes):
        raise Malformed("cose-structure")
    headers = decode(parts[0]) if parts[0] else {}
    typ = headers.get(registry.HEADER_TYP) if isinstance(headers, dict) else None
    return typ if isinstance(typ, str) else ""


def _describe_bundle(raw: bytes) -> Line:
    """The manifest. What stands behind it may be missing here, and is secret under encryption: its places are told."""
    frame = read_bundle(io.BytesIO(raw))
    start = frame.places[0].offset
    manifest = _only(labels.TYP_BUNDLE)(raw[HEAD_BYTES:start])
    places = tuple(
        Line(None, one.name, f"{place.length} bytes from byte {place.offset}", "ciphertext, in chunks")
        for one, place in zip(frame.bundle.components, frame.places, strict=True)
    )
    note = "not looked at: `mpserver bundle verify` does, and a board"
    payload = Line(None, "payload", f"{frame.end - start} bytes", note, places)
    return Line(None, "bundle-file", f"{frame.end} bytes where it is whole", "", (manifest, payload))


def _describe_receipts(raw: bytes) -> Line:
    rows = tuple(_describe_row(number, row) for number, row in enumerate(split_receipts(io.BytesIO(raw)), 1))
    return _whole("receipts-file", raw, rows)


def _describe_row(number: int, row: bytes) -> Line:
    place = f"receipts-file: receipt {number}"
    signed, mac = _nested(lambda raw: RECEIPT_ROW.read(decode(raw), "bundle-receipt"), row, place)
    seal = Line(None, "MAC", f"{len(mac)} bytes", "by whoever holds the key that the bundle is under")
    return Line(None, f"receipt {number}", None, "", (_nested(_only(labels.TYP_BUNDLE_RECEIPT), signed, place), seal))


def _describe_evidence(raw: bytes) -> Line:
    outer = evidence.read_outer(raw)
    signature = Line(None, "signature", _show_bytes(outer.signature))
    if outer.alg == registry.ALG_TPM_QUOTE_ES256:
        attest, quoted, _ = evidence.read_quote(outer)
        inside = (Line(None, "TPMS_ATTEST", attest.hex()), Line(None, "r || s", quoted.hex()))
        signature = Line(None, "signature", None, "of a quote: [TPMS_ATTEST, r || s]", inside)
    elif outer.alg == registry.ALG_MP_ES256:
        evidence.read_mpmr(outer)
    elif outer.alg == registry.ALG_OPTEE_PS256:
        measurement, signed = evidence.read_optee(outer)
        inside = (Line(None, "measurement", measurement.hex()), Line(None, "RSA-PSS", _show_bytes(signed)))
        signature = Line(None, "signature", None, "of OP-TEE's attestation PTA: [measurement, signature]", inside)
    elif outer.alg == registry.ALG_ES256:
        evidence.check_bare(outer)
    if _read_typ(outer.payload) != labels.TYP_EAT:
        raise Malformed("evidence: cose-typ")
    inner = _nested(lambda inside: _describe_envelope(inside, "eat"), outer.payload, "evidence")
    return _whole("evidence", raw, (*_headers(outer), inner, signature))


ALG_NAMES: Final[Mapping[int, str]] = {
    registry.ALG_ES256: "ES256",
    registry.ALG_MP_ES256: "MP-ES256",
    registry.ALG_MP_ES384: "MP-ES384",
    registry.ALG_MP_ES512: "MP-ES512",
    registry.ALG_TPM_QUOTE_ES256: "TPM-QUOTE-ES256",
    registry.ALG_OPTEE_PS256: "OPTEE-PS256",
}
HEADERS: Final[Mapping[int, tuple[str, Shape, str]]] = {
    registry.HEADER_ALG: ("alg", Integer(-1, -100_000), "signature algorithm, out of the closed list"),
    registry.HEADER_KID: ("kid", HASH, "trust update, import list, bundle: thumbprint of the key that signed"),
    registry.HEADER_TYP: ("typ", Text(limits.NAME_MAX_BYTES), "what kind of object this is"),
    registry.HEADER_MPMR: ("mpmr", Octets(32), "unprotected, MP: register the chip hashed before the message"),
    registry.HEADER_PROFILE: ("profile", MATERIAL.fields[2].shape, "MP: who wrote the claims"),
    registry.HEADER_ISSUER_CHAIN: ("issuer-chain", ISSUER_CHAIN, "issuer certificates, leaf first"),
    registry.HEADER_ATTEST_PCRS: ("pcrs", evidence.PCRS, "unprotected, TPM: [index, value] of every PCR quoted"),
    registry.HEADER_TRUST_UPDATE: ("trust-update", Octets(1, 8_192), "a trust update to apply before anything else"),
}
"""Name, shape and words of each header parameter that may occur."""


def _headers(sign1: Sign1) -> tuple[Line, ...]:
    return tuple(_describe_header(key, one) for key, one in (*sign1.headers.items(), *sign1.unprotected.items()))


def _describe_header(key: int | str, item: Any) -> Line:
    if not isinstance(key, int) or key not in HEADERS:
        raise Malformed("cose-header")
    name, shape, note = HEADERS[key]
    shape.read(item, name)
    if key == registry.HEADER_ISSUER_CHAIN:
        describe = _only(labels.TYP_ISSUER_CERTIFICATE)
        return Line(key, name, None, note, tuple(_nested(describe, one, name) for one in item))
    if key == registry.HEADER_TRUST_UPDATE:
        return Line(key, name, None, note, (_nested(_only(labels.TYP_TRUST_UPDATE), item, name),))
    shown = _show(shape, item, key, name, note)
    if key == registry.HEADER_ALG:
        return Line(key, name, f"{item} ({ALG_NAMES[item]})", note)
    return shown


def _only(typ: str) -> Callable[[bytes], Line]:
    """Describe an envelope of exactly this typ."""

    def describe(raw: bytes) -> Line:
        if _read_typ(raw) != typ:
            raise Malformed("cose-typ")
        return _describe_envelope(raw, "")

    return describe


_NESTED: Final[Mapping[str, Callable[[bytes], Line]]] = {
    "proof.evidence": _describe_evidence,
    "proof.hello": lambda raw: _describe_map(raw, *_PLAIN[registry.HELLO]),
    "proof.challenge": lambda raw: _describe_map(raw, *_PLAIN[registry.CHALLENGE]),
    "closed.entry": lambda raw: _describe_map(raw, ENTRY, 4_096),
    "closed.head": _only(labels.TYP_HEAD),
}
"""Byte strings that hold a message or signed object of their own."""
