"""What is signed beside Grants: key certificates, trust updates, tree heads, PCR approvals, import lists (docs/wire.md
5)."""

from typing import NamedTuple

from mpwire import registry
from mpwire.keys import PublicKey
from mpwire.limits import IMPORT_RECORDS_MAX, ISSUER_CHAIN_MAX
from mpwire.messages.plain import HASH, NAME
from mpwire.shape import Field, Integer, ListOf, MapOf, Octets, OneOf, Row

REALM = OneOf("lab", "production")
ROLES = ("grant", "head", "bundle", "job", "trust", "tls", "ca")
ISSUER_CHAIN = ListOf(Octets(1, 2_048), ISSUER_CHAIN_MAX, 1)
PCR_INDEX_MAX = 15
"""PCRs 0 to 15 keep their value until reset; any software resets 16 and 23, a late launch 17 to 22 (TCG PC Client
Platform TPM Profile, section 4.6)."""


class IssuerCertificate(NamedTuple):
    """One key, one role, one realm, for at most 90 days."""

    role: str
    realm: str
    epoch: int
    not_before: int
    not_after: int
    key: bytes
    signer: bytes
    product: str | None = None


ISSUER_CERTIFICATE = MapOf(
    "issuer-certificate",
    IssuerCertificate,
    Field(1, "role", OneOf(*ROLES), "what the key may sign"),
    Field(2, "realm", REALM, "realm"),
    Field(3, "product", NAME, "the one product it may serve; absent: all", required=False),
    Field(4, "epoch", Integer(), "rises with every revocation"),
    Field(5, "not_before", Integer(), "seconds since 1970, UTC"),
    Field(6, "not_after", Integer(), "seconds since 1970, UTC"),
    Field(7, "key", PublicKey(), "the key certified"),
    Field(8, "signer", HASH, "thumbprint of the key that signed this"),
    constants={0: registry.WIRE_VERSION},
)


class TrustUpdate(NamedTuple):
    """Signed by a root the device already has: a higher epoch, and roots to come."""

    realm: str
    epoch: int
    roots: tuple[tuple[bytes, bytes], ...] = ()


TRUST_UPDATE = MapOf(
    "trust-update",
    TrustUpdate,
    Field(1, "realm", REALM, "realm"),
    Field(2, "epoch", Integer(), "no certificate below this epoch counts any more"),
    Field(
        3,
        "roots",
        ListOf(Row(PublicKey(), Octets(64)), 2),
        "new roots, each with its own signature over CBOR[label, realm, epoch, thumbprint]",
    ),
    constants={0: registry.WIRE_VERSION},
)


class Head(NamedTuple):
    """State of the ledger tree (RFC 6962 section 3.5, our encoding)."""

    size: int
    root: bytes
    time: int
    realm: str


HEAD = MapOf(
    "head",
    Head,
    Field(1, "size", Integer(), "entries"),
    Field(2, "root", HASH, "tree root"),
    Field(3, "time", Integer(), "seconds since 1970, UTC"),
    Field(4, "realm", REALM, "realm"),
    constants={0: registry.WIRE_VERSION},
)


class Entry(NamedTuple):
    """One leaf of the ledger tree, as devices see it."""

    kind: str
    time: int
    subject: str
    digest: bytes
    ueid: bytes | None = None


ENTRY = MapOf(
    "entry",
    Entry,
    Field(1, "kind", NAME, "grant, receipt, product, job, key, signer, import, bundle, bundle-receipt, note"),
    Field(2, "time", Integer(), "seconds since 1970, UTC"),
    Field(3, "subject", NAME, "job, product, key or signer named by this entry"),
    Field(4, "digest", HASH, "SHA-256 of what happened: Grant, Receipt, or the object"),
    Field(5, "ueid", Octets(33), "board, where there is one", required=False),
    constants={0: registry.WIRE_VERSION},
)


class PcrApproval(NamedTuple):
    """The OEM's word that software which measures so may open what boards of one product sealed."""

    realm: str
    product: str
    pcrs: tuple[tuple[int, bytes], ...]
    """(index, SHA-256 bank value), rising."""
    signature: bytes


PCR_APPROVAL = MapOf(
    "pcr-approval",
    PcrApproval,
    Field(1, "realm", REALM, "realm"),
    Field(2, "product", NAME, "the product whose boards it is for"),
    Field(
        3,
        "pcrs",
        ListOf(Row(Integer(PCR_INDEX_MAX), Octets(32)), PCR_INDEX_MAX + 1, 1),
        "[index, value of the SHA-256 bank], rising, not all zero",
    ),
    Field(4, "signature", Octets(64), "by the PCR authority, over policy and policyRef"),
    constants={0: registry.WIRE_VERSION},
)


class ImportRecord(NamedTuple):
    """One attester key that the OEM knows."""

    kind: str
    key: bytes
    """mp: X || Y, 64 bytes. tpm: EK Name, 34 bytes. optee: SubjectPublicKeyInfo, DER, 422 bytes."""
    origin: str
    mp_use: str | None = None
    use: str | None = None
    part: str | None = None


IMPORT_RECORD = MapOf(
    "import-record",
    ImportRecord,
    Field(1, "kind", OneOf("mp", "tpm", "optee"), "kind of attester"),
    Field(2, "key", Octets(34, 422), "mp: X || Y; tpm: EK Name; optee: SubjectPublicKeyInfo, DER"),
    Field(3, "origin", OneOf("silicon", "simulated"), "simulated: realm lab alone"),
    Field(4, "mp_use", OneOf("sign", "secret"), "mp, and no other kind", required=False),
    Field(5, "use", OneOf("class", "test"), "mp, and no other kind; test: what open parts sign with", required=False),
    Field(6, "part", NAME, "part type, to tell keys apart in lists", required=False),
)


class ImportList(NamedTuple):
    """The OEM's word for which attester keys are its products'. It never meets a device."""

    realm: str
    sequence: int
    """Rises with each list of one signer."""
    records: tuple[ImportRecord, ...]


IMPORT_LIST = MapOf(
    "import-list",
    ImportList,
    Field(1, "realm", REALM, "realm"),
    Field(2, "sequence", Integer(low=1), "above that of every list of this signer before"),
    Field(3, "records", ListOf(IMPORT_RECORD, IMPORT_RECORDS_MAX, 1), "keys, each once"),
    constants={0: registry.WIRE_VERSION},
)
