"""mpissuer.ports.Authority over the file keystore, and how `init` makes one."""

import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding

from mpissuer.errors import NotNow, Refused
from mpissuer.ports import Clock
from mpserver import certificates
from mpserver.errors import StoreDamaged
from mpserver.keystore import CA, ROLES, ROOT, STANDBY, TLS, Keystore
from mpserver.store.lasthead import LastHeadFile
from mpwire import labels
from mpwire.cose import read_sign1, thumbprint
from mpwire.errors import Malformed
from mpwire.messages.issuer import ISSUER_CERTIFICATE, IssuerCertificate
from mpwire.p256 import SoftKey
from mpwire.secret import Secret
from mpwire.trust import CERTIFICATE_MAX_BYTES, ES256_ONLY

TRUST_ROLE: Final = "trust"
"""Trust updates are signed by the root itself (docs/wire.md 5.2)."""
WRAP_NONCE_BYTES: Final = 12
"""Random under a key of one job: 2^32 values stay below the bound of SP 800-38D section 8.3."""
DERIVED_KEPT: Final = 64
"""Derived keys kept: the few labels, each for the epochs in use."""
DEFAULT_NAMES: Final = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class _Role:
    key: SoftKey
    chain: tuple[bytes, ...]
    not_before: int
    not_after: int


class FileAuthority:
    """The issuer's keys, read once at start. Certificates near their end are renewed over the same key."""

    def __init__(self, store: Keystore, realm: str, clock: Clock) -> None:
        self.realm, self._store, self._clock = realm, store, clock
        root_key = store.load_key(ROOT)
        store.check_directories()
        self._root = SoftKey(root_key)
        self.root_certificate = read_certificate(store.path / f"{ROOT}.crt", store.read_public(f"{ROOT}.crt"))
        self._roles = {role: self._load_role(role) for role in ROLES}
        ca = read_certificate(store.path / f"{CA}.crt", store.read_public(f"{CA}.crt"))
        self._ca = certificates.DeviceCa(ca, store.load_key(CA))
        self._symmetric = store.load_symmetric()
        self._job_keys: dict[str, tuple[tuple[int, int], AESGCM]] = {}
        self.derive = lru_cache(maxsize=DERIVED_KEPT)(self._derive)
        renew_tls(store, self.root_certificate, clock.now())

    def chain(self, role: str) -> tuple[bytes, ...]:
        """Leaf first; empty for trust updates, which the root signs. NotNow outside the certificate's life.

        What a clock that runs behind would sign is refused by every device, and stored: the board could not go on.
        """
        if role == TRUST_ROLE:
            return ()
        found = self._roles[role]
        now = self._clock.now()
        if found.not_after < now:
            raise NotNow("issuer-certificate", detail=f"the {role} certificate has ended; a restart renews it")
        if now < found.not_before:
            raise NotNow("issuer-certificate", detail=f"the {role} certificate begins in the future: set the clock")
        return found.chain

    def public_key(self, role: str) -> bytes:
        """The 65-byte point."""
        return self._key(role).public_key()

    def sign(self, role: str, message: bytes) -> bytes:
        """ES256, r || s."""
        return self._key(role).sign(message)

    def _derive(self, label: bytes, context: bytes) -> Secret:
        """HMAC(HMAC(root, label), context): no label and context can be read as another pair."""
        label_key = hmac.digest(self._symmetric.reveal(), label, hashlib.sha256)
        return Secret(hmac.digest(label_key, context, hashlib.sha256))

    def wrap(self, job: str, value: Secret, context: bytes) -> bytes:
        """nonce || AES-256-GCM."""
        nonce = os.urandom(WRAP_NONCE_BYTES)
        return nonce + self._job_cipher(job).encrypt(nonce, value.reveal(), context)

    def unwrap(self, job: str, blob: bytes, context: bytes) -> Secret:
        """Raises Refused("job-ended"), StoreDamaged for a blob that this key and context did not make."""
        cipher = self._job_cipher(job)
        try:
            return Secret(cipher.decrypt(blob[:WRAP_NONCE_BYTES], blob[WRAP_NONCE_BYTES:], context))
        except (InvalidTag, ValueError):
            raise StoreDamaged(f"a stored value of job {job} does not open under the job's key") from None

    def certify(self, point: bytes, subject: str, ueid: bytes, not_after: int) -> tuple[bytes, ...]:
        """An IDevID by the device CA."""
        return self._ca.certify(point, subject, ueid, self._clock.now(), not_after)

    def lives(self) -> dict[str, tuple[int, int]]:
        """From when to when each certificate that ends is good, seconds since 1970, for `doctor`."""
        tls = read_certificate(self._store.path / "tls.crt", self._store.read_public("tls.crt"))
        roles = {role: (one.not_before, one.not_after) for role, one in self._roles.items()}
        return {**roles, TLS: (int(tls.not_valid_before_utc.timestamp()), _end_of(tls))}

    def _key(self, role: str) -> SoftKey:
        return self._root if role == TRUST_ROLE else self._roles[role].key

    def _load_role(self, role: str) -> _Role:
        key, name, now = SoftKey(self._store.load_key(role)), f"{role}.cose", self._clock.now()
        raw = self._store.read_public(name)
        found = read_role_certificate(self._store.path / name, raw)
        if found.key != key.public_key() or found.signer != thumbprint(self._root.public_key()):
            raise StoreDamaged(f"{self._store.path / name} does not belong to this root and this {role} key")
        if found.not_after - now < certificates.RENEW_BELOW_S:
            raw = certificates.make_role_certificate(self._root, role, self.realm, key.public_key(), now)
            self._store.write_public(name, raw)
            found = read_role_certificate(self._store.path / name, raw)
        return _Role(key, (raw,), found.not_before, found.not_after)

    def _job_cipher(self, job: str) -> AESGCM:
        """Looks at the file each time, so that a key destroyed by another process is gone here too."""
        try:
            kept = self._job_keys.get(job)
            if kept is None or kept[0] != self._store.job_key_stamp(job):
                stamp, key = self._store.load_job_key(job)
                kept = self._job_keys[job] = stamp, AESGCM(key.reveal())
        except FileNotFoundError:
            self._job_keys.pop(job, None)
            raise Refused("job-ended", f"the key of job {job} was destroyed: its values are forgotten") from None
        return kept[1]


