"""What is said without a line: bundles, the rights of update authorities, receipts of bundles (docs/wire.md 11)."""

from collections.abc import Mapping
from typing import NamedTuple

from mpwire import limits, registry
from mpwire.keys import PublicKey
from mpwire.messages.grant import DESTINATIONS, SECRET, SLOT_RECEIPT, SlotReceipt
from mpwire.messages.issuer import REALM
from mpwire.messages.plain import HASH, NAME, UEID
from mpwire.secret import Secret
from mpwire.shape import Field, Integer, ListOf, MapOf, Octets, OneOf, Row, TableOf, Text

UPDATE_AUTHORITIES = ("oem", "owner", "service")
AUTHORITIES = ("mp", *UPDATE_AUTHORITIES)
"""Whose key a bundle is under: "mp" is the first loading, by the class key of the part."""
COMPONENT_KINDS = ("random", "static", "file", "update-key", "policy")
ACTIONS = ("fill", "replace")
UID = Octets(8, 16)
KEY_CHECK_BYTES = 16
SECRET_ID_BYTES = 8


class Conditions(NamedTuple):
    """Which boards may take a bundle. What is absent asks nothing."""

    life_cycle: str
    family: str | None = None
    srk_hash: bytes | None = None
    uids: tuple[bytes, ...] | None = None


CONDITIONS = MapOf(
    "conditions",
    Conditions,
    Field(1, "family", Text(32), "SoC family, as in hwmodel", required=False),
    Field(2, "srk_hash", Octets(32, 64), "SRK hash as fused", required=False),
    Field(3, "life_cycle", OneOf("closed", "any"), "of the part"),
    Field(4, "uids", ListOf(UID, limits.BUNDLE_UIDS_MAX, 1), "fuse UIDs of the boards it is for", required=False),
)


class Component(NamedTuple):
    """One encrypted thing of a bundle."""

    name: str
    kind: str
    destination: str
    version: int
    action: str
    size: int
    uid: bytes | None = None


COMPONENT = MapOf(
    "component",
    Component,
    Field(1, "name", NAME, "slot name; `policy` for the rights of authorities"),
    Field(2, "kind", OneOf(*COMPONENT_KINDS), "how the value was made, or what it is"),
    Field(3, "destination", OneOf(*DESTINATIONS), "where it goes"),
    Field(4, "version", Integer(), "rises with every new value"),
    Field(5, "action", OneOf(*ACTIONS), "fill: where the board has none yet; replace: also where it has one"),
    Field(6, "size", Integer(limits.BUNDLE_FILE_MAX_BYTES), "bytes of the plain text"),
    Field(7, "uid", UID, "the one board it is for; absent: all", required=False),
)


class Bundle(NamedTuple):
    """Signed manifest of a bundle."""

    realm: str
    product: str
    job: str
    authority: str
    version: int
    minimum: int
    made_at: int
    expires: int
    conditions: Conditions
    salt: bytes
    components: tuple[Component, ...]
    policy_digest: bytes
    digests: tuple[bytes, ...]
    key_check: bytes
    secret_id: bytes | None = None


BUNDLE = MapOf(
    "bundle",
    Bundle,
    Field(1, "realm", REALM, "realm"),
    Field(2, "product", NAME, "product"),
    Field(3, "job", NAME, "job it was made under"),
    Field(4, "authority", OneOf(*AUTHORITIES), "whose key it is under; `mp`: the first loading"),
    Field(5, "version", Integer(low=1), "of this bundle, among those of its authority"),
    Field(6, "minimum", Integer(), "no bundle of this authority below it any more, from this one on"),
    Field(7, "made_at", Integer(), "seconds since 1970, UTC: raises the time floor (11.4.5)"),
    Field(8, "expires", Integer(), "seconds since 1970, UTC: not taken by a time floor above it"),
    Field(9, "conditions", CONDITIONS, "which boards may take it"),
    Field(10, "salt", Octets(32), "random, fresh for every bundle"),
    Field(11, "components", ListOf(COMPONENT, limits.BUNDLE_COMPONENTS_MAX, 1), "in the order of their ciphertexts"),
    Field(12, "policy_digest", HASH, "digest of the product policy applied"),
    Field(13, "secret_id", Octets(SECRET_ID_BYTES), "names the job secret that is needed", required=False),
    Field(14, "digests", ListOf(HASH, limits.BUNDLE_COMPONENTS_MAX), "SHA-256 of each component's ciphertext"),
    Field(15, "key_check", Octets(KEY_CHECK_BYTES), "shows that the keys are right"),
    constants={0: registry.WIRE_VERSION},
)


