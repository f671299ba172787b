"""Which token an issuer's keys are in: keys/hsm.toml, written by `init`; and its PIN, which stands in no such file."""

import json
import os
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mpserver.errors import SetUp
from mpserver.keystore import Keystore
from mpwire.secret import Secret

FILE: Final = "hsm.toml"
ISSUER_BYTES: Final = 16
CHECK_BYTES: Final = 32
PIN_MAX_BYTES: Final = 255
"""Longest PIN taken, in bytes: SoftHSM2 takes as many."""
_TEXT_KEYS: Final = ("module", "token", "serial", "pin", "issuer", "check")


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """One token, and which keys in it are this issuer's."""

    module: Path
    token: str
    """Its label."""
    serial: str
    pin: str
    """A path from the root on; or a name, of a systemd credential."""
    issuer: bytes
    """16 random bytes, of which the ids of all objects are made."""
    check: bytes = b""
    """HMAC under the symmetric root over a fixed text, which tells this root from another; b"" while `init` runs."""


def has_settings(store: Keystore) -> bool:
    """Whether the keys of this keystore are in a token."""
    return store.has(FILE)


def write_settings(store: Keystore, settings: TokenSettings) -> None:
    """Whole or not at all."""
    texts = (str(settings.module), settings.token, settings.serial, settings.pin, settings.issuer.hex())
    lines = [
        f"{key} = {json.dumps(text, ensure_ascii=False)}"
        for key, text in zip(_TEXT_KEYS, (*texts, settings.check.hex()), strict=True)
    ]
    store.write_public(FILE, ("\n".join(lines) + "\n").encode())


def read_settings(store: Keystore, *, is_new: bool = False) -> TokenSettings:
    """Raises SetUp naming the key. `check` may be empty only while an init is at work or was cut (`is_new`)."""
    path = store.path / FILE
    try:
        found = tomllib.loads(store.read_public(FILE).decode())
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise SetUp(f"{path} is not TOML: {error}") from None
    strange = sorted(found.keys() - set(_TEXT_KEYS)) or [key for key in _TEXT_KEYS if key not in found]
    if strange or not all(isinstance(one, str) for one in found.values()):
        raise SetUp(f"{path}: {', '.join(strange) or 'a value'} is unknown, missing or no text")
    return TokenSettings(
        module=Path(found["module"]),
        token=found["token"],
        serial=found["serial"],
        pin=found["pin"],
        issuer=_read_hex(path, found, "issuer", ISSUER_BYTES),
        check=b"" if is_new and not found["check"] else _read_hex(path, found, "check", CHECK_BYTES),
    )


def name_pin(given: str) -> str:
    """As settings keep it: a path from the root on for what is a path or a file here, else a credential's name."""
    return str(Path(given).absolute()) if "/" in given or Path(given).exists() else given


def read_pin(name: str) -> Secret:
    """The PIN, without one trailing newline. Raises SetUp; the text never tells what was read."""
    path = _find_pin(name)
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            content = file.read(PIN_MAX_BYTES + 2)
    except OSError as error:
        raise SetUp(f"the PIN file {path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode) or stat.S_IMODE(found.st_mode) & 0o077:
        raise SetUp(f"the PIN file {path} is open to others: find out who read it, set a new PIN, then chmod 600 it")
    pin = content.removesuffix(b"\n")
    if not 1 <= len(pin) <= PIN_MAX_BYTES:
        raise SetUp(f"the PIN file {path} does not hold a PIN of 1 to {PIN_MAX_BYTES} bytes")
    try:
        pin.decode()
    except UnicodeDecodeError:
        raise SetUp(f"the PIN file {path} does not hold a PIN in UTF-8, which PKCS#11 wants") from None
    return Secret(pin)


def _find_pin(name: str) -> Path:
    path = Path(name)
    if path.is_absolute():
        return path
    folder = os.environ.get("CREDENTIALS_DIRECTORY")  # where systemd lays the credentials of a unit
    if "/" in name or not folder:
        raise SetUp(
            f"the PIN {name!r} is neither a path from the root on nor a credential of this unit: name a file of mode"
            " 600, or give the unit a LoadCredential= of that name"
        )
    return Path(folder) / name


def _read_hex(path: Path, found: dict[str, Any], key: str, size: int) -> bytes:
    try:
        value = bytes.fromhex(found[key])
    except ValueError:
        raise SetUp(f"{path}: {key} is not hexadecimal") from None
    if len(value) != size:
        raise SetUp(f"{path}: {key} has {2 * size} hex digits; restore it from the backup")
    return value
