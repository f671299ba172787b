"""The issuer's ports with fixed inputs, so that a vector decides alone what the issuer knows.

What is written through them is counted: a refusal must leave nothing behind.
"""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mpissuer.issuer import Issuer
from mpissuer.policy import Product, SlotPolicy
from mpissuer.ports import GrantRow, Job, RegisteredKey, Said, SlotCheck, StoredValue, Unit
from mpwire import p256
from mpwire.codec import encode
from mpwire.secret import Secret

HEX_LISTS = ("mp_keys", "mpmrs", "srk_hashes", "eks", "optee_keys", "optee_measurements")


def _read_hexes(told: list[str] | None) -> tuple[bytes, ...] | None:
    return None if told is None else tuple(map(bytes.fromhex, told))


def load_key(world: Mapping[str, Any], name: str) -> p256.SoftKey:
    """A key of world.json."""
    return p256.SoftKey.from_scalar(Secret(bytes.fromhex(world["keys"][name]["scalar"])))


@dataclass
class FixedIssuer:
    """Clock, authority, catalogue, ledger and books of one vector, in one place."""

    world: Mapping[str, Any]
    vector: Mapping[str, Any]
    grant: bytes
    """The Grant that the ledger holds."""
    written: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.differs: Mapping[str, Any] = self.vector.get("issuer", {})
        self.known: Mapping[str, Any] = self.vector.get("books", {})
        self.realm: str = self.differs.get("realm", self.world["realm"])

    def as_issuer(self) -> Issuer:
        """Put together."""
        return Issuer(authority=self, catalogue=self, ledger=self, clock=self, random=lambda size: bytes(size))

    # Clock

    def now(self) -> int:
        return int(self.world["now"])

    # Authority

    def chain(self, role: str) -> tuple[bytes, ...]:
        return (b"chain of " + role.encode(),)

    def public_key(self, role: str) -> bytes:
        return load_key(self.world, role).public_key()

    def sign(self, role: str, message: bytes) -> bytes:
        return load_key(self.world, role).sign(message)

    def derive(self, label: bytes, context: bytes) -> Secret:
        root = bytes.fromhex(self.differs.get("symmetric_root", self.world["symmetric_root"]))
        return Secret(hmac.digest(root, encode([label, context]), "sha256"))

    def wrap(self, job: str, value: Secret, context: bytes) -> bytes:
        return value.reveal()

    def unwrap(self, job: str, blob: bytes, context: bytes) -> Secret:
        return Secret(blob)

    def certify(self, point: bytes, subject: str, ueid: bytes, not_after: int) -> tuple[bytes, ...]:
        return (b"certificate of " + point,)

    # Catalogue

    def product(self, name: str) -> Product | None:
        told = {**self.world["policy"], **self.vector.get("policy", {})}
        if name != told["name"]:
            return None
        lists = {key: _read_hexes(told[key]) for key in HEX_LISTS}
        return Product(
            **{key: told[key] for key in ("name", "realm", "life_cycle", "profile", "mp_use")},
            **lists,
            attesters=tuple(told["attesters"]),
            grades=tuple(told["grades"]),
            ek_roots=(),
            card_roots=tuple(told["card_roots"]),
            optee_rule=told["optee_rule"],
            sealers=tuple(told["sealers"]),
            keyrings=tuple(told["keyrings"]),
            minimum_software=tuple(told["minimum_software"]),
            slots=tuple(
                SlotPolicy(**one, value=Secret(b"x") if one["kind"] == "static" else None) for one in told["slots"]
            ),
            digest=bytes(32),
        )

    def registered_key(self, key_id: bytes) -> RegisteredKey | None:
        registered = self.differs.get("registered", True)
        if isinstance(registered, dict) and key_id.hex() in registered:
            return self._key(key_id, bytes.fromhex(registered[key_id.hex()]))
        if registered is not False and key_id.hex() == self.world["policy"]["optee_keys"][0]:
            public = bytes.fromhex(self.world["rsa_keys"]["optee"]["public"])
            return RegisteredKey(key_id, "optee", public, self.differs.get("origin", "silicon"))
        if registered is False or key_id.hex() not in self.world["policy"]["mp_keys"]:
            return None
        return self._key(key_id, bytes.fromhex(self.world["keys"]["mp"]["point"]))

    def _key(self, key_id: bytes, point: bytes) -> RegisteredKey:
        origin, use = self.differs.get("origin", "silicon"), self.differs.get("mp_use", "sign")
        return RegisteredKey(key_id, "mp", point, origin, use)

    # Ledger, and Books where both have the verb

    def recall(self, proof_digest: bytes) -> bytes | None:
        return bytes.fromhex(self.known["recall"]) if "recall" in self.known else None

    def find_grant(self, digest: bytes) -> GrantRow | None:
        told = self.world["grant"]
        if digest.hex() != told["digest"]:
            return None
        checks = {
            name: SlotCheck(
                one["version"], None if one["check"] is None else bytes.fromhex(one["check"]), one["escrowed"]
            )
            for name, one in told["checks"].items()
        }
        sign_key = bytes.fromhex(self.world["keys"]["device_sign"]["point"])
        ueid = bytes.fromhex(self.world["ueid"]["mp"])
        return GrantRow(digest, ueid, self.world["product"], self.world["job"], sign_key, checks, self.grant)

    # Books

    def as_books(self) -> "FixedBooks":
        """The same inside a transaction."""
        return FixedBooks(self)


