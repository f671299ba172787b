"""mpissuer.ports.SecretVault in files of the keystore, for realm lab: `vault/`, 0700, one file of 0600 for each secret.

As with every key of the file keystore, whoever becomes this user or root reads what lies here.
"""

import hashlib
import hmac
import stat
from pathlib import Path
from typing import Final

from mpissuer.errors import KeptAlready, NotKept
from mpserver.errors import StateBroke, StoreDamaged
from mpserver.keystore import SYMMETRIC_BYTES, destroy_file, read_hex, sync_directory, write_file
from mpwire.errors import Malformed
from mpwire.secret import Secret

FOLDER: Final = "vault"
NAME_MAX_BYTES: Final = 64
"""In hexadecimal it is a file name, of which file systems take 255 bytes; a key id fits as text."""
_SUFFIX: Final = ".prk"


class FileVault:
    """Made by the first `keep`."""

    def __init__(self, keys: Path) -> None:
        self._folder = keys / FOLDER

    def keep(self, name: str, secret: Secret) -> None:
        """See ports.SecretVault. Raises StateBroke as well."""
        path = self._path(name)
        check_secret(secret)
        self._make_folder()
        if path.exists():
            raise already_kept(name)
        write_file(path, secret.reveal().hex().encode())

    def names(self) -> tuple[str, ...]:
        """Raises StoreDamaged for a file that no `keep` wrote, or that others may write beside."""
        try:
            mode = self._folder.stat().st_mode
            found = sorted(path.name for path in self._folder.glob(f"*{_SUFFIX}"))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StateBroke(f"cannot read {self._folder}: {error.strerror}") from error
        if stat.S_IMODE(mode) & 0o077:
            raise StoreDamaged(f"{self._folder} is open to others: find out who wrote there, then chmod go= it")
        return tuple(sorted(self._name_of(one) for one in found))

    def expand(self, name: str, info: bytes) -> Secret:
        """One block of HKDF: HMAC over info and the octet 1 (RFC 5869 section 2.3)."""
        secret = read_hex(self._find(name))
        return Secret(hmac.digest(secret.reveal(), info + b"\x01", hashlib.sha256))

    def destroy(self, name: str) -> None:
        """Overwritten, unlinked, synced."""
        destroy_file(self._find(name))

    def _find(self, name: str) -> Path:
        path = self._path(name)
        if not path.exists():
            raise not_kept(name)
        return path

    def _path(self, name: str) -> Path:
        check_name(name)
        return self._folder / f"{name.encode().hex()}{_SUFFIX}"

    def _name_of(self, file: str) -> str:
        try:
            return bytes.fromhex(file.removesuffix(_SUFFIX)).decode()
        except ValueError:
            raise StoreDamaged(f"{self._folder / file} was not written by mpserver: look where it comes from") from None

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self._folder.parent)
        except OSError as error:
            raise StateBroke(f"cannot make {self._folder}: {error.strerror}") from error


def check_name(name: str) -> None:
    """Raises Malformed."""
    if not 1 <= len(name.encode()) <= NAME_MAX_BYTES:
        raise Malformed(f"a name in the vault has 1 to {NAME_MAX_BYTES} bytes, not {len(name.encode())}")


def check_secret(secret: Secret) -> None:
    """Raises Malformed: a PRK of HKDF-SHA256 has the length of its hash, and tokens refuse shorter HMAC keys."""
    if len(secret) != SYMMETRIC_BYTES:
        raise Malformed(f"a secret in the vault has {SYMMETRIC_BYTES} bytes, not {len(secret)}")


def already_kept(name: str) -> KeptAlready:
    """With the next step."""
    return KeptAlready(f"the vault keeps a secret named {name!r} already: destroy it first, if it is no longer needed")


def not_kept(name: str) -> NotKept:
    """With the next step."""
    return NotKept(f"the vault keeps no secret named {name!r}: import it first, or look at the names it keeps")
