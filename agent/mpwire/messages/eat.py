"""The Entity Attestation Token inside a Proof (docs/wire.md 4.3; RFC 9711)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from mpwire import limits, registry
from mpwire.keys import PublicKey
from mpwire.messages.plain import CLAIM, HASH, NAME, UEID
from mpwire.shape import Field, Integer, ListOf, MapOf, Octets, OneOf, Row, TableOf, Text


class Confirmation(NamedTuple):
    """RFC 8747 section 3.2: the key whose possession the inner signature shows."""

    key: bytes


CONFIRMATION = MapOf("cnf", Confirmation, Field(1, "key", PublicKey(), "device sign key"))


class Claims(NamedTuple):
    """What the board says of itself. What cannot be known is None and left out, never invented."""

    nonce: bytes
    ueid: bytes
    hwmodel: bytes
    intuse: int
    cnf: Confirmation
    kem_key: bytes
    attester_id: bytes
    hello_hash: bytes
    challenge_hash: bytes
    realm: str
    product: str
    slots_wanted: tuple[str, ...]
    agent_version: str
    hardware_ids: dict[str, bytes]
    backends: Mapping[str, str]
    oemid: bytes | None = None
    life_cycle: int | None = None
    srk_hash: bytes | None = None
    swname: str | None = None
    swversion: tuple[str, ...] | None = None
    measurements: tuple[tuple[int, bytes], ...] | None = None
    csr_hashes: Mapping[str, bytes] = MappingProxyType({})
    key_attestation_hashes: Mapping[str, bytes] = MappingProxyType({})
    provenance: Mapping[int, int] = MappingProxyType({})
    profile: str = registry.EAT_PROFILE


CLAIMS = MapOf(
    "eat",
    Claims,
    Field(registry.CLAIM_NONCE, "nonce", Octets(60), "eat_nonce: the Challenge's nonce"),
    Field(registry.CLAIM_UEID, "ueid", UEID, "ueid: name of the board"),
    Field(registry.CLAIM_OEMID, "oemid", Octets(3, 16), "oemid: IEEE OUI or 16 random bytes", required=False),
    Field(registry.CLAIM_PROFILE, "profile", OneOf(registry.EAT_PROFILE), "eat_profile"),
    Field(registry.CLAIM_HWMODEL, "hwmodel", Octets(1, 32), "hwmodel: SoC family in UTF-8"),
    Field(registry.CLAIM_INTUSE, "intuse", OneOf(registry.INTUSE_PROVISIONING), "intuse: 3 provisioning"),
    Field(registry.CLAIM_CNF, "cnf", CONFIRMATION, "cnf: device sign key"),
    Field(registry.CLAIM_SWNAME, "swname", NAME, "swname: provisioning image", required=False),
    Field(registry.CLAIM_SWVERSION, "swversion", Row(NAME), "swversion: of that image", required=False),
    Field(
        registry.CLAIM_MEASUREMENTS,
        "measurements",
        ListOf(Row(Integer(65_535), Octets(1, 256)), 16),
        "measurements: content format, bytes",
        required=False,
    ),
    Field(registry.CLAIM_KEM_KEY, "kem_key", PublicKey(), "key the Grant is encrypted to"),
    Field(registry.CLAIM_ATTESTER_ID, "attester_id", Octets(32, 68), "equals the outer key's id"),
    Field(registry.CLAIM_HELLO_HASH, "hello_hash", HASH, "SHA-256 of the Hello"),
    Field(registry.CLAIM_CHALLENGE_HASH, "challenge_hash", HASH, "SHA-256 of the Challenge"),
    Field(registry.CLAIM_REALM, "realm", OneOf("lab", "production"), "realm of the image"),
    Field(registry.CLAIM_PRODUCT, "product", NAME, "product of the image"),
    Field(
        registry.CLAIM_LIFE_CYCLE,
        "life_cycle",
        OneOf(1, 2, 3, 4),
        "1 open, 2 closed pending reboot, 3 closed, 4 field return",
        required=False,
    ),
    Field(registry.CLAIM_SRK_HASH, "srk_hash", Octets(32, 64), "SRK hash as fused", required=False),
    Field(registry.CLAIM_SLOTS_WANTED, "slots_wanted", ListOf(NAME, limits.SLOTS_MAX), "slots the image asks for"),
    Field(registry.CLAIM_CSR_HASHES, "csr_hashes", TableOf(NAME, HASH, 16), "slot: SHA-256 of its CSR"),
    Field(registry.CLAIM_AGENT_VERSION, "agent_version", NAME, "version of mpagent"),
    Field(registry.CLAIM_PROVENANCE, "provenance", TableOf(CLAIM, OneOf(1, 2, 3, 4), 32), "claim: who vouches"),
    Field(
        registry.CLAIM_KEY_ATTESTATION_HASHES,
        "key_attestation_hashes",
        TableOf(NAME, HASH, 18),
        "key label: SHA-256 of its key attestation",
    ),
    Field(
        registry.CLAIM_HARDWARE_IDS,
        "hardware_ids",
        TableOf(Text(16), Octets(1, 68), 8),
        "imx-uid, tpm-ek, card-key, optee-key: ids the hardware cannot change",
    ),
    Field(
        registry.CLAIM_BACKENDS,
        "backends",
        TableOf(Text(16), Text(32), 8),
        "seal, keys, soc, attest, counter: the part in use",
    ),
)
