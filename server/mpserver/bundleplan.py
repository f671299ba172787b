"""What goes into a bundle, out of the product file and what was asked for (docs/wire.md 11.1, 11.5).

Opens no file and no vault. What a board would refuse is refused here, by the name that the board says.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from mpissuer.policy import Product, SlotPolicy
from mpserver.errors import NeedsPerson, Usage
from mpserver.store.bundles import History
from mpserver.updatekeys import FIRST, SLOT_PREFIX
from mpwire.bundle import POLICY
from mpwire.limits import BUNDLE_COMPONENTS_MAX, BUNDLE_FILE_MAX_BYTES, SLOT_VALUE_MAX_BYTES
from mpwire.messages.bundle import BUNDLE_POLICY, BundlePolicy, Component, Conditions
from mpwire.secret import Secret

VALUE_KINDS: Final = ("static", "file")
"""Slots whose value a person hands over."""
CONDITIONS: Final = ("family", "srk_hash", "life_cycle")


class Handed(NamedTuple):
    """A value in a file."""

    path: Path
    size: int


class Piece(NamedTuple):
    """One component and where its plain text is: in memory, or in a file that is read when it is sealed."""

    component: Component
    value: Secret | Handed


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for."""

    product: Product
    authority: str
    """mp, oem, owner or service."""
    version: int
    expires: int
    minimum: int | None = None
    """None: what boards were told before."""
    action: str | None = None
    """None: fill for a first loading, replace for an update."""
    only: tuple[str, ...] = ()
    """Slots of an update."""
    uids: tuple[bytes, ...] | None = None
    values: Mapping[str, Handed] = field(default_factory=dict)
    """By slot, for all boards."""
    own_values: Mapping[tuple[bytes, str], Handed] = field(default_factory=dict)
    """By board and slot."""
    rights: BundlePolicy | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    allow_older: bool = False


class Makers(NamedTuple):
    """Where values come from that nobody hands over."""

    random: Callable[[int], bytes]
    update_key: Callable[[str, bytes | None], Secret]
    """Value of an authority's slot, on one board or on all."""
    is_per_device: Callable[[str], bool]
    """Whether an authority has a key of its own for each board."""


def check_versions(wishes: Wishes, history: History) -> int:
    """The minimum that the bundle says. Raises Usage, NeedsPerson("bundle-old: ...")."""
    minimum = history.minimum if wishes.minimum is None else wishes.minimum
    if minimum > wishes.version:
        if wishes.minimum is None:
            raise NeedsPerson(
                f"bundle-old: boards were told to take no version below {minimum} from {wishes.authority}"
            )
        raise Usage(f"--minimum {minimum} is above --version {wishes.version}: the bundle would refuse itself")
    if minimum < history.minimum:
        raise Usage(f"--minimum {minimum}: boards were told {history.minimum} already, and a minimum never falls")
    if wishes.version < history.version and not wishes.allow_older:
        raise NeedsPerson(
            f"bundle-old: version {history.version} was made already, and boards that took it refuse"
            f" {wishes.version}; --allow-older makes it for boards that did not"
        )
    return minimum


def plan_conditions(wishes: Wishes) -> Conditions:
    """The product's, or narrower. Raises Usage: wider, or several SRK hashes to choose from."""
    product, asked = wishes.product, wishes.conditions
    family = asked.get("family", product.family)
    if product.family not in (None, family):
        raise Usage(f"--condition family={family}: product {product.name} is for {product.family}")
    life_cycle = asked.get("life_cycle", product.life_cycle)
    if life_cycle not in ("closed", "any") or (product.life_cycle == "closed" and life_cycle == "any"):
        raise Usage(f"--condition life_cycle={life_cycle}: product {product.name} takes {product.life_cycle} parts")
    return Conditions(life_cycle, family, _choose_srk(product, asked.get("srk_hash")), wishes.uids)


def _choose_srk(product: Product, told: str | None) -> bytes | None:
    if told is None:
        if len(product.srk_hashes) > 1:
            raise Usage(f"product {product.name} lists several SRK hashes: name one with --condition srk_hash=HEX")
        return product.srk_hashes[0] if product.srk_hashes else None
    try:
        chosen = bytes.fromhex(told)
    except ValueError:
        raise Usage("--condition srk_hash: not hexadecimal") from None
    if len(chosen) not in (32, 64) or (product.srk_hashes and chosen not in product.srk_hashes):
        raise Usage("--condition srk_hash: not one of the product's")
    return chosen


def plan_pieces(wishes: Wishes, history: History, makers: Makers) -> tuple[Piece, ...]:
    """Every component, in the product's order. Raises Usage, NeedsPerson."""
    slots = _choose_slots(wishes, history)
    _check_values(wishes, slots)
    pieces = [piece for slot in slots for piece in _make_pieces(slot, wishes, makers)]
    if wishes.rights is not None:
        pieces.append(_make_rights(wishes, wishes.rights, history.policies + 1))
    if not pieces:
        raise Usage("there is nothing to put in: the product has no slot that a bundle brings")
    if len(pieces) > BUNDLE_COMPONENTS_MAX:
        boards = BUNDLE_COMPONENTS_MAX // max(1, len(slots))
        raise Usage(
            f"{len(pieces)} components, and a bundle has at most {BUNDLE_COMPONENTS_MAX}: {boards} boards a bundle"
        )
    for slot in slots:
        before = history.slot_versions.get(slot.name, 0)
        if slot.version < before:
            raise NeedsPerson(
                f"bundle-slot-version: slot {slot.name} was sent as version {before}, the product says less"
            )
    return tuple(pieces)


