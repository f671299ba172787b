"""The delivered secrets at rest: generations of slots under a data encryption key that only this chip unseals.

One generation is one file, vault/gen-NNNNNN, written whole or not at all (durable.py). Its key is fresh for every
generation and sealed by the board; each slot is AES-256-GCM with AAD = CBOR[ueid, slot, version, destination, kind];
a last tag over the whole table shows that no slot was added, dropped or taken from another generation. Beside the slots
a generation may hold facts: what the board must not forget and no stranger may edit (offline/facts.py).
The record alone says which generation counts: `write` makes the next one beside it, `discard_others` removes what
the durable record does not name. A cut between any two of these steps leaves the one that the record names whole.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from mpagent.durable import Damaged, Disk
from mpagent.errors import HardwareGone, NotMine, StorageBroke, Tampered
from mpagent.hal.ports import Counter, Sealer
from mpagent.slots import VaultSlot
from mpwire import limits
from mpwire.codec import encode, join_array
from mpwire.errors import Malformed
from mpwire.messages.grant import DESTINATIONS, KINDS
from mpwire.messages.plain import NAME, UEID
from mpwire.secret import Secret
from mpwire.shape import Field, Integer, ListOf, MapOf, Octets, OneOf

FOLDER: Final = "vault"
VAULT_VERSION: Final = 1
FACTS_MAX_BYTES: Final = 32_768
"""A receipt at its largest, rights over 64 slots, and four authorities."""
VAULT_MAX_BYTES: Final = limits.SLOTS_MAX * (limits.SLOT_VALUE_MAX_BYTES + 512) + FACTS_MAX_BYTES + 4_096
"""Every slot at its largest, local ones too, with facts and framing."""
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_NAME: Final = re.compile("gen-[0-9]{6,}")
_TABLE: Final = "mpagent/vault/1"
_FACTS: Final = "mpagent/vault-facts/1"
"""First items of AADs; a slot's AAD begins with a byte string, so none stands for another."""


class SealedSlot(NamedTuple):
    """One secret as it lies on disk."""

    name: str
    kind: str
    destination: str
    version: int
    sealed: bytes
    """Nonce, ciphertext and tag."""


SEALED_SLOT = MapOf(
    "sealed-slot",
    SealedSlot,
    Field(1, "name", NAME, "slot name"),
    Field(2, "kind", OneOf(*KINDS), "how the value was made"),
    Field(3, "destination", OneOf(*DESTINATIONS), "where it goes"),
    Field(4, "version", Integer(), "rises with every new value"),
    Field(5, "sealed", Octets(_NONCE_BYTES + _TAG_BYTES, limits.SLOT_VALUE_MAX_BYTES + 28), "nonce || AES-256-GCM"),
)


class Generation(NamedTuple):
    """Every secret of the device at one time."""

    ueid: bytes
    number: int
    key: bytes
    """The data encryption key as the board's sealer wrapped it."""
    slots: tuple[SealedSlot, ...]
    tag: bytes
    facts: bytes | None = None
    """Sealed as a slot's value is."""


GENERATION = MapOf(
    "vault",
    Generation,
    Field(1, "ueid", UEID, "the chip"),
    Field(2, "number", Integer(), "generation"),
    Field(3, "key", Octets(1, 1_024), "sealed data encryption key"),
    Field(4, "slots", ListOf(SEALED_SLOT, limits.SLOTS_MAX), "slots"),
    Field(5, "tag", Octets(_NONCE_BYTES + _TAG_BYTES), "nonce || tag over the table"),
    Field(6, "facts", Octets(28, FACTS_MAX_BYTES + 28), "nonce || AES-256-GCM", required=False),
    constants={0: VAULT_VERSION},
)


class Unlocked:
    """One generation under its key, which the chip has unsealed; each value is decrypted when it is asked for."""

    def __init__(self, table: Generation, key: Secret) -> None:
        self._table = table
        self._key = key
        self.names: Final = tuple(one.name for one in table.slots)

    def read(self, name: str) -> VaultSlot:
        """One slot of those in `names`. Raises Damaged."""
        return _unseal(self._key, self._table.ueid, self._table.slots[self.names.index(name)])

    def read_all(self) -> tuple[VaultSlot, ...]:
        """Every slot. Raises Damaged."""
        return tuple(_unseal(self._key, self._table.ueid, one) for one in self._table.slots)

    def read_facts(self) -> Secret | None:
        """What stands beside the slots, None where nothing does. Raises Damaged."""
        sealed = self._table.facts
        return None if sealed is None else _decrypt(self._key, sealed, _facts_aad(self._table.ueid))

    def derive(self, label: bytes) -> Secret:
        """A key that no other board and no other generation has: HMAC-SHA256 of the label under this one's key."""
        return Secret(hmac.digest(self._key.reveal(), label, hashlib.sha256))


