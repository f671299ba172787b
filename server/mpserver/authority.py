"""mpissuer.ports.Authority over files or a token, and how `init` makes its keys."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mpissuer.errors import NotNow
from mpissuer.ports import Clock
from mpserver import certificates
from mpserver.errors import StoreDamaged
from mpserver.keystore import CA, ROLES, ROOT, STANDBY, TLS, Keystore, PrivateKey
from mpserver.safe import FileSafe, Safe
from mpserver.store.lasthead import LastHeadFile
from mpserver.token.safe import open_safe as open_token
from mpserver.token.settings import TokenSettings, has_settings, write_settings
from mpwire import labels
from mpwire.cose import read_sign1, thumbprint
from mpwire.errors import Malformed
from mpwire.messages.issuer import ISSUER_CERTIFICATE, IssuerCertificate
from mpwire.p256 import SoftKey
from mpwire.secret import Secret
from mpwire.trust import CERTIFICATE_MAX_BYTES, ES256_ONLY

TRUST_ROLE: Final = "trust"
"""Trust updates are signed by the root itself (docs/wire.md 5.2)."""
DERIVED_KEPT: Final = 64
"""Derived keys kept: the few labels, each for the epochs in use."""
DEFAULT_NAMES: Final = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class _Role:
    key: SoftKey
    chain: tuple[bytes, ...]
    not_before: int
    not_after: int


class IssuerAuthority:
    """The issuer's keys where a safe has them. Certificates near their end are renewed over the same key."""

    def __init__(self, safe: Safe, store: Keystore, realm: str, clock: Clock) -> None:
        self.safe, self.realm, self._store, self._clock = safe, realm, store, clock
        root_key = safe.load_key(ROOT)
        store.check_directories()
        self._root = SoftKey(root_key)
        self.root_certificate = read_certificate(store.path / f"{ROOT}.crt", store.read_public(f"{ROOT}.crt"))
        if self.root_certificate.public_key() != root_key.public_key():
            raise StoreDamaged(f"{store.path / f'{ROOT}.crt'} does not belong to this root key")
        self._roles = {role: self._load_role(role) for role in ROLES}
        ca = read_certificate(store.path / f"{CA}.crt", store.read_public(f"{CA}.crt"))
        ca_key = safe.load_key(CA)
        if ca.public_key() != ca_key.public_key():
            raise StoreDamaged(f"{store.path / f'{CA}.crt'} does not belong to this device CA key")
        self._ca = certificates.DeviceCa(ca, ca_key)
        safe.mac(b"")  # a root of derived keys that is missing is told of now
        self.derive = lru_cache(maxsize=DERIVED_KEPT)(self._derive)
        self.wrap, self.unwrap = safe.wrap, safe.unwrap
        renew_tls(store, self.root_certificate, root_key, clock.now())

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
        """HMAC(HMAC(root, label), context): no label and context can be read as another pair.

        The first is the safe's; the second is done here, so that a label's key is in this process either way.
        """
        return Secret(hmac.digest(self.safe.mac(label), context, hashlib.sha256))

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
        key, name, now = SoftKey(self.safe.load_key(role)), f"{role}.cose", self._clock.now()
        raw = self._store.read_public(name)
        found = read_role_certificate(self._store.path / name, raw)
        if found.key != key.public_key() or found.signer != thumbprint(self._root.public_key()):
            raise StoreDamaged(f"{self._store.path / name} does not belong to this root and this {role} key")
        if found.not_after - now < certificates.RENEW_BELOW_S:
            raw = certificates.make_role_certificate(self._root, role, self.realm, key.public_key(), now)
            self._store.write_public(name, raw)
            found = read_role_certificate(self._store.path / name, raw)
        return _Role(key, (raw,), found.not_before, found.not_after)


class FileAuthority(IssuerAuthority):
    """Over the file keystore, for realm lab."""

    def __init__(self, store: Keystore, realm: str, clock: Clock) -> None:
        super().__init__(FileSafe(store), store, realm, clock)


def open_safe(store: Keystore, *, is_new: bool = False) -> Safe:
    """Files, or the token that the keystore names. Raises SetUp, StateBroke, StoreDamaged, TokenAway."""
    store.check_directories()
    return open_token(store, is_new=is_new) if has_settings(store) else FileSafe(store)


def make_keystore(path: Path, realm: str, names: Sequence[str], now: int, token: TokenSettings | None = None) -> None:
    """All keys of a new issuer. The standby root's private key lies apart, to be carried away.

    A token is named on disk before the first key is in it, so that an init cut short finds what it left there.
    """
    store = Keystore(path)
    store.make_directories()
    if token is not None:
        write_settings(store, token)
    safe = open_safe(store, is_new=True)
    root_key = safe.make_key(ROOT)
    root = certificates.make_root(root_key, f"mpserver {realm} root", now)
    store.write_public(f"{ROOT}.crt", root.public_bytes(Encoding.PEM))
    standby = certificates.make_root(store.make_key(STANDBY), f"mpserver {realm} standby root", now)
    store.write_public(f"{STANDBY}.crt", standby.public_bytes(Encoding.PEM))
    for role in ROLES:
        point = SoftKey(safe.make_key(role)).public_key()
        made = certificates.make_role_certificate(SoftKey(root_key), role, realm, point, now)
        store.write_public(f"{role}.cose", made)
    ca = certificates.make_device_ca(root, root_key, safe.make_key(CA).public_key(), now)
    store.write_public(f"{CA}.crt", ca.public_bytes(Encoding.PEM))
    store.make_key(TLS)
    store.write_public("tls.names", "\n".join(dict.fromkeys((*DEFAULT_NAMES, *names))).encode())
    renew_tls(store, root, root_key, now)
    safe.make_symmetric()
    LastHeadFile(path / "last-head").make()


def renew_tls(store: Keystore, root: x509.Certificate, root_key: PrivateKey, now: int) -> None:
    """A new TLS certificate over the same key where there is none or little is left of it. Raises StoreDamaged.

    Its key is a file under any safe: the listener reads PEM.
    """
    key = store.load_key(TLS).public_key()
    if store.has("tls.crt"):
        present = read_certificate(store.path / "tls.crt", store.read_public("tls.crt"))
        if present.public_key() != key:
            raise StoreDamaged(f"{store.path / 'tls.crt'} does not belong to this TLS key")
        if _end_of(present) - now >= certificates.RENEW_BELOW_S:
            return
    names = store.read_public("tls.names").decode().split("\n")
    made = certificates.make_tls(root, root_key, key, names, now)
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
