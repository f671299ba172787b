"""An MP public key that is to be a secret, out of what a person has: 64 raw bytes, hex, PEM, JSON, or a U-Boot log.

What was read lies in one bytearray, which is overwritten at the end. Text is another matter: a hex file, a PEM and a
log pass through strings that Python may copy and does not overwrite; they are gone with the process (docs/threats.md).
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from mpserver.console import LOG_MAX_BYTES, read_console
from mpserver.errors import LogWrong, NeedsPerson, Usage
from mpserver.keyrecords import PART_MAX
from mpserver.mpfinding import weigh
from mpserver.mpuse import PUBLISHES
from mpwire import p256
from mpwire.errors import Malformed
from mpwire.mpk import MPK_BYTES, HiddenMpKey

_HEX: Final = re.compile(rb"(?:0x)?[0-9A-Fa-f:\s]+")
_TEXT_MAX_BYTES: Final = 4_096
"""A key in hexadecimal, a PEM of some 180 bytes, or a record of mpsim."""


class FoundKey(NamedTuple):
    """A key, and what stood beside it."""

    key: HiddenMpKey
    origin: str = "silicon"
    part: str = ""
    has_signed: bool = False
    """The log holds a signature by it: it is no secret any more."""


@contextmanager
def reading(path: Path) -> Iterator[FoundKey]:
    """The key of a file or, for "-", of standard input; it and what was read are overwritten at the end.

    Raises Usage, LogWrong, NeedsPerson: a file with no such key, a part's log that gives none that counts.
    """
    raw = _read(path)
    found = None
    try:
        found = _find_key(raw)
        yield found
    except Malformed as error:
        raise Usage(f"{path}: no MP public key of P-256: {error}") from error
    finally:
        raw[:] = bytes(len(raw))
        if found is not None:
            found.key.wipe()


def _read(path: Path) -> bytearray:
    if str(path) == "-" and sys.stdin is None:
        raise Usage("cannot read standard input: it is closed")
    raw = bytearray(LOG_MAX_BYTES + 1)
    try:
        with open(0 if str(path) == "-" else path, "rb", buffering=0) as file:
            size = 0
            while size < len(raw) and (count := file.readinto(memoryview(raw)[size:])):
                size += count
    except OSError as error:
        raise Usage(f"cannot read {path}: {error.strerror}") from error
    if size > LOG_MAX_BYTES:
        raise Usage(f"{path} is longer than {LOG_MAX_BYTES} bytes: cut out the part around mfgprot")
    del raw[size:]
    return raw


def _find_key(raw: bytearray) -> FoundKey:
    if len(raw) == MPK_BYTES or (len(raw) == p256.POINT_BYTES and raw[0] == 4):
        return FoundKey(HiddenMpKey(raw[-MPK_BYTES:]))
    if len(raw) <= _TEXT_MAX_BYTES:
        text = raw.strip()
        if text.startswith(b"{"):
            return _read_record(text)
        if text.startswith(b"-----BEGIN"):
            return FoundKey(_read_pem(text))
        if _HEX.fullmatch(text):
            return FoundKey(_read_digits(text))
    return _read_log(raw)


def _read_digits(text: bytearray) -> HiddenMpKey:
    try:
        point = bytearray.fromhex(text.removeprefix(b"0x").replace(b":", b"").decode("ascii"))
    except ValueError:
        raise Malformed("not pairs of hexadecimal digits") from None
    if len(point) == p256.POINT_BYTES and point[0] == 4:
        del point[0]
    if len(point) != MPK_BYTES:
        raise Malformed(f"{len(point)} bytes in hexadecimal; X || Y has {MPK_BYTES}")
    return HiddenMpKey(point)


def _read_pem(text: bytearray) -> HiddenMpKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    if b"PRIVATE KEY" in text:
        raise Usage("that is a private key, which no chip gives away: an MP key is imported by its public half")
    try:
        der = load_pem_public_key(bytes(text)).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed("not a PEM public key") from None
    return HiddenMpKey(p256.read_spki(der)[1:])


def _read_record(text: bytearray) -> FoundKey:
    """As `mpsim mp-key --json` prints one."""
    import json

    try:
        told = json.loads(text)
        key = HiddenMpKey(bytearray.fromhex(told["public_key"]))
        origin, part, use = told["origin"], told.get("part", ""), told.get("use", "class")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Malformed("not a record with public_key and origin, as `mpsim mp-key --json` prints it") from None
    if origin not in ("silicon", "simulated") or not isinstance(part, str) or len(part) > PART_MAX:
        raise Malformed('origin must be "silicon" or "simulated", and part a short text')
    if use != "class":
        raise NeedsPerson("this is the test key of open parts, which every open part has: it is no secret")
    return FoundKey(key, origin, part)


def _read_log(raw: bytearray) -> FoundKey:
    console = read_console(bytes(raw))
    found = weigh(console)
    if found.key is None:
        raise LogWrong("no whole public key is in the log: run `mfgprot pubk` on the board")
    if found.curve != "P-256":
        raise NeedsPerson("profile-unverified: MP on P-384 is not taken: nobody verified a real part of one")
    if console.is_open:
        raise NeedsPerson("the log is of an open part, whose key all open parts share: close it, then read the key")
    return FoundKey(HiddenMpKey(found.key), has_signed=bool(found.signatures))


def refuse_signed() -> NeedsPerson:
    """Of a log that holds a signature."""
    return NeedsPerson(
        f"mp-use: this log holds a signature by the key, and {PUBLISHES}. Nothing was kept, and the key is remembered"
        " as burnt; another set of SRK fuses makes another key. Next time run `mfgprot pubk` alone"
    )