def _choose_slots(wishes: Wishes, history: History) -> list[SlotPolicy]:
    """A first loading holds every slot that an image wants from it, an update those that were named."""
    sent = [slot for slot in wishes.product.slots if slot.kind != "local"]
    if wishes.authority == FIRST:
        if wishes.only:
            raise Usage("--only: a first loading holds every slot of the product; boards refuse less")
        return sent
    if not wishes.only and wishes.rights is None:
        raise Usage("an update names its slots: --only SLOT, once for each")
    by_name = {slot.name: slot for slot in sent}
    for name in wishes.only:
        if name not in by_name:
            raise Usage(f"--only {name}: product {wishes.product.name} has no such slot that a bundle brings")
        owner = find_owner(by_name[name], history.rights)
        if owner != wishes.authority:
            raise NeedsPerson(
                f"bundle-authority: slot {name} is {owner}'s, not {wishes.authority}'s; a policy changes that"
            )
    return [slot for slot in sent if slot.name in wishes.only]


def find_owner(slot: SlotPolicy, rights: BundlePolicy) -> str:
    """Who may write a slot after the first loading (docs/wire.md 11.5)."""
    return "oem" if slot.kind == "update-key" else rights.slots.get(slot.name, "oem")


def _check_values(wishes: Wishes, slots: Iterable[SlotPolicy]) -> None:
    by_name = {slot.name: slot for slot in slots}
    for name in (*wishes.values, *(name for _, name in wishes.own_values)):
        slot = by_name.get(name)
        if slot is None:
            raise Usage(f"a value for {name!r}, and this bundle brings no such slot")
        if slot.kind not in VALUE_KINDS:
            raise Usage(f"a value for slot {name}, which is of kind {slot.kind}: its value is made here")
    for uid, name in wishes.own_values:
        if wishes.uids is None or uid not in wishes.uids:
            raise Usage(f"a value of slot {name} for board {uid.hex()}, which is not among the UIDs")


def _make_pieces(slot: SlotPolicy, wishes: Wishes, makers: Makers) -> Iterator[Piece]:
    """One for all boards, or one for each."""
    boards: tuple[bytes | None, ...] = (None,)
    if wishes.uids is not None and _is_own(slot, wishes, makers):
        boards = wishes.uids
    for uid in boards:
        value = _find_value(slot, uid, wishes, makers)
        size = value.size if isinstance(value, Handed) else len(value)
        most = BUNDLE_FILE_MAX_BYTES if slot.kind == "file" else SLOT_VALUE_MAX_BYTES
        if size > most:
            raise Usage(f"slot {slot.name}: a value of {size} bytes; kind {slot.kind} takes {most}")
        action = wishes.action or ("fill" if wishes.authority == FIRST else "replace")
        yield Piece(Component(slot.name, slot.kind, slot.destination, slot.version, action, size, uid), value)


def _is_own(slot: SlotPolicy, wishes: Wishes, makers: Makers) -> bool:
    """Whether each board of a list gets a value of its own."""
    if slot.kind == "update-key":
        return makers.is_per_device(_name_of(slot))
    return slot.kind == "random" or any(name == slot.name for _, name in wishes.own_values)


def _find_value(slot: SlotPolicy, uid: bytes | None, wishes: Wishes, makers: Makers) -> Secret | Handed:
    if slot.kind == "random":
        return Secret(makers.random(slot.length))
    if slot.kind == "update-key":
        return makers.update_key(_name_of(slot), uid)
    handed = None if uid is None else wishes.own_values.get((uid, slot.name))
    found = handed or wishes.values.get(slot.name) or slot.value
    if found is None:
        whose = "" if uid is None else f" of board {uid.hex()}"
        raise Usage(f"slot {slot.name}{whose} has no value: --value {slot.name}=FILE")
    return found


def _name_of(slot: SlotPolicy) -> str:
    return slot.name.removeprefix(SLOT_PREFIX)


def _make_rights(wishes: Wishes, rights: BundlePolicy, version: int) -> Piece:
    """A policy comes by a first loading or by oem alone; they share one count, as policies have no other order."""
    if wishes.authority not in (FIRST, "oem"):
        raise NeedsPerson(f"bundle-authority: {wishes.authority} may make no policy, oem may")
    known = {slot.name for slot in wishes.product.slots}
    strange = sorted(rights.slots.keys() - known)
    if strange:
        raise Usage(f"the policy names slot {strange[0]!r}, which product {wishes.product.name} does not have")
    value = Secret(BUNDLE_POLICY.encode(rights))
    return Piece(Component(POLICY, POLICY, "sealed", version, "replace", len(value)), value)