def make_keystore(path: Path, realm: str, names: Sequence[str], now: int) -> None:
    """All keys of a new issuer. The standby root's private key lies apart, to be carried away."""
    store = Keystore(path)
    store.make_directories()
    root_key = store.make_key(ROOT)
    root = certificates.make_root(root_key, f"mpserver {realm} root", now)
    store.write_public(f"{ROOT}.crt", root.public_bytes(Encoding.PEM))
    standby = certificates.make_root(store.make_key(STANDBY), f"mpserver {realm} standby root", now)
    store.write_public(f"{STANDBY}.crt", standby.public_bytes(Encoding.PEM))
    for role in ROLES:
        point = SoftKey(store.make_key(role)).public_key()
        made = certificates.make_role_certificate(SoftKey(root_key), role, realm, point, now)
        store.write_public(f"{role}.cose", made)
    ca = certificates.make_device_ca(root, root_key, store.make_key(CA).public_key(), now)
    store.write_public(f"{CA}.crt", ca.public_bytes(Encoding.PEM))
    store.make_key(TLS)
    store.write_public("tls.names", "\n".join(dict.fromkeys((*DEFAULT_NAMES, *names))).encode())
    renew_tls(store, root, now)
    store.make_symmetric()
    LastHeadFile(path / "last-head").make()


def renew_tls(store: Keystore, root: x509.Certificate, now: int) -> None:
    """A new TLS certificate over the same key where there is none or little is left of it. Raises StoreDamaged."""
    key = store.load_key(TLS).public_key()
    if store.has("tls.crt"):
        present = read_certificate(store.path / "tls.crt", store.read_public("tls.crt"))
        if present.public_key() != key:
            raise StoreDamaged(f"{store.path / 'tls.crt'} does not belong to this TLS key")
        if _end_of(present) - now >= certificates.RENEW_BELOW_S:
            return
    names = store.read_public("tls.names").decode().split("\n")
    made = certificates.make_tls(root, store.load_key(ROOT), key, names, now)
    store.write_public("tls.crt", made.public_bytes(Encoding.PEM))


def read_certificate(path: Path, pem: bytes) -> x509.Certificate:
    """Raises StoreDamaged."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise StoreDamaged(f"{path} is not a PEM certificate; restore the keystore") from error


def read_role_certificate(path: Path, raw: bytes) -> IssuerCertificate:
    """Raises StoreDamaged."""
    try:
        envelope = read_sign1(raw, typ=labels.TYP_ISSUER_CERTIFICATE, algs=ES256_ONLY)
        return ISSUER_CERTIFICATE.decode(envelope.payload, CERTIFICATE_MAX_BYTES)
    except Malformed as error:
        raise StoreDamaged(f"{path} is not an issuer certificate: {error}") from error


def _end_of(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp())
