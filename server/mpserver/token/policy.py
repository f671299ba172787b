"""What each key in the token has to look like. docs/hsm.md prints this table; tests/walls compares both."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mpserver.keystore import CA, ROLES, ROOT

PREFIX: Final = "mpserver/"
"""Of every label, so that a person with a token tool sees whose keys these are."""
ID_BYTES: Final = 16
JOB: Final = "job/"
VAULT: Final = "vault/"
UPDATE: Final = "update-"
SYMMETRIC: Final = "symmetric"
USES: Final = ("SIGN", "VERIFY", "ENCRYPT", "DECRYPT", "WRAP", "UNWRAP", "DERIVE")
"""Every usage flag a key may have; those a rule does not name must be off."""
MADE_HERE: Final = {"LOCAL": True, "ALWAYS_SENSITIVE": True, "NEVER_EXTRACTABLE": True}
"""Born in the token, and never outside it."""
BROUGHT_IN: Final = {"LOCAL": False, "ALWAYS_SENSITIVE": False, "NEVER_EXTRACTABLE": False}
"""Imported: it was known outside once, and the token says so truly."""
CLOSED: Final = {"TOKEN": True, "PRIVATE": True, "SENSITIVE": True, "EXTRACTABLE": False, "MODIFIABLE": False}
"""For every key: kept, asked for by whoever is logged in alone, never shown, never changed."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of key."""

    name: str
    """Label after PREFIX; one that ends in "/" or "-" stands for every name that begins so."""
    key_class: str
    key_type: str
    size: int
    """Bits."""
    uses: tuple[frozenset[str], ...]
    """What it may do: one of these sets, exactly."""
    is_made_here: bool
    purpose: str

    @property
    def is_family(self) -> bool:
        """Whether the name is the beginning of many."""
        return self.name.endswith(("/", "-"))

    def flags(self, uses: frozenset[str]) -> dict[str, bool]:
        """Every attribute that is yes or no, and what it has to be."""
        allowed = {use: use in uses for use in USES}
        return {**CLOSED, **(MADE_HERE if self.is_made_here else BROUGHT_IN), **allowed}


def _pair(name: str, purpose: str) -> Rule:
    return Rule(name, "PRIVATE_KEY", "EC", 256, (frozenset({"SIGN"}),), True, purpose)


RULES: Final = (
    _pair("root", "signs role certificates, the TLS certificate, the device CA, trust updates"),
    _pair("grant", "signs Grants"),
    _pair("head", "signs tree heads"),
    _pair("bundle", "signs bundles for lines without a network"),
    _pair("ca", "signs device certificates"),
    _pair("pcr-authority", "approves PCR values; made by `tpm init-pcr-authority`"),
    _pair(UPDATE, "signs bundles of an update authority; made by `authority create`"),
    Rule(
        *(SYMMETRIC, "SECRET_KEY", "GENERIC_SECRET", 256, (frozenset({"SIGN"}),), True),
        "HMAC: root of every derived key",
    ),
    Rule(
        *(JOB, "SECRET_KEY", "AES", 256, (frozenset({"ENCRYPT", "DECRYPT"}),), True),
        "AES-GCM over the job's values; destroyed by `job end`",
    ),
    Rule(
        *(VAULT, "SECRET_KEY", "GENERIC_SECRET", 256, (frozenset({"SIGN"}), frozenset({"DERIVE"})), False),
        "HKDF-Expand under a secret that was imported: by HMAC, or by HKDF where the token can",
    ),
)
ALWAYS: Final = (ROOT, *ROLES, CA, SYMMETRIC)
"""Without these an issuer cannot work."""
MECHANISMS: Final = ("EC_KEY_PAIR_GEN", "ECDSA", "GENERIC_SECRET_KEY_GEN", "SHA256_HMAC", "AES_KEY_GEN", "AES_GCM")
"""What a token must offer."""


def find_rule(name: str) -> Rule | None:
    """The rule for a label without PREFIX."""
    for rule in RULES:
        if name == rule.name or (rule.is_family and name.startswith(rule.name) and name != rule.name):
            return rule
    return None


def make_id(issuer: bytes, name: str) -> bytes:
    """CKA_ID of one issuer's key of this name."""
    return hashlib.sha256(issuer + name.encode()).digest()[:ID_BYTES]


def write_table() -> Iterator[str]:
    """The lines of docs/hsm.md."""
    yield "| label | class, type, bits | may | made in the token | what it does |"
    yield "| --- | --- | --- | --- | --- |"
    for rule in RULES:
        label = f"{PREFIX}{rule.name}" + ("NAME" if rule.is_family else "")
        kind = f"CKO_{rule.key_class}, CKK_{rule.key_type}, {rule.size}"
        may = " or ".join(", ".join(use for use in USES if use in uses) for uses in rule.uses)
        yield f"| `{label}` | {kind} | {may} | {'yes' if rule.is_made_here else 'no: imported'} | {rule.purpose} |"
