"""Grant and Receipt: what one device gets, and what it says it did with it (docs/wire.md 4.4, 4.5)."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from mpwire import labels, limits, registry
from mpwire.codec import encode, encode_integer, encode_text, head_octets
from mpwire.keys import PublicKey
from mpwire.messages.issuer import REALM
from mpwire.messages.plain import HASH, NAME, UEID
from mpwire.secret import Secret
from mpwire.shape import Converted, Field, Integer, ListOf, MapOf, Octets, OneOf, Row, TableOf, Text

KINDS = ("local", "random", "static", "pool", "derived", "certificate", "update-key", "file")
KINDS_MADE = ("local", "random", "static", "certificate")
"""Of these, what version 1 makes. No image asks for another, so a device refuses the rest (docs/wire.md 4.4)."""
DESTINATIONS = ("sealed", "plain", "keyring", "credential")
CHECK_BYTES = 16


def SECRET(low: int, high: int) -> Converted:
    """A byte string that becomes a Secret."""
    return Converted(Octets(low, high), Secret, Secret.reveal)


class Content(NamedTuple):
    """A value too large for the Grant: fetched by range, decrypted with a key of its own."""

    digest: bytes
    key: Secret
    size: int
    path: str


CONTENT = MapOf(
    "content",
    Content,
    Field(1, "digest", HASH, "SHA-256 of the ciphertext"),
    Field(2, "key", SECRET(32, 32), "AES-256-GCM content key"),
    Field(3, "size", Integer(), "bytes of the ciphertext"),
    Field(4, "path", Text(256), "path below the server's address"),
)


class SlotGrant(NamedTuple):
    """One slot. A local slot has neither value nor content: the device makes it."""

    name: str
    kind: str
    destination: str
    version: int
    value: Secret | None = None
    check: bytes | None = None
    content: Content | None = None
    escrow: bytes | None = None


SLOT = MapOf(
    "slot",
    SlotGrant,
    Field(1, "name", NAME, "slot name"),
    Field(2, "kind", OneOf(*KINDS), "how the value was made"),
    Field(3, "value", SECRET(0, limits.SLOT_VALUE_MAX_BYTES), "the value", required=False),
    Field(4, "destination", OneOf(*DESTINATIONS), "where it goes"),
    Field(5, "version", Integer(), "rises with every new value"),
    Field(6, "check", Octets(CHECK_BYTES), "key-check value (wire.md 6.2)", required=False),
    Field(7, "content", CONTENT, "large value, fetched apart", required=False),
    Field(8, "escrow", PublicKey(), "local: escrow the value to this key in the Receipt", required=False),
)


class Manifest(NamedTuple):
    """The production image that comes next."""

    digest: bytes
    size: int
    version: str
    path: str


MANIFEST = MapOf(
    "manifest",
    Manifest,
    Field(1, "digest", HASH, "SHA-256 of the image"),
    Field(2, "size", Integer(), "bytes"),
    Field(3, "version", NAME, "image version"),
    Field(4, "path", Text(256), "path below the server's address"),
)


class Contents(NamedTuple):
    """The plaintext of a Grant, seen by the device alone."""

    slots: tuple[SlotGrant, ...]
    check_key: Secret
    policy_digest: bytes
    manifest: Manifest | None = None
    update_keys: dict[str, bytes] | None = None


CONTENTS = MapOf(
    "contents",
    Contents,
    Field(1, "slots", ListOf(SLOT, limits.SLOTS_MAX), "every slot wanted, none extra"),
    Field(2, "check_key", SECRET(32, 32), "key made for this Grant's check values"),
    Field(3, "manifest", MANIFEST, "next image", required=False),
    Field(4, "update_keys", TableOf(OneOf("oem", "owner", "service"), PublicKey(), 3), "update keys", required=False),
    Field(5, "policy_digest", HASH, "digest of the product policy applied"),
)


class Grant(NamedTuple):
    """4. Signed payload: what it is for, and the ciphertext only the attested KEM key opens."""

    hello_hash: bytes
    nonce: bytes
    ueid: bytes
    product: str
    job: str
    realm: str
    issued_at: int
    encapsulated: bytes
    ciphertext: bytes


GRANT = MapOf(
    "grant",
    Grant,
    Field(1, "hello_hash", HASH, "SHA-256 of the Hello answered"),
    Field(2, "nonce", Octets(60), "the Challenge's nonce"),
    Field(3, "ueid", UEID, "the one board it is for"),
    Field(4, "product", NAME, "product"),
    Field(5, "job", NAME, "job it is counted under"),
    Field(6, "realm", REALM, "realm"),
    Field(7, "issued_at", Integer(), "issuer's time, seconds since 1970, UTC: raises the device's time floor"),
    Field(8, "encapsulated", Octets(65), "HPKE enc"),
    Field(9, "ciphertext", Octets(16, limits.GRANT_MAX_BYTES), "HPKE ciphertext of the contents"),
    constants={0: registry.WIRE_VERSION},
)


class SlotReceipt(NamedTuple):
    """One slot as it lies on the device."""

    name: str
    backend: str
    version: int
    check: bytes


SLOT_RECEIPT = MapOf(
    "slot-receipt",
    SlotReceipt,
    Field(1, "name", NAME, "slot name"),
    Field(2, "backend", Text(16), "sealer"),
    Field(3, "version", Integer(), "version stored"),
    Field(4, "check", Octets(CHECK_BYTES), "key-check value of what was read back and unsealed"),
)


class Receipt(NamedTuple):
    """5. What the device holds, after reading it back and unsealing it."""

    phase: str
    grant_digest: bytes
    ueid: bytes
    slots: tuple[SlotReceipt, ...]
    rollback: str
    closed_proof: str
    images: Mapping[str, bytes] = MappingProxyType({})
    life_cycle: int | None = None
    escrow: dict[str, tuple[bytes, bytes]] | None = None
    waiver: bytes | None = None


RECEIPT = MapOf(
    "receipt",
    Receipt,
    Field(1, "phase", OneOf("sealed", "final"), "sealed by the provisioning image, final by the production image"),
    Field(2, "grant_digest", HASH, "SHA-256 of the Grant"),
    Field(3, "ueid", UEID, "the board"),
    Field(4, "slots", ListOf(SLOT_RECEIPT, limits.SLOTS_MAX), "every slot"),
    Field(5, "images", TableOf(NAME, HASH, 8), "image: SHA-256"),
    Field(6, "life_cycle", OneOf(1, 2, 3, 4), "as in the evidence", required=False),
    Field(7, "rollback", Text(16), "anti-rollback kind, or none"),
    Field(8, "closed_proof", OneOf("mp-key", "secure-world", "open-blob", "none"), "how closed was proven live"),
    Field(9, "escrow", TableOf(NAME, Row(Octets(65), Octets(16, 4_096)), 16), "slot: HPKE enc, ct", required=False),
    Field(10, "waiver", HASH, "digest of a two-person waiver", required=False),
    constants={0: registry.WIRE_VERSION},
)


def make_check_value(check_key: Secret, slot: str, version: int, value: Secret) -> bytes:
    """HMAC-SHA256(check key, CBOR[slot, version, value])[:16] (docs/wire.md 6.2)."""
    message = encode([slot, version, value.reveal()])
    return hmac.digest(check_key.reveal(), message, hashlib.sha256)[:CHECK_BYTES]


class RunningCheck:
    """The same over a value of `size` bytes that goes by in chunks."""

    def __init__(self, check_key: Secret, slot: str, version: int, size: int) -> None:
        self._left = size
        self._mac = hmac.new(check_key.reveal(), b"\x83" + encode_text(slot) + encode_integer(version), hashlib.sha256)
        self._mac.update(head_octets(size))

    def update(self, chunk: bytes) -> None:
        """The next bytes of the value."""
        self._mac.update(chunk)
        self._left -= len(chunk)

    def finish(self) -> bytes:
        """Raises ValueError where it was not `size` bytes."""
        if self._left:
            raise ValueError("not the bytes that were promised")
        return self._mac.digest()[:CHECK_BYTES]


def make_check_value_of_file(check_key: Secret, slot: str, version: int, size: int, chunks: Iterable[bytes]) -> bytes:
    """The same over a value of `size` bytes that comes in chunks. Raises ValueError where they are not as many."""
    running = RunningCheck(check_key, slot, version, size)
    for chunk in chunks:
        running.update(chunk)
    return running.finish()


def make_grant_info(grant: Grant, proof_hash: bytes, issuer_hash: bytes) -> bytes:
    """HPKE info: binds the ciphertext to realm, product, job, board, nonce, evidence and issuer (wire.md 4.4)."""
    return encode(
        [labels.HPKE_GRANT, grant.realm, grant.product, grant.job, grant.ueid, grant.nonce, proof_hash, issuer_hash]
    )


def make_escrow_info(ueid: bytes, slot: str, version: int) -> bytes:
    """HPKE info of one escrowed local value."""
    return encode([labels.HPKE_ESCROW, ueid, slot, version])