class FixedBooks:
    """One transaction."""

    def __init__(self, issuer: FixedIssuer) -> None:
        self._issuer, self._known = issuer, issuer.known

    def open_job(self, product: str) -> Job | None:
        told = self._known.get("job", {"quota": 4, "granted": 0, "state": "open"})
        if told is None:
            return None
        return Job(self._issuer.world["job"], product, told["quota"], told["state"], told["granted"])

    def unit(self, ueid: bytes) -> Unit | None:
        told = self._known.get("unit")
        if told is None:
            return None
        closed, final = (bytes.fromhex(told[name]) if name in told else None for name in ("closed", "final"))
        product, job = self._issuer.world["product"], self._issuer.world["job"]
        return Unit(
            ueid, product, job, told["state"], bytes.fromhex(told["sign_key"]), "mp", "S", closed=closed, final=final
        )

    def owners(self, ids: Mapping[str, bytes]) -> Mapping[str, bytes]:
        told = self._known.get("owners", {})
        return {kind: bytes.fromhex(told[kind]) for kind in ids if kind in told}

    def find_said(self, proof_digest: bytes, nonce: bytes) -> Said | None:
        if "booked" in self._known:
            return Said(proof_digest, bytes.fromhex(self._known["booked"]))
        return Said(bytes(32), b"another answer") if self._known.get("nonce_used", False) else None

    def values(self, ueid: bytes) -> Mapping[str, StoredValue]:
        if "values" in self._known:
            return {slot: StoredValue(slot, version, bytes(32)) for slot, version in self._known["values"].items()}
        slots = [one for one in self._issuer.world["policy"]["slots"] if one["kind"] != "local"]
        return {one["name"]: StoredValue(one["name"], one["version"], bytes(32)) for one in slots}

    def add_unit(self, unit: Unit) -> None:
        self._issuer.written.append("unit")

    def add_hardware_ids(self, ueid: bytes, ids: Mapping[str, bytes]) -> None:
        if ids:
            self._issuer.written.append("ids")

    def add_values(self, ueid: bytes, values: Iterable[StoredValue]) -> None:
        self._issuer.written += [f"value {one.slot}" for one in values]

    def add_grant(self, row: GrantRow, nonce: bytes, proof_digest: bytes) -> None:
        self._issuer.written.append("grant")

    def set_job_state(self, name: str, state: str) -> None:
        self._issuer.written.append(f"job {state}")

    def append(self, entry: bytes) -> None:
        self._issuer.written.append("entry")
