"""Private keys, told from what only looks like one by loading them. A key is named by its public half."""

import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    load_ssh_private_key,
)

from mpserver.scan.curve import has_key
from mpserver.scan.filters import Sought
from mpserver.scan.findings import Kind, Severity, Verdict
from mpserver.scan.marks import Mark
from mpserver.scan.regions import Region
from mpwire.p256 import write_spki

_BEGIN: Final = re.compile(rb"-----BEGIN ((?:[A-Z0-9]+ ){0,3})PRIVATE KEY-----$")
_BODY: Final = re.compile(rb"[\s\"\\nr]{0,8}(?:[A-Za-z0-9+/]{24}|Proc-Type: |Version: )")
_PEM_MAX_BYTES: Final = 16_384
_DER_MAX_BYTES: Final = 12_288
"""A private key of RSA with 16384 bits takes 9 KiB."""
_EDWARDS_BYTES: Final = 16
_RANDOM_MIN: Final = 22
"""Different bytes among 32 random ones; fewer come once in 10 million keys, and of constants nearly always."""
_JWK_D: Final = re.compile(rb'"d"\s*:\s*"[A-Za-z0-9_-]{40,}"')
_REFUSED: Final = (ValueError, TypeError, UnsupportedAlgorithm)


def judge_pem(region: Region, at: int, mark: Mark, sought: Sequence[Sought]) -> Iterator[Verdict]:
    """A BEGIN line with a body; programs that write PEM have the line alone."""
    start = max(0, at - 48)
    begin = _BEGIN.search(region.read(start, at - start + len(mark.literal)))
    body = region.read(at + len(mark.literal), 64)
    if begin is None or not _BODY.match(body):
        return
    kind = begin[1].decode().strip()
    offset = start + begin.start()
    form = " ".join(f"PEM {kind} PRIVATE KEY".split())
    if kind == "ENCRYPTED" or b"Proc-Type: 4,ENCRYPTED" in body:
        yield Verdict(Kind.PRIVATE_KEY, form, Severity.REVIEW, "a private key under a password", offset)
        return
    pem = _cut_pem(region.read(offset, _PEM_MAX_BYTES), kind)
    loaded = None if pem is None else _name_pem(pem, kind)
    if loaded is not None:
        yield Verdict(Kind.PRIVATE_KEY, form, Severity.LEAK, f"a private key ({form})", offset, key=loaded)
    elif pem is not None:
        said = "what begins like a private key and does not load: of a rare kind, damaged, or under a password"
        yield Verdict(Kind.PRIVATE_KEY, form, Severity.REVIEW, said, offset, key=sha256(pem).hexdigest())
    else:
        said = "the beginning of a private key, cut off"
        yield Verdict(Kind.PRIVATE_KEY, form, Severity.REVIEW, said, offset)


def _cut_pem(text: bytes, kind: str) -> bytes | None:
    """The block as a file would have it, whatever stood for its line ends."""
    tail = f"-----END {kind} PRIVATE KEY-----".replace("  ", " ").replace("END  ", "END ").encode()
    end = text.find(tail)
    if end < 0:
        return None
    head = text.index(b"PRIVATE KEY-----") + 16
    body = re.sub(rb"\\[nr]|[\s\"'\\]", b"", text[head:end])
    lines = [body[one : one + 64] for one in range(0, len(body), 64)]
    return b"\n".join([text[:head], *lines, tail]) + b"\n"


def _name_pem(pem: bytes, kind: str) -> str | None:
    try:
        key = load_ssh_private_key(pem, None) if kind == "OPENSSH" else load_pem_private_key(pem, None)
        return _name(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    except _REFUSED:
        return None


def _name(spki: bytes) -> str:
    return sha256(spki).hexdigest()


def judge_der(region: Region, at: int, mark: Mark, sought: Sequence[Sought]) -> Iterator[Verdict]:
    """The structure around the mark has to load."""
    if mark.literal[:1] == b"\x30":
        der = region.read(at, _EDWARDS_BYTES + 32)
        name = _name_der(der) if len(set(der[_EDWARDS_BYTES:])) >= _RANDOM_MIN else None
        if name is not None:
            yield _tell_der("PKCS#8", at, name)
        return
    for head in (2, 3, 4):
        start = at - head
        size = _read_size(region.read(start, head), head) if start >= 0 else None
        if size is None or size > _DER_MAX_BYTES:
            continue
        der = region.read(start, head + size)
        name = _name_ec(region, start, der) if mark.form == "SEC1" else _name_der(der)
        if name is not None:
            yield _tell_der(mark.form, start, name)
            return


def _tell_der(form: str, offset: int, name: str) -> Verdict:
    said = f"a private key (DER, {form})"
    return Verdict(Kind.PRIVATE_KEY, f"DER {form}", Severity.LEAK, said, offset, key=name)


def _read_size(head: bytes, length: int) -> int | None:
    """Content length of a SEQUENCE whose head has this length; None where it is none."""
    if len(head) != length or head[0] != 0x30:
        return None
    if length == 2:
        return head[1] if head[1] < 0x80 else None
    return int.from_bytes(head[2:], "big") if head[1] == 0x80 + length - 2 else None


def _name_ec(region: Region, start: int, der: bytes) -> str | None:
    """ECPrivateKey alone names its curve; inside PKCS#8 the curve stands before it."""
    name = _name_der(der)
    before = region.read(max(0, start - 32), min(32, start))
    if name is not None or b"\x2a\x86\x48\xce\x3d\x02\x01" not in before:
        return name
    wholes = (_name_der(region.read(start - back, len(der) + back)) for back in range(23, 30) if start >= back)
    return next((one for one in wholes if one is not None), None)


def _name_der(der: bytes) -> str | None:
    try:
        key = load_der_private_key(der, None)
        return _name(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    except _REFUSED:
        return None


def judge_cose(region: Region, at: int, mark: Mark, sought: Sequence[Sought]) -> Iterator[Verdict]:
    """A COSE_Key on P-256 with its d (label -4), which has to fit its X and Y."""
    text = region.read(at, 3 * 35 + 5)
    x, y, d = text[5:37], text[40:72], text[75:107]
    if text[37:40] == b"\x22\x58\x20" and text[72:75] == b"\x23\x58\x20" and has_key(d, x + y):
        name = _name(write_spki(b"\x04" + x + y))
        said = "a private key (COSE_Key with d)"
        yield Verdict(Kind.PRIVATE_KEY, "COSE_Key", Severity.LEAK, said, at, key=name)


def judge_jwk(region: Region, at: int, mark: Mark, sought: Sequence[Sought]) -> Iterator[Verdict]:
    """An object with the member d beside kty."""
    start = max(0, at - 2048)
    text = region.read(start, 4096)
    begin, end = text.rfind(b"{", 0, at - start + 1), text.find(b"}", at - start)
    if begin >= 0 and _JWK_D.search(text[begin : end if end >= 0 else len(text)]):
        yield Verdict(Kind.PRIVATE_KEY, "JWK", Severity.LEAK, "a private key (JWK with d)", start + begin)