class Vault:
    """The secrets of one board."""

    def __init__(self, disk: Disk, sealer: Sealer, counter: Counter | None, random: Callable[[int], bytes]) -> None:
        self._disk = disk
        self._sealer = sealer
        self._counter = counter
        self._random = random
        self.rollback = "none" if counter is None else counter.kind
        """What guards against a restored older disk, as receipts print it; "none" where the board has no counter."""

    def find_next(self, above: int) -> int:
        """Number of the generation that `write` would make."""
        return max(above, self._counter.read() if self._counter is not None else 0) + 1

    def write(self, ueid: bytes, slots: Sequence[VaultSlot], above: int, facts: Secret | None = None) -> int:
        """Store a generation above `above`, read all of it back through the chip, then raise the counter.

        Returns its number, which the caller's record has to name next. A cut anywhere leaves generation `above` as
        it was; called again it writes anew. What does not come back as stored is a broken disk or chip, no tampering:
        StorageBroke or HardwareGone.
        """
        number = self.find_next(above)
        key = Secret(self._random(_KEY_BYTES))
        sealed = tuple(_seal(key, self._random(_NONCE_BYTES), ueid, one) for one in slots)
        beside = None if facts is None else _seal_facts(key, self._random(_NONCE_BYTES), ueid, facts)
        draft = Generation(ueid, number, self._sealer.seal(key), sealed, b"", beside)
        tag = _encrypt(key, self._random(_NONCE_BYTES), b"", _table_aad(draft))
        self._disk.write(_file(number), GENERATION.encode(draft._replace(tag=tag)))
        self._check_back(ueid, number, tuple(slots), facts)
        if self._counter is not None:
            self._counter.raise_to(number)
        return number

    def read(self, ueid: bytes, generation: int) -> tuple[VaultSlot, ...]:
        """Every slot, unsealed by the chip now.

        Raises Tampered when the generation is gone, damaged (then set aside), altered or older than the counter
        says, and NotMine when it is whole and this chip in this life cycle did not seal it.
        """
        self._check_counter(generation)
        return self._open(ueid, generation).read_all()

    def unlock(self, ueid: bytes, generation: int) -> Unlocked:
        """As `read`, for one who does not hold the state folder: every slot was opened once, nothing is set aside.

        Raises Tampered too when another mpagent has just replaced the generation, so it proves nothing yet.
        """
        self._check_counter(generation)
        try:
            found = self._unlock(ueid, generation)
            found.read_all()
            found.read_facts()
        except Damaged as damage:
            raise Tampered(f"vault generation {generation}: {damage}") from damage
        return found

    def find_standing(self, recorded: int) -> int:
        """The generation a board stands on whose record may be lost, or a step behind; 0: none was ever finished.

        A counter was raised to what was read back whole, so its word counts above a record's that was cut before it
        could say the same. Raises Tampered where the counter is beyond everything on the disk.
        """
        if self._counter is None:
            return recorded or self.find_latest()
        counted, latest = self._counter.read(), self.find_latest()
        if recorded == 0 and latest > counted:
            return 0  # written, and cut before it counted: nothing stood on it
        if recorded < counted <= latest:
            return counted
        if recorded == 0 and latest:
            raise Tampered(f"vault generation {latest} is older than the board's {self._counter.kind} says")
        return recorded

    def find_latest(self) -> int:
        """Number of the newest whole generation on disk, 0 for none: for a record that was lost (promise P7)."""
        numbers = [int(name[4:]) for name in self._disk.names(FOLDER) if _NAME.fullmatch(name)]
        for number in sorted(numbers, reverse=True):
            try:
                if load_generation(self._disk, number) is not None:
                    return number
            except Damaged:
                continue
        return 0

    def discard_others(self, generation: int) -> None:
        """Remove every generation but this one. Only after the record that names it is durable."""
        keep = _file(generation)
        for name in self._disk.names(FOLDER):
            file = f"{FOLDER}/{name}"
            if file != keep and ".damaged-" not in name:
                self._disk.remove(file)

    def _check_back(self, ueid: bytes, number: int, stored: tuple[VaultSlot, ...], facts: Secret | None) -> None:
        try:
            opened = self._open(ueid, number)
            found, beside = opened.read_all(), opened.read_facts()
        except NotMine as error:
            raise HardwareGone("the sealer does not open what it has just sealed", detail=error.detail) from error
        except Tampered as error:
            raise StorageBroke(f"the disk does not give back what was just stored: {error}") from error
        if (found, beside) != (stored, facts):
            raise StorageBroke("the disk gives back something other than what was just stored")

    def _check_counter(self, generation: int) -> None:
        if self._counter is not None and self._counter.read() != generation:
            raise Tampered(f"vault generation {generation} is not the one the board's {self._counter.kind} names")

    def _open(self, ueid: bytes, number: int) -> Unlocked:
        """Every value of it opens. What does not is set aside."""
        try:
            found = self._unlock(ueid, number)
            found.read_all()
            found.read_facts()
            return found
        except Damaged as damage:
            kept = self._disk.set_aside(_file(number))
            raise Tampered(f"vault generation {number}: {damage}; set aside as {kept}") from damage

    def _unlock(self, ueid: bytes, number: int) -> Unlocked:
        """Raises Damaged for what is there and wrong, Tampered for what is not there, NotMine."""
        found = load_generation(self._disk, number)
        if found is None:
            raise Tampered(f"vault generation {number} is gone from {self._disk.folder / FOLDER}")
        if found.ueid != ueid or found.number != number:
            raise Damaged("it belongs to another board or generation")
        key = self._sealer.unseal(found.key)
        _decrypt(key, found.tag, _table_aad(found))
        return Unlocked(found, key)


