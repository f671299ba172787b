"""What a board must not forget and no stranger may edit: it lies in the vault, beside the slots and under their tag.

Who writes the state partition can bring back an older generation as a whole, and nothing else; a board with a counter
notices even that (docs/adr/0025-facts-in-the-vault.md).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from mpwire.limits import SLOTS_MAX
from mpwire.messages.bundle import AUTHORITIES, UPDATE_AUTHORITIES, Bundle, BundlePolicy
from mpwire.messages.plain import HASH, NAME
from mpwire.secret import Secret
from mpwire.shape import Converted, Field, Integer, MapOf, Octets, OneOf, Row, TableOf

FACTS_VERSION = 1
_FACTS_MAX_BYTES = 32_768


class Taken(NamedTuple):
    """What the board remembers of one authority."""

    version: int = 0
    """Of the bundle taken last; 0: none yet."""
    minimum: int = 0
    floor: int = 0
    """Seconds since 1970, UTC: made_at of its newest bundle. Each authority has its own clock: what one says of the
    time must not end what another signs."""
    digest: bytes = bytes(32)
    """SHA-256 of the envelope taken last."""


class Facts(NamedTuple):
    """Beside the slots of one generation."""

    taken: Mapping[str, Taken] = MappingProxyType({})
    rights: Mapping[str, str] = MappingProxyType({})
    """Who may write a slot; one that is not named is `oem`'s."""
    epoch: int = 0
    job: str = ""
    last: bytes = bytes(32)
    """SHA-256 of the envelope taken last, of any authority."""
    mpk_id: bytes | None = None
    """Name of the class key that opened the first loading: a boot that has it is closed."""
    receipt: bytes = b""
    """Of the last bundle, made before this generation was written and told only once it was read back."""
    policy_version: int = 0
    """Of the component that `rights` came in: authorities share this count, as they share the rights."""

    def of(self, authority: str) -> Taken:
        """What is remembered of this authority; nothing at first."""
        return self.taken.get(authority, Taken())

    def owner(self, slot: str) -> str:
        """Which update authority may write this slot; update-key slots are never in `rights`."""
        return self.rights.get(slot, "oem")


_TAKEN = Converted(Row(Integer(), Integer(), Integer(), HASH), lambda row: Taken(*row), tuple)
FACTS = MapOf(
    "facts",
    Facts,
    Field(1, "taken", TableOf(OneOf(*AUTHORITIES), _TAKEN, len(AUTHORITIES)), "by authority"),
    Field(2, "rights", TableOf(NAME, OneOf(*UPDATE_AUTHORITIES), SLOTS_MAX), "slot: who may write it"),
    Field(3, "epoch", Integer(), "lowest issuer epoch believed"),
    Field(4, "job", NAME, "job of the first loading"),
    Field(5, "last", HASH, "envelope taken last"),
    Field(6, "mpk_id", Octets(16), "name of the class key", required=False),
    Field(7, "receipt", Octets(1, 16_512), "receipts row of the last bundle"),
    Field(8, "policy_version", Integer(), "of the policy in force"),
    constants={0: FACTS_VERSION},
)


def read_facts(raw: Secret | None) -> Facts | None:
    """None for a generation that no bundle wrote. Raises Malformed for what no version of ours wrote."""
    return None if raw is None else FACTS.decode(raw.reveal(), _FACTS_MAX_BYTES)


def write_facts(facts: Facts) -> Secret:
    """For the vault."""
    return Secret(FACTS.encode(facts))


def note_bundle(facts: Facts, bundle: Bundle, digest: bytes, policy: BundlePolicy | None) -> Facts:
    """What is remembered once `bundle` counts. Versions, minimums and floors only rise; rights are replaced whole."""
    before = facts.of(bundle.authority)
    taken = dict(facts.taken)
    taken[bundle.authority] = Taken(
        bundle.version, max(before.minimum, bundle.minimum), max(before.floor, bundle.made_at), digest
    )
    for authority, minimum in ({} if policy is None else policy.minimums).items():
        one = taken.get(authority, Taken())
        taken[authority] = one._replace(minimum=max(one.minimum, minimum))
    rights = facts.rights if policy is None else policy.slots
    job = bundle.job if bundle.authority == "mp" else facts.job
    return facts._replace(taken=taken, rights=rights, job=job, last=digest)
