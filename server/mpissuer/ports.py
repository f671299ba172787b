"""What the answering half needs from the world: keys, books, a catalogue, a clock. No SQL and no HTTP here.

mpserver implements these over SQLite and a keystore; a factory station will bring its own.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from mpissuer.policy import Product
from mpwire.secret import Secret


class Clock(Protocol):
    """The issuer's clock: the only one that decides anything."""

    def now(self) -> int:
        """Seconds since 1970, UTC."""


class Authority(Protocol):
    """The issuer's keys. A file keystore in the lab, PKCS#11 for real.

    Every verb may raise NotNow: the token is slow or gone, nothing was signed.
    """

    realm: str

    def chain(self, role: str) -> tuple[bytes, ...]:
        """Issuer certificates of the key that `sign(role, ...)` uses, leaf first (docs/wire.md 5.1)."""

    def public_key(self, role: str) -> bytes:
        """The 65-byte point of that key."""

    def sign(self, role: str, message: bytes) -> bytes:
        """ES256 over the whole message, r || s. Roles: "grant", "head", "bundle", "trust"."""

    def derive(self, label: bytes, context: bytes) -> Secret:
        """HMAC-SHA256 under the issuer's symmetric root, the same on every replica: 32 bytes."""

    def wrap(self, job: str, value: Secret, context: bytes) -> bytes:
        """Encrypt a value at rest under the job's key; `context` is authenticated."""

    def unwrap(self, job: str, blob: bytes, context: bytes) -> Secret:
        """Undo `wrap`. Raises Refused("job-ended") once the job's key is destroyed."""

    def certify(self, point: bytes, subject: str, ueid: bytes, not_after: int) -> tuple[bytes, ...]:
        """An IEEE 802.1AR device certificate for a P-256 key: DER chain, leaf first, without the root."""


class SecretVault(Protocol):
    """Secrets that are kept to be expanded and never to be read: PRKs of HKDF (RFC 5869), 32 bytes each.

    A name has 1 to 64 bytes. Every verb may raise NotNow: the token is slow or gone, nothing was changed.
    """

    def keep(self, name: str, secret: Secret) -> None:
        """Durable when it returns. Raises KeptAlready, whatever the bytes: a name is used once, until `destroy`."""

    def names(self) -> tuple[str, ...]:
        """Of all that is kept, sorted."""

    def expand(self, name: str, info: bytes) -> Secret:
        """HKDF-Expand with SHA-256 under the kept secret as PRK: the first 32 bytes. Raises NotKept."""

    def destroy(self, name: str) -> None:
        """Nothing expands under it any more. Raises NotKept."""


class RegisteredKey(NamedTuple):
    """An attester key or EK that the OEM imported."""

    key_id: bytes
    """mp: SHA-256(X || Y), 32 bytes. tpm: EK Name, 34 bytes. optee: SHA-256 of the public key, 32 bytes."""
    kind: str
    public_key: bytes | None
    """mp: the 65-byte point. tpm: None, the EK comes with the Hello. optee: SubjectPublicKeyInfo, DER."""
    origin: str
    """"silicon" or "simulated"."""
    mp_use: str = "sign"
    part: str = ""
    use: str = "class"
    """"class", or "test": the public key that open parts sign with, which no image may pin as proof of closed."""


class Job(NamedTuple):
    """Permission to provision `quota` distinct boards of one product version."""

    name: str
    product: str
    quota: int
    state: str
    """draft, approved, open, exhausted, ended."""
    granted: int = 0


class Catalogue(Protocol):
    """What the OEM decided beforehand. Reads only; outside every transaction; may be cached for a second."""

    def product(self, name: str) -> Product | None:
        """The product of this name, as last approved."""

    def registered_key(self, key_id: bytes) -> RegisteredKey | None:
        """An imported attester key."""


class SlotCheck(NamedTuple):
    """What a receipt must say of one slot."""

    version: int
    check: bytes | None
    """None for a local slot: only the device knows it."""
    escrowed: bool = False
    """A copy of the value, encrypted to the product's escrow key, belongs in the receipt."""


class GrantRow(NamedTuple):
    """A stored Grant and what a receipt for it is measured against."""

    digest: bytes
    ueid: bytes
    product: str
    job: str
    sign_key: bytes
    """The device's 65-byte sign point."""
    checks: Mapping[str, SlotCheck]
    answer: bytes
    """The Grant as said."""


class Unit(NamedTuple):
    """One board that was granted something."""

    ueid: bytes
    product: str
    job: str
    state: str
    """granted, provisioned, rework, scrapped."""
    sign_key: bytes
    attester: str
    """Attester kind."""
    grade: str
    hardware_ids: Mapping[str, bytes] = MappingProxyType({})
    closed: bytes | None = None
    """The Closed as said, once there is one."""
    final: bytes | None = None
    """The Closed of its production image's receipt."""


class StoredValue(NamedTuple):
    """A slot's value at rest, wrapped under the job's key."""

    slot: str
    version: int
    wrapped: bytes


class Said(NamedTuple):
    """A Grant as it was said, and to which Proof."""

    proof_digest: bytes
    answer: bytes


class Books(Protocol):
    """The ledger inside one transaction. Everything done here stands or falls together, durably.

    A verb that would break a uniqueness rule (nonce, hardware id, slot value) raises Refused by the rule's name.
    """

    def open_job(self, product: str) -> Job | None:
        """The job that boards of this product are counted under now, with its live count: the oldest open one.

        Where none is open the last that was used up, so that a refusal says `quota`; None where there is neither.
        """

    def unit(self, ueid: bytes) -> Unit | None:
        """The board by name."""

    def owners(self, ids: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """The ueid that first showed each of these hardware ids, by kind, in any job, product or realm."""

    def find_said(self, proof_digest: bytes, nonce: bytes) -> Said | None:
        """The stored Grant that answered this Proof, or any Proof with this nonce."""

    def values(self, ueid: bytes) -> Mapping[str, StoredValue]:
        """The board's allocation, by slot."""

    def add_unit(self, unit: Unit) -> None:
        """A board counted now, with all its hardware ids."""

    def add_hardware_ids(self, ueid: bytes, ids: Mapping[str, bytes]) -> None:
        """Ids that a known board shows for the first time."""

    def add_values(self, ueid: bytes, values: Iterable[StoredValue]) -> None:
        """Its allocation."""

    def add_grant(self, row: GrantRow, nonce: bytes, proof_digest: bytes) -> None:
        """The Grant, findable by proof, by nonce and by digest."""

    def set_job_state(self, name: str, state: str) -> None:
        """Move a job on."""

    def append(self, entry: bytes) -> None:
        """One leaf at the end of the tree; its index is assigned by the ledger."""


class Ledger(Protocol):
    """Durable memory of the issuer. Reads may be stale by a moment; what books decide is not."""

    def recall(self, proof_digest: bytes) -> bytes | None:
        """The answer to this exact Proof: the unit's Closed once it has one, else the stored Grant."""

    def find_grant(self, digest: bytes) -> GrantRow | None:
        """A stored Grant by its digest."""