def load_generation(disk: Disk, number: int) -> Generation | None:
    """What lies on disk, still sealed; None when it is not there. Raises Damaged. Needs no chip and no cipher."""
    raw = disk.read(_file(number), VAULT_MAX_BYTES)
    if raw is None:
        return None
    try:
        return GENERATION.decode(raw, VAULT_MAX_BYTES)
    except Malformed as error:
        raise Damaged(f"{disk.folder / _file(number)} is damaged: {error}") from error


def _file(number: int) -> str:
    return f"{FOLDER}/gen-{number:06d}"


def _slot_aad(ueid: bytes, slot: VaultSlot | SealedSlot) -> bytes:
    return encode([ueid, slot.name, slot.version, slot.destination, slot.kind])


def _table_aad(table: Generation) -> bytes:
    head = map(encode, (_TABLE, table.ueid, table.number, table.key))
    facts = [] if table.facts is None else [encode(table.facts)]
    return join_array([*head, join_array([SEALED_SLOT.write(one) for one in table.slots]), *facts])


def _facts_aad(ueid: bytes) -> bytes:
    return encode([_FACTS, ueid])


def _seal_facts(key: Secret, nonce: bytes, ueid: bytes, facts: Secret) -> bytes:
    if len(facts) > FACTS_MAX_BYTES:
        raise ValueError(f"facts of {len(facts)} bytes")
    return _encrypt(key, nonce, facts.reveal(), _facts_aad(ueid))


def _seal(key: Secret, nonce: bytes, ueid: bytes, slot: VaultSlot) -> SealedSlot:
    sealed = _encrypt(key, nonce, slot.value.reveal(), _slot_aad(ueid, slot))
    return SealedSlot(slot.name, slot.kind, slot.destination, slot.version, sealed)


def _unseal(key: Secret, ueid: bytes, slot: SealedSlot) -> VaultSlot:
    value = _decrypt(key, slot.sealed, _slot_aad(ueid, slot))
    return VaultSlot(slot.name, slot.kind, slot.destination, slot.version, value)


def _encrypt(key: Secret, nonce: bytes, plain: bytes, aad: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # not needed by `status`

    return nonce + AESGCM(key.reveal()).encrypt(nonce, plain, aad)


def _decrypt(key: Secret, sealed: bytes, aad: bytes) -> Secret:
    """Raises Damaged for what this key did not encrypt."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return Secret(AESGCM(key.reveal()).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], aad))
    except InvalidTag:
        raise Damaged("a slot does not open under its key") from None
