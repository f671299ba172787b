"""mpserver.safe.Safe in a token: nothing that signs, derives or wraps is ever in this process's memory.

What does come out is what the verbs are for: derived keys (one HMAC in the token, see FileAuthority for the rest of the
construction), opened values, and what a secret of the vault expands to.
"""

import ctypes
import fcntl
import hmac
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from mpissuer.ports import SecretVault
from mpserver.errors import SetUp, StateBroke, StoreDamaged
from mpserver.keystore import Keystore, PrivateKey
from mpserver.safe import WRAP_NONCE_BYTES, does_not_open, job_ended
from mpserver.token import objects, policy
from mpserver.token.faults import is_gone, is_stale
from mpserver.token.gcm import TAG_BYTES, check_round_trip, write_parameters
from mpserver.token.objects import KeyMissing
from mpserver.token.policy import JOB, SYMMETRIC
from mpserver.token.pool import Pool, Session
from mpserver.token.settings import TokenSettings, read_settings, write_settings
from mpserver.token.signing import TokenKey
from mpserver.token.vault import TokenVault
from mpwire.secret import Secret

CHECK_TEXT: Final = b"mpserver symmetric root"
JOB_NAME_MAX_BYTES: Final = 200


class TokenSafe:
    """Keys of one issuer in one token."""

    def __init__(self, store: Keystore, settings: TokenSettings) -> None:
        self._store, self.settings = store, settings
        self._points: dict[str, bytes] = {}
        self.pool: Final = Pool(settings, self._prove, self._vouch)

    @property
    def vault(self) -> SecretVault:
        """In the same token."""
        return TokenVault(self.pool, self.lock)

    def make_key(self, name: str) -> PrivateKey:
        """Made in the token; found, where a power cut left it."""
        self.pool.run(f"making {name}", lambda session: objects.make_pair(session, name))
        return self.load_key(name)

    def load_key(self, name: str) -> PrivateKey:
        """After its private half has signed for the public one. Raises KeyMissing."""
        if name not in self._points:
            self._points[name] = self.pool.run(f"looking at {name}", lambda session: objects.read_point(session, name))

        def sign(message: bytes) -> bytes:
            return self.pool.run(f"signing with {name}", lambda session: objects.sign(session, name, message))

        return TokenKey(self._points[name], sign)

    def has_key(self, name: str) -> bool:
        """In the token."""
        return self.pool.run(f"looking for {name}", lambda session: objects.exists(session, name))

    def make_symmetric(self) -> None:
        """With what tells it from another, in the settings."""
        self._make_secret(SYMMETRIC)
        self.settings = replace(self.settings, check=self.mac(CHECK_TEXT))
        write_settings(self._store, self.settings)

    def mac(self, message: bytes) -> bytes:
        """C_Sign."""
        return self.pool.run("deriving", lambda session: objects.mac(session, SYMMETRIC, message))

    def make_job_key(self, job: str) -> None:
        """AES-256, made in the token."""
        if len(job.encode()) > JOB_NAME_MAX_BYTES:
            raise SetUp(f"a job's name in a token has at most {JOB_NAME_MAX_BYTES} bytes")
        with self.lock():
            self._make_secret(f"{JOB}{job}")

    def has_job_key(self, job: str) -> bool:
        """In the token."""
        return self.has_key(f"{JOB}{job}")

    def destroy_job_key(self, job: str) -> None:
        """C_DestroyObject."""
        self.pool.run(f"ending job {job}", lambda session: objects.destroy(session, f"{JOB}{job}"))

    def wrap(self, job: str, value: Secret, context: bytes) -> bytes:
        """See Safe. The nonce is read back: some tokens put one of their own into its place."""
        nonce = ctypes.create_string_buffer(os.urandom(WRAP_NONCE_BYTES), WRAP_NONCE_BYTES)
        sealed = self._cipher(job, "encrypt", value.reveal(), nonce, context)
        return nonce.raw + sealed

    def unwrap(self, job: str, blob: bytes, context: bytes) -> Secret:
        """See Safe. A token that says no to a wrong tag in its own words must still open what it wraps now."""
        nonce = ctypes.create_string_buffer(blob[:WRAP_NONCE_BYTES], WRAP_NONCE_BYTES)
        rest = blob[WRAP_NONCE_BYTES:]
        if len(rest) < TAG_BYTES:
            raise does_not_open(job)
        try:
            return Secret(self._cipher(job, "decrypt", rest, nonce, context))
        except _WrongTag:
            raise does_not_open(job) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One process at a time makes keys that may be made twice: a token knows no unique label."""
        try:
            held = os.open(self._store.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise StateBroke(f"cannot read {self._store.path}: {error.strerror}") from error
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield
        finally:
            os.close(held)

    def forget_all(self) -> int:
        """Destroy every object of this issuer, and of no other: what an interrupted `init` left. How many."""
        return self.pool.run("clearing away an interrupted init", _destroy_all)

    def _make_secret(self, name: str) -> None:
        self.pool.run(f"making {name}", lambda session: objects.make_secret(session, name))

    def _cipher(self, job: str, verb: str, text: bytes, nonce: Any, context: bytes) -> bytes:
        aad = ctypes.create_string_buffer(context, len(context))
        parameters = write_parameters(nonce, aad)

        def act(session: Session) -> bytes:
            key, mechanism = objects.find(session, f"{JOB}{job}"), session.p11.Mechanism.AES_GCM
            try:
                return bytes(getattr(key, verb)(text, mechanism=mechanism, mechanism_param=parameters))
            except session.p11.PKCS11Error as refused:
                if verb == "decrypt" and not is_gone(refused) and not is_stale(refused):
                    check_round_trip(key, mechanism)
                    raise _WrongTag from None
                raise

        try:
            return self.pool.run(f"{verb}ing a value of job {job}", act)
        except KeyMissing:
            raise job_ended(job) from None

    def _prove(self, session: Session) -> None:
        """Every key that this process, or `init`, has known. Raises StoreDamaged, KeyMissing."""
        for name in (*tuple(self._points), *((SYMMETRIC,) if self.settings.check else ())):
            objects.find(session, name)

    def _vouch(self, session: Session, name: str) -> None:
        """A key of the right label, id and attributes may still be one that somebody made in the place of ours."""
        point = self._points.get(name)
        if point is not None:
            objects.prove(session, name, point)
        if name != SYMMETRIC or not self.settings.check:
            return
        if not hmac.compare_digest(objects.mac(session, SYMMETRIC, CHECK_TEXT), self.settings.check):
            raise StoreDamaged(
                f"the key {policy.PREFIX}{SYMMETRIC} in the token is another than this issuer's: a token exchanged for"
                " one of the same label and serial number, or a key put in its place"
            )


class _WrongTag(Exception):
    """What was to be opened is not what was wrapped."""


def open_safe(store: Keystore, *, is_new: bool = False) -> TokenSafe:
    """By keys/hsm.toml. Raises SetUp, TokenAway, StoreDamaged."""
    return TokenSafe(store, read_settings(store, is_new=is_new))


def _destroy_all(session: Session) -> int:
    p11, count = session.p11, 0
    for kind in (p11.ObjectClass.PRIVATE_KEY, p11.ObjectClass.PUBLIC_KEY, p11.ObjectClass.SECRET_KEY):
        for key in list(session.raw.get_objects({p11.Attribute.CLASS: kind})):
            name = str(key[p11.Attribute.LABEL]).removeprefix(policy.PREFIX)
            if bytes(key[p11.Attribute.ID]) == policy.make_id(session.issuer, name):
                key.destroy()
                count += 1
    return count
