"""MP signatures: in U-Boot's log, and in evidence that an mpagent made. One is enough to compute the key.

64 bytes of r || s alone look like any other 64 bytes; these two forms bring what was signed along.
"""

import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final

from mpserver.console import Signed, clean, read_console
from mpserver.errors import LogWrong
from mpserver.scan.curve import recover_keys
from mpserver.scan.filters import Sought
from mpserver.scan.findings import Kind, Severity, Verdict
from mpserver.scan.marks import Mark
from mpserver.scan.regions import Region
from mpwire import labels, mp, registry
from mpwire.codec import decode
from mpwire.cose import sig_structure
from mpwire.errors import Malformed

_LOG_BEFORE_BYTES: Final = 16_384
"""A message of 4 KiB takes 12 KiB of a log."""
_LOG_AFTER_BYTES: Final = 1_024
_PAIR: Final = re.compile(r"[Cc]:\s*([0-9A-Fa-f]{64}|[0-9A-Fa-f]{96})\s+d:\s*([0-9A-Fa-f]{96}|[0-9A-Fa-f]{64})\b")
_ENVELOPE_MAX_BYTES: Final = 8_192
_ITEMS_MAX: Final = 64


def judge_log(region: Region, at: int, mark: Mark, sought: Sequence[Sought]) -> Iterator[Verdict]:
    """The `mfgprot sign` that this label belongs to."""
    start = max(0, at - _LOG_BEFORE_BYTES)
    text = region.read(start, at - start + _LOG_AFTER_BYTES)
    begin = text.rfind(b"Signing message with", 0, at - start + 1)
    tail = text[max(0, begin) :]
    tail = tail[: tail.find(b"\0", max(0, at - start - max(0, begin))) % (len(tail) + 1)]
    for one in _read_signed(tail):
        yield _tell(one, sought, at if begin < 0 else start + begin)
        return
    if mark.form == "half":
        lines = "\n".join(clean(text[max(0, at - start - 256) : at - start + 256]))
        if _PAIR.search(lines):
            said = "what looks like c and d of an MP signature; without its message nobody can tell by which key"
            yield Verdict(Kind.MP_SIGNATURE, "U-Boot log", Severity.REVIEW, said, at)


def _read_signed(text: bytes) -> list[Signed]:
    try:
        return read_console(text).signed
    except LogWrong:
        return []


def _tell(signed: Signed, sought: Sequence[Sought], at: int) -> Verdict:
    if signed.curve != "P-256":
        said = f"an MP signature on {signed.curve}, with its message"
        return Verdict(Kind.MP_SIGNATURE, "U-Boot log", Severity.REVIEW, said, at)
    digests = {sha256(mpmr + signed.message).digest() for mpmr in (mp.MPMR_ZERO, mp.MPMR_OPTEE, mp.MPMR_OPTEE_FIXED)}
    if signed.digest is not None:
        digests = {signed.digest}
    return _weigh("U-Boot log", digests, signed.signature, sought, at)


def judge_evidence(region: Region, at: int, mark: Mark, sought: Sequence[Sought]) -> Iterator[Verdict]:
    """A COSE_Sign1 whose protected header, a map that begins just before the mark, says MP-ES256."""
    for back in (2, 3):  # head of the byte string and of the map; the array's head before them
        start = at - back - 1
        envelope = region.read(start, _ENVELOPE_MAX_BYTES) if start >= 0 else b""
        if envelope[:1] != b"\x84":
            continue
        try:
            protected, beside, payload, signature = _read_envelope(envelope)
        except Malformed:
            continue
        mpmr = beside.get(registry.HEADER_MPMR)
        mpmrs = [mpmr] if isinstance(mpmr, bytes) else [mp.MPMR_ZERO, mp.MPMR_OPTEE, mp.MPMR_OPTEE_FIXED]
        signed = sig_structure(protected, labels.AAD_EVIDENCE, payload)
        digests = {sha256(one + signed).digest() for one in mpmrs}
        yield _weigh("evidence", digests, signature, sought, start)
        return


def _read_envelope(raw: bytes) -> tuple[bytes, dict[int | str, object], bytes, bytes]:
    """Protected header, unprotected map, payload and signature. Raises Malformed."""
    item = decode(raw[: _measure(raw)])
    if not isinstance(item, list) or len(item) != 4:
        raise Malformed("cose-structure")
    protected, beside, payload, signature = item
    if not (
        isinstance(protected, bytes)
        and isinstance(beside, dict)
        and isinstance(payload, bytes)
        and isinstance(signature, bytes)
    ):
        raise Malformed("cose-structure")
    return protected, {**beside}, payload, signature


def _measure(raw: bytes) -> int:
    """Length of the first CBOR item of definite length (RFC 8949 section 3). Raises Malformed."""
    at, left, items = 0, 1, 0
    while left:
        items += 1
        if at >= len(raw) or items > _ITEMS_MAX:
            raise Malformed("cbor-truncated")
        major, low = raw[at] >> 5, raw[at] & 31
        if low > 27:
            raise Malformed("cbor-length")
        width = 0 if low < 24 else 1 << (low - 24)
        value = low if low < 24 else int.from_bytes(raw[at + 1 : at + 1 + width], "big")
        at += 1 + width
        left += {4: value, 5: 2 * value, 6: 1}.get(major, 0) - 1
        at += value if major in (2, 3) else 0
        if left > _ITEMS_MAX or at > len(raw):
            raise Malformed("cbor-truncated")
    return at


def _weigh(form: str, digests: set[bytes], signature: bytes, sought: Sequence[Sought], at: int) -> Verdict:
    keys = {key for digest in digests for key in recover_keys(digest, signature)}
    if any(one.is_key(key) for one in sought for key in keys):
        said = "an MP signature by the key of this product, with its message: the key follows from it"
        return Verdict(Kind.MP_SIGNATURE, form, Severity.LEAK, said, at)
    said = "an MP signature, with its message, by none of the keys sought"
    return Verdict(Kind.MP_SIGNATURE, form, Severity.REVIEW, said, at)
