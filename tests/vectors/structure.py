"""Negative vectors of kind `structure`: every shape broken in every way its table allows to break it.

docs/wire.cddl must refuse them as well. What a schema cannot see has kinds of its own: `encoding`, `text`, `point`,
`size`.
"""

from collections.abc import Iterator
from typing import Any, Final

from mpwire import registry
from mpwire.codec import decode, encode
from tests.vectors import golden
from tests.vectors.format import PAYLOADS, Vector, write_bytes
from tests.vectors.mutation import break_map


def vectors() -> list[Vector]:
    """structure.json."""
    known = golden.messages()
    made = []
    for name, (message, shape, high, enveloped) in PAYLOADS.items():
        raw = golden.decode_eat(known[name][1]) if enveloped else known[name][1]
        item: Any = decode(raw)
        for what, rule, broken in break_map(shape, item, shape.title):
            payload = encode(broken)
            rule = f"{shape.title}: longer than" if len(payload) > high else rule
            made.append(_vector(f"{message} {what}", message, rule, golden.reseal(message, payload)))
        made.append(
            _vector(f"{message} as an array", message, f"{shape.title}: not a map", golden.reseal(message, b"\x80"))
        )
    return [*made, *_evidence()]


def _vector(name: str, message: str, rule: str, raw: bytes, kind: str = "structure") -> Vector:
    return {"name": name, "message": message, "kind": kind, "rule": rule, "bytes": write_bytes(raw)}


def _evidence() -> Iterator[Vector]:
    """What stands beside an attester's signature, and the signature of a quote."""
    for kind in ("mp", "tpm"):
        tagged: Any = decode(golden.messages()[f"evidence-{kind}"][1])
        protected, beside, inner, signature = tagged.value
        (key, value), *_ = beside.items()
        wrong: dict[str, tuple[str, Any]] = {
            "without it": ("evidence-headers", {}),
            "of the other kind": ("evidence-headers", {_OTHER[key]: value}),
            "of both kinds": ("evidence-headers", {key: value, _OTHER[key]: value}),
            "of another type": ("mpmr" if kind == "mp" else "pcrs", {key: "x"}),
        }
        for what, (rule, unprotected) in wrong.items():
            raw = b"\xd2" + encode([protected, unprotected, inner, signature])
            yield _vector(f"evidence-{kind} header {what}", "evidence", rule, raw)
    for what, rule, broken in (
        ("a bare r || s", "truncated", bytes([0x58, 0x40]) + bytes(10)),
        ("as a map", "quote: not an array", encode({})),
        ("with three places", "quote: not an array", encode([b"x", bytes(64), 0])),
        ("with r || s one byte short", "quote: not a byte string", encode([b"x", bytes(63)])),
    ):
        raw = b"\xd2" + encode([protected, beside, inner, broken])
        yield _vector(f"evidence-tpm signature {what}", "evidence", rule, raw)
    for what, rule, pcrs in (
        ("a PCR above 23", "pcrs: not an integer", [[24, bytes(32)]]),
        ("a PCR of 20 bytes", "pcrs: not a byte string", [[0, bytes(20)]]),
        ("25 PCRs", "pcrs: not an array", [[0, bytes(32)]] * 25),
    ):
        raw = b"\xd2" + encode([protected, {registry.HEADER_ATTEST_PCRS: pcrs}, inner, signature])
        yield _vector(f"evidence-tpm with {what}", "evidence", rule, raw)
    yield from _bare_evidence()


def _bare_evidence() -> Iterator[Vector]:
    """Nothing stands beside the signature of a card or of OP-TEE, and that of OP-TEE has two parts."""
    for kind in ("card", "optee"):
        tagged: Any = decode(golden.messages()[f"evidence-{kind}"][1])
        protected, _, inner, signature = tagged.value
        for what, beside in (
            ("an mpmr", {registry.HEADER_MPMR: bytes(32)}),
            ("PCRs", {registry.HEADER_ATTEST_PCRS: []}),
        ):
            raw = b"\xd2" + encode([protected, beside, inner, signature])
            yield _vector(f"evidence-{kind} beside {what}", "evidence", "evidence-headers", raw)
    for what, rule, broken in (
        ("as a map", "optee: not an array", encode({})),
        ("with three places", "optee: not an array", encode([bytes(32), bytes(384), 0])),
        ("with a measurement of 20 bytes", "optee: not a byte string", encode([bytes(20), bytes(384)])),
        ("of 2048 bits", "optee: not a byte string", encode([bytes(32), bytes(256)])),
    ):
        raw = b"\xd2" + encode([protected, {}, inner, broken])
        yield _vector(f"evidence-optee signature {what}", "evidence", rule, raw)


_OTHER: Final = {
    registry.HEADER_MPMR: registry.HEADER_ATTEST_PCRS,
    registry.HEADER_ATTEST_PCRS: registry.HEADER_MPMR,
}
