"""Keys in files, for realm lab: one directory, 0700, one PKCS#8 PEM file of 0600 for each key.

What lies here can be read by whoever becomes this user or root: that is why realm production wants a token.
A file is written whole or not at all; what does not parse, or is open to others, is reported and never replaced.
"""

import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from mpserver.errors import SetUp, StateBroke, StoreDamaged
from mpwire.secret import Secret

ROOT: Final = "root"
STANDBY: Final = "standby-root"
ROLES: Final = ("grant", "head", "bundle")
"""Keys with a certificate of docs/wire.md 5.1."""
CA: Final = "ca"
TLS: Final = "tls"
SYMMETRIC: Final = "symmetric.key"
LAST_HEAD: Final = "last-head"
SYMMETRIC_BYTES: Final = 32

PrivateKey = ec.EllipticCurvePrivateKey


class Keystore:
    """The directory. Knows names and files, not what the keys are for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offline = path.parent / "take-offline"
        self._jobs = path / "jobs"
        self._job_paths: dict[str, Path] = {}

    def make_directories(self) -> None:
        """Empty, closed to others. Raises SetUp where one stands already."""
        for one in (self.path, self._jobs, self.offline):
            try:
                one.mkdir(mode=0o700)
            except FileExistsError:
                raise SetUp(f"{one} exists already; `mpserver init` makes new keystores only") from None
            except OSError as error:
                raise StateBroke(f"cannot make {one}: {error.strerror}") from error

    def make_key(self, name: str) -> PrivateKey:
        """A fresh P-256 key, on disk before it is returned."""
        return make_key_file(self._key_path(name))

    def load_key(self, name: str) -> PrivateKey:
        """Raises StoreDamaged, SetUp."""
        return load_key_file(self._key_path(name))

    def check_directories(self) -> None:
        """Who may write here may put another key in. Raises StoreDamaged, SetUp, StateBroke."""
        for one in (self.path, self._jobs):
            try:
                _check_closed(one, one.stat().st_mode)
            except FileNotFoundError:
                raise SetUp(f"{one} is missing: run `mpserver init` first, or restore the keystore") from None
            except OSError as error:
                raise StateBroke(f"cannot read {one}: {error.strerror}") from error

    def key_file(self, name: str) -> Path:
        """For what reads PEM itself (the TLS listener)."""
        return self._key_path(name)

    def write_public(self, name: str, body: bytes) -> None:
        """A certificate or a point; replaces what stood there."""
        write_file(self.path / name, body, replace=True)

    def read_public(self, name: str) -> bytes:
        """Raises SetUp when it was never written."""
        return read_private(self.path / name)

    def has(self, name: str) -> bool:
        """Whether a file of this name stands here."""
        return (self.path / name).exists()

    def make_symmetric(self) -> None:
        """The root of every derived key."""
        write_file(self.path / SYMMETRIC, os.urandom(SYMMETRIC_BYTES).hex().encode())

    def load_symmetric(self) -> Secret:
        """Raises StoreDamaged, SetUp."""
        return read_hex(self.path / SYMMETRIC)

    def make_job_key(self, job: str) -> None:
        """Find or make: a job approved again after a power cut keeps its key."""
        path = self._job_path(job)
        if not path.exists():
            write_file(path, os.urandom(SYMMETRIC_BYTES).hex().encode())

    def load_job_key(self, job: str) -> tuple[tuple[int, int], Secret]:
        """The key and what tells this file from another of the name. Raises FileNotFoundError once destroyed."""
        path = self._job_path(job)
        found = path.stat()
        return (found.st_ino, found.st_mtime_ns), read_hex(path)

    def job_key_stamp(self, job: str) -> tuple[int, int]:
        """As `load_job_key`, without reading."""
        found = self._job_path(job).stat()
        return found.st_ino, found.st_mtime_ns

    def destroy_job_key(self, job: str) -> None:
        """Said of a key that is gone already it does nothing."""
        path = self._job_path(job)
        try:
            destroy_file(path)
        except FileNotFoundError:
            return

    def has_job_key(self, job: str) -> bool:
        """Whether its values can still be read."""
        return self._job_path(job).exists()

    def _key_path(self, name: str) -> Path:
        return (self.offline if name == STANDBY else self.path) / f"{name}.pem"

    def _job_path(self, job: str) -> Path:
        """Job names may hold what file names may not."""
        path = self._job_paths.get(job)
        if path is None:
            path = self._job_paths[job] = self._jobs / f"{job.encode().hex()}.key"
        return path


def make_key_file(path: Path) -> PrivateKey:
    """A fresh P-256 key in an unencrypted PKCS#8 PEM of 0600, on disk before it is returned.

    Raises SetUp where a file stands, StateBroke.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    write_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


def load_key_file(path: Path) -> PrivateKey:
    """What `make_key_file` wrote. Raises StoreDamaged, StateBroke, and SetUp where it is missing."""
    try:
        key = load_pem_private_key(read_private(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StoreDamaged(f"{path} is not an unencrypted PKCS#8 key; restore it from its copy") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise StoreDamaged(f"{path} is not a P-256 key")
    return key


def read_private(path: Path) -> bytes:
    """A file of the keystore. Raises SetUp where it is missing, StateBroke, StoreDamaged where others may read it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            body = file.read()
    except FileNotFoundError:
        raise SetUp(f"{path} is missing: run `mpserver init` first, or restore the keystore") from None
    except OSError as error:
        raise StateBroke(f"cannot read {path}: {error.strerror}") from error
    _check_closed(path, mode)
    return body


def _check_closed(path: Path, mode: int) -> None:
    if stat.S_IMODE(mode) & 0o077:
        raise StoreDamaged(
            f"{path} is open to others (mode {stat.S_IMODE(mode):o}): find out who read it, then chmod go= {path}"
        )


def write_file(path: Path, body: bytes, *, replace: bool = False) -> None:
    """Temp file, sync, rename, sync of the directory. Raises SetUp where a file stands and must not be replaced."""
    if path.exists() and not replace:
        raise SetUp(f"{path} exists already")
    temporary = path.with_name(path.name + ".new")
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            rest = memoryview(body)
            while rest:  # a disk that is nearly full takes a part and says so only the next time
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        finally:
            os.close(file)
        temporary.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise StateBroke(f"cannot write {path}: {error.strerror}") from error


def destroy_file(path: Path) -> None:
    """Overwrite, unlink, sync: what the file system or the flash kept of it elsewhere is beyond us (threats.md).

    Raises FileNotFoundError, StateBroke.
    """
    try:
        with path.open("r+b") as file:
            file.write(b"0" * os.fstat(file.fileno()).st_size)
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
        sync_directory(path.parent)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StateBroke(f"cannot destroy {path}: {error.strerror}") from error


def sync_directory(path: Path) -> None:
    """Make the names in it durable."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_hex(path: Path) -> Secret:
    """A key of SYMMETRIC_BYTES in a file of its own. Raises StoreDamaged, StateBroke, and SetUp where it is missing."""
    try:
        value = bytes.fromhex(read_private(path).decode("ascii"))
    except ValueError:
        raise StoreDamaged(f"{path} is not hexadecimal") from None
    if len(value) != SYMMETRIC_BYTES:
        raise StoreDamaged(f"{path} does not hold {SYMMETRIC_BYTES} bytes")
    return Secret(value)
