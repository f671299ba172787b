"""Why an MP signature verifies or does not: which MPMR the chip hashed before the message (docs/wire.md section 9)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from mpserver.console import Console, Signed
from mpserver.errors import LogWrong
from mpwire import mp, p256
from mpwire.errors import Malformed, Unauthentic

KNOWN: Final[Mapping[str, bytes]] = {
    "zero": mp.MPMR_ZERO,
    "optee-constant": mp.MPMR_OPTEE,
    "optee-constant-fixed": mp.MPMR_OPTEE_FIXED,
}
PRODUCT_WORDS: Final[Mapping[str, str]] = {
    "zero": "zero",
    "optee-constant": "optee",
    "optee-constant-fixed": "optee-fixed",
}
"""The same values as a product file says them."""
GIVEN: Final = "given"
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one signature."""

    verified: bool
    mpmr: str
    """zero, optee-constant, optee-constant-fixed, given, or unknown."""
    digest: bytes | None
    """SHA-256(MPMR || message) that was verified; None where none was."""
    tried: tuple[tuple[str, bytes], ...]
    """Name and digest of each candidate, in the order tried."""
    hint: str = ""
    """What else the signature fits, where no MPMR does."""


def explain(point: bytes, message: bytes, signature: bytes, given: bytes | None = None) -> Finding:
    """Try the MPMR given, then the known ones. With one given, only that one verifies; the others explain."""
    candidates = ([(GIVEN, given)] if given is not None else []) + list(KNOWN.items())
    tried = tuple((name, sha256(mpmr + message).digest()) for name, mpmr in candidates)
    for name, digest in tried:
        if _signs(point, digest, signature):
            return Finding(given is None or name == GIVEN, name, digest, tried)
    return Finding(False, UNKNOWN, None, tried, _find_hint(point, message, signature))


def _signs(point: bytes, digest: bytes, signature: bytes) -> bool:
    try:
        p256.verify_digest(point, digest, signature)
    except Unauthentic:
        return False
    return True


def _find_hint(point: bytes, message: bytes, signature: bytes) -> str:
    if not any(signature):
        return "the signature is all zeros: the driver clears its buffers first, so this is a call that failed"
    for words, digest, made in _near_misses(message, signature):
        if _signs(point, digest, made):
            return words
    return "another key, another message, or an MPMR of the OEM's own: give it with --mpmr"


def _near_misses(message: bytes, signature: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """Words, digest and signature of what people mix up."""
    yield "it fits the message without any MPMR: software made it, not the chip", sha256(message).digest(), signature
    turned = _turn_words(message)
    c_and_d = signature[32:] + signature[:32]
    for name, mpmr in KNOWN.items():
        once = sha256(mpmr + message).digest()
        yield (
            f"it fits MPMR {name} and the message with each 32-bit word turned round",
            *(
                sha256(mpmr + turned).digest(),
                signature,
            ),
        )
        yield (
            f"it fits MPMR {name} and the message's SHA-256: the message was hashed before",
            *(
                sha256(mpmr + sha256(message).digest()).digest(),
                signature,
            ),
        )
        yield f"it fits MPMR {name} once c and d change places", once, c_and_d
        for end, words in ((b"\n", "a newline"), (b"\x00", "a zero byte")):
            longer = sha256(mpmr + message + end).digest()
            yield f"it fits MPMR {name} and the message with {words} at its end", longer, signature
            if message.endswith(end):
                shorter = sha256(mpmr + message[:-1]).digest()
                yield f"it fits MPMR {name} and the message without {words} at its end", shorter, signature


def _turn_words(message: bytes) -> bytes:
    """As memory shows a number that `mw.l` wrote."""
    return b"".join(message[at : at + 4][::-1] for at in range(0, len(message), 4))


def load_key(raw: bytes) -> str:
    """The curve of X || Y. Raises Malformed: zero, off the curve, or of another size."""
    if not any(raw):
        raise Malformed("the public key is all zeros: a call that failed, or a part that gives no key")
    if len(raw) == 64:
        try:
            p256.load_point(b"\x04" + raw)
        except Malformed:
            raise Malformed("the public key is no point of P-256: digits are wrong") from None
        return "P-256"
    if len(raw) != 96:
        raise Malformed(f"a public key of {len(raw)} bytes: P-256 has 64, P-384 has 96")
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), b"\x04" + raw)
    except ValueError:
        raise Malformed("the public key is no point of P-384: digits are wrong") from None
    return "P-384"


@dataclass(frozen=True, slots=True)
class LogFinding:
    """What a console log says, with everything in it held against everything else."""

    key: bytes | None
    """X || Y."""
    curve: str | None
    key_id: bytes | None
    verified: bool | None
    """A signature in the log is by the key in the log; None where one of both is missing, or cannot be verified."""
    mpmr: str
    """By the digest that was printed; unknown too where the log has none."""
    digest: bytes | None
    signatures: int


def weigh(console: Console, given: bytes | None = None) -> LogFinding:
    """`given` is an MPMR to try before the known ones.

    Raises LogWrong: two keys, no point, a digest or signature that contradicts the rest, only a failure.
    """
    if len(console.keys) > 1:
        raise LogWrong("the log holds two different keys: hand over one board's log, or see `mpserver mp compare`")
    key = console.keys[0] if console.keys else None
    if key is None and not console.signed and console.failures:
        first = console.failures[0]
        raise LogWrong(f'line {first.line}: the boot loader says "{first.text}": {first.cause}')
    curve = None
    if key is not None:
        try:
            curve = load_key(key)
        except Malformed as error:
            raise LogWrong(f"line {console.key_line}: {error}") from None
    candidates = {**({} if given is None else {GIVEN: given}), **KNOWN}
    found = [_weigh_signature(one, key, candidates) for one in console.signed]
    names = {name for name, _, _ in found if name is not None}
    if len(names) > 1:
        raise LogWrong(f"the log holds signatures under two MPMRs ({', '.join(sorted(names))}): two boot chains")
    verdicts = {verdict for _, _, verdict in found if verdict is not None}
    return LogFinding(
        key=key,
        curve=curve or (console.signed[0].curve if console.signed else None),
        key_id=None if key is None else sha256(key).digest(),
        verified=True if verdicts else None,
        mpmr=names.pop() if names else UNKNOWN,
        digest=found[0][1] if found else None,
        signatures=len(found),
    )


def _weigh_signature(
    one: Signed, key: bytes | None, candidates: Mapping[str, bytes]
) -> tuple[str | None, bytes | None, bool | None]:
    """MPMR by name, digest, and True once verified. Raises LogWrong where the log contradicts itself."""
    if key is not None and len(key) != len(one.signature):
        raise LogWrong(f"line {one.line}: a signature of {one.curve} beside a key of another curve")
    if one.digest is None:
        return None, None, None
    fits = (name for name, mpmr in candidates.items() if sha256(mpmr + one.message).digest() == one.digest)
    name = next(fits, UNKNOWN)
    if key is None:
        return name, one.digest, None
    if not _signs(b"\x04" + key, one.digest, one.signature):
        raise LogWrong(
            f"line {one.line}: the digest printed is not what the key in this log signed: digits are wrong,"
            " or key and signature are of two boards"
        )
    return name, one.digest, True
