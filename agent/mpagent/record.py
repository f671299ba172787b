"""All that survives a power cut beside the vault. It holds no secret in the clear."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from mpwire.messages.plain import HASH, NAME, UEID
from mpwire.shape import Converted, Field, Integer, ListOf, MapOf, Octets, OneOf, TableOf, Text

RECORD_VERSION = 1
RECORD_MAX_BYTES = 524_288
"""Hello, Challenge, Proof, Grant, Receipt and Closed at their largest, with room. Source: mpwire.limits."""


class Stage(StrEnum):
    """What is known so far."""

    BLANK = "blank"
    """Nothing."""
    GREETED = "greeted"
    """A Hello was made: the outbox asks for a challenge."""
    PROVEN = "proven"
    """A Proof was made: the outbox shows it until a Grant comes."""
    KEPT = "kept"
    """The vault holds every slot and was unsealed: the outbox is the Receipt."""
    DONE = "done"
    """The issuer closed the enrollment; its inclusion proof is here."""
    SHOWN = "shown"
    """The production image unsealed every slot: the outbox is the final Receipt."""
    FINAL = "final"
    """The issuer closed that as well."""
    APPLIED = "applied"
    """Bundles provisioned it (docs/wire.md 11.4): the vault holds every slot and was unsealed. Nobody is answered."""


HOLDS_SECRETS = frozenset((Stage.KEPT, Stage.DONE, Stage.SHOWN, Stage.FINAL, Stage.APPLIED))
"""The vault is whole and was unsealed once."""
FINISHED = frozenset((Stage.DONE, Stage.SHOWN, Stage.FINAL, Stage.APPLIED))
"""The issuer closed the enrollment, or a bundle needs no closing."""


class Record(NamedTuple):
    """One enrollment of this chip."""

    stage: Stage = Stage.BLANK
    outbox: bytes | None = None
    """Said, and said again unchanged until answered."""
    ueid: bytes | None = None
    """The chip this record is about: a record that names another chip is foreign (promise P12)."""
    hello: bytes | None = None
    challenge: bytes | None = None
    proof: bytes | None = None
    job: str | None = None
    grant_digest: bytes | None = None
    """SHA-256 of what brought the secrets: of the Grant, or of the bundle taken last."""
    generation: int = 0
    """Vault generation this record stands on; 0 is none."""
    epoch: int = 0
    """Lowest issuer epoch still believed."""
    time_floor: int = 0
    """Seconds since 1970, UTC; rises only by what a verified issuer signed."""
    trust_updates: tuple[bytes, ...] = ()
    """TrustUpdates believed, as they came: nothing here is believed for standing here (belief.py)."""
    closed: bytes | None = None
    chosen: Mapping[str, str] = MappingProxyType({})
    """The backends this enrollment began with, by "attest", "seal", "keys" and "counter": it ends with them."""
    grant: bytes | None = None
    """The Grant as heard, where it names a next image: kept with the messages it answers until none is to come."""


RECORD = MapOf(
    "record",
    Record,
    Field(1, "stage", Converted(OneOf(*[one.value for one in Stage]), Stage, lambda stage: stage.value), "stage"),
    Field(2, "outbox", Octets(1, 131_072), "what is said next", required=False),
    Field(3, "ueid", UEID, "this chip", required=False),
    Field(4, "hello", Octets(1, 8_192), "Hello as said", required=False),
    Field(5, "challenge", Octets(1, 8_192), "Challenge as heard", required=False),
    Field(6, "proof", Octets(1, 65_536), "Proof as said", required=False),
    Field(7, "job", NAME, "job of the Grant", required=False),
    Field(8, "grant_digest", HASH, "SHA-256 of the Grant or bundle kept", required=False),
    Field(9, "generation", Integer(), "vault generation"),
    Field(10, "epoch", Integer(), "lowest issuer epoch believed"),
    Field(11, "time_floor", Integer(), "time floor"),
    Field(12, "trust_updates", ListOf(Octets(1, 2_048), 8), "trust updates believed"),
    Field(13, "closed", Octets(1, 16_384), "Closed as heard", required=False),
    Field(14, "chosen", TableOf(Text(8), Text(32), 4), "backends in use"),
    Field(15, "grant", Octets(1, 131_072), "Grant as heard, while an image is to come", required=False),
    constants={0: RECORD_VERSION},
)