class UpdateKey(NamedTuple):
    """Value of an update-key slot: what one update authority signs with, and what its bundles are under."""

    point: bytes
    key: Secret


UPDATE_KEY = MapOf(
    "update-key",
    UpdateKey,
    Field(1, "point", PublicKey(), "signs bundles of this authority"),
    Field(2, "key", SECRET(32, 32), "bundles are under keys derived from it"),
    constants={0: registry.WIRE_VERSION},
)


class BundlePolicy(NamedTuple):
    """Plain text of a policy component: which slots an update authority may write, and from which version on."""

    slots: Mapping[str, str]
    minimums: Mapping[str, int]


BUNDLE_POLICY = MapOf(
    "bundle-policy",
    BundlePolicy,
    Field(1, "slots", TableOf(NAME, OneOf(*UPDATE_AUTHORITIES), limits.SLOTS_MAX), "slot: who may write it"),
    Field(2, "minimums", TableOf(OneOf(*UPDATE_AUTHORITIES), Integer(), 3), "authority: lowest bundle version"),
    constants={0: registry.WIRE_VERSION},
)


class BundleReceipt(NamedTuple):
    """What a board holds after a bundle, read back and unsealed."""

    bundle_digest: bytes
    ueid: bytes
    key: bytes
    hardware_ids: Mapping[str, bytes]
    product: str
    job: str
    authority: str
    version: int
    slots: tuple[SlotReceipt, ...]
    skipped: tuple[str, ...]
    rollback: str
    closed_proof: str
    agent_version: str
    life_cycle: int | None = None


BUNDLE_RECEIPT = MapOf(
    "bundle-receipt",
    BundleReceipt,
    Field(1, "bundle_digest", HASH, "SHA-256 of the bundle's envelope"),
    Field(2, "ueid", UEID, "the board"),
    Field(3, "key", PublicKey(), "device key `sign`, which signed this"),
    Field(4, "hardware_ids", TableOf(Text(16), Octets(1, 68), 8), "imx-uid: ids the hardware cannot change"),
    Field(5, "product", NAME, "product"),
    Field(6, "job", NAME, "job of the bundle"),
    Field(7, "authority", OneOf(*AUTHORITIES), "whose key the bundle was under"),
    Field(8, "version", Integer(low=1), "of the bundle"),
    Field(9, "slots", ListOf(SLOT_RECEIPT, limits.SLOTS_MAX), "every slot the board holds now"),
    Field(10, "skipped", ListOf(NAME, limits.SLOTS_MAX), "slots of the bundle that were filled already"),
    Field(11, "rollback", Text(16), "anti-rollback kind, or none"),
    Field(12, "closed_proof", OneOf("mp-key", "secure-world", "open-blob", "none"), "how closed was proven live"),
    Field(13, "agent_version", NAME, "version of mpagent"),
    Field(14, "life_cycle", OneOf(1, 2, 3, 4), "as the part said", required=False),
    constants={0: registry.WIRE_VERSION},
)

RECEIPT_ROW = Row(Octets(1, limits.RECEIPT_MAX_BYTES), Octets(32))
"""One receipt of a receipts file: the COSE_Sign1, and an HMAC over it that only a holder of the bundle's key makes."""
