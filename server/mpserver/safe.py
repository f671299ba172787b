"""Where the issuer's private and secret keys are, and what they do there: the port that files and tokens both have."""

import hashlib
import hmac
import os
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mpissuer.errors import Refused
from mpissuer.ports import SecretVault
from mpserver.errors import StoreDamaged
from mpserver.keystore import Keystore, PrivateKey
from mpserver.vault import FileVault
from mpwire.secret import Secret

WRAP_NONCE_BYTES: Final = 12
"""Random under a key of one job: 2^32 values stay below the bound of SP 800-38D section 8.3."""


class Safe(Protocol):
    """Keys by name. Every verb may raise NotNow (a token is away), StoreDamaged, SetUp and StateBroke."""

    @property
    def vault(self) -> SecretVault:
        """Secrets that are kept to be expanded."""

    def make_key(self, name: str) -> PrivateKey:
        """A fresh P-256 key, durable before it is returned."""

    def load_key(self, name: str) -> PrivateKey:
        """What `make_key` made."""

    def has_key(self, name: str) -> bool:
        """Whether one of this name was made."""

    def make_symmetric(self) -> None:
        """The root of every derived key."""

    def mac(self, message: bytes) -> bytes:
        """HMAC-SHA256 under that root."""

    def make_job_key(self, job: str) -> None:
        """Find or make: a job approved again after a power cut keeps its key."""

    def has_job_key(self, job: str) -> bool:
        """Whether its values can still be read."""

    def destroy_job_key(self, job: str) -> None:
        """Its values are forgotten. Said of a key that is gone already it does nothing."""

    def wrap(self, job: str, value: Secret, context: bytes) -> bytes:
        """nonce || AES-256-GCM. Raises Refused("job-ended")."""

    def unwrap(self, job: str, blob: bytes, context: bytes) -> Secret:
        """Raises Refused("job-ended"), StoreDamaged for a blob that this key and context did not make."""


class FileSafe:
    """Over the keystore, for realm lab."""

    def __init__(self, store: Keystore) -> None:
        self._store = store
        self._symmetric: Secret | None = None
        self._job_keys: dict[str, tuple[tuple[int, int], AESGCM]] = {}
        self.make_key, self.load_key = store.make_key, store.load_key
        self.make_symmetric = store.make_symmetric
        self.make_job_key, self.has_job_key = store.make_job_key, store.has_job_key
        self.destroy_job_key = store.destroy_job_key

    @property
    def vault(self) -> SecretVault:
        """Beside the keys."""
        return FileVault(self._store.path)

    def has_key(self, name: str) -> bool:
        """By its file."""
        return self._store.has(f"{name}.pem")

    def mac(self, message: bytes) -> bytes:
        """The root is read once."""
        if self._symmetric is None:
            self._symmetric = self._store.load_symmetric()
        return hmac.digest(self._symmetric.reveal(), message, hashlib.sha256)

    def wrap(self, job: str, value: Secret, context: bytes) -> bytes:
        """See Safe."""
        nonce = os.urandom(WRAP_NONCE_BYTES)
        return nonce + self._job_cipher(job).encrypt(nonce, value.reveal(), context)

    def unwrap(self, job: str, blob: bytes, context: bytes) -> Secret:
        """See Safe."""
        cipher = self._job_cipher(job)
        try:
            return Secret(cipher.decrypt(blob[:WRAP_NONCE_BYTES], blob[WRAP_NONCE_BYTES:], context))
        except (InvalidTag, ValueError):
            raise does_not_open(job) from None

    def _job_cipher(self, job: str) -> AESGCM:
        """Looks at the file each time, so that a key destroyed by another process is gone here too."""
        try:
            kept = self._job_keys.get(job)
            if kept is None or kept[0] != self._store.job_key_stamp(job):
                stamp, key = self._store.load_job_key(job)
                kept = self._job_keys[job] = stamp, AESGCM(key.reveal())
        except FileNotFoundError:
            self._job_keys.pop(job, None)
            raise job_ended(job) from None
        return kept[1]


def job_ended(job: str) -> Refused:
    """The key is gone, and with it every value under it."""
    return Refused("job-ended", f"the key of job {job} was destroyed: its values are forgotten")


def does_not_open(job: str) -> StoreDamaged:
    """The ledger's blob, its place in the ledger, or the job's key is another than it was."""
    return StoreDamaged(f"a stored value of job {job} does not open under the job's key")
