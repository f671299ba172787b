"""An MP public key that is a secret, as somebody hands it over: a file with it, or a U-Boot console."""

from pathlib import Path
from typing import Final

from mpserver.console import LOG_MAX_BYTES, Console, read_console
from mpserver.errors import LogWrong, NeedsPerson, Usage
from mpserver.handed import open_plain
from mpwire.errors import Malformed
from mpwire.mpk import MPK_BYTES, HiddenMpKey

_RAW_SIZES: Final = (MPK_BYTES, MPK_BYTES + 1)
"""X || Y, or 04 before it."""
_DIGITS: Final = tuple(2 * one for one in _RAW_SIZES)


def read_hidden_key(path: Path) -> HiddenMpKey:
    """From 64 bytes X || Y or 65 with 04, the same in hexadecimal, or the console of `mfgprot pubk`.

    Raises Usage, LogWrong, and NeedsPerson for a console in which the key signed: it is no secret any more.
    """
    with open_plain(path) as file:
        raw = bytearray(file.read(LOG_MAX_BYTES + 1))
    try:
        return _find_key(path, raw)
    finally:
        raw[:] = bytes(len(raw))


def _find_key(path: Path, raw: bytearray) -> HiddenMpKey:
    if len(raw) > LOG_MAX_BYTES:
        raise Usage(f"{path} is longer than {LOG_MAX_BYTES} bytes: cut out the part around mfgprot")
    digits = b"".join(raw.split())
    try:
        if len(raw) in _RAW_SIZES:
            return HiddenMpKey(_strip(raw))
        if len(digits) in _DIGITS and digits.isalnum():
            return HiddenMpKey(_strip(bytearray.fromhex(digits.decode("ascii"))))
        return HiddenMpKey(_take_from(read_console(bytes(raw)), path))
    except (Malformed, ValueError):  # their texts may repeat what was read
        raise LogWrong(f"{path} holds no MP public key of P-256: 64 bytes X || Y, 128 digits, or a console") from None


def _strip(raw: bytearray) -> bytearray:
    return raw[-MPK_BYTES:] if len(raw) == MPK_BYTES or raw[0] == 4 else bytearray(MPK_BYTES)


def _take_from(console: Console, path: Path) -> bytes:
    if console.signed:
        raise NeedsPerson(
            f"{path} holds a signature by this key, and a signature gives the key away to whoever knows its message:"
            " the key is no secret, and nothing was done. Another SRK set makes another key"
        )
    if len(console.keys) != 1:
        raise LogWrong(f"{path} holds {len(console.keys)} MP public keys, not one")
    if console.is_open:
        raise NeedsPerson(f"{path} is the console of an open part: all open parts share one key, so it hides nothing")
    return console.keys[0]
