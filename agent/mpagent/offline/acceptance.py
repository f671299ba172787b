"""Deciding whether a bundle is for this board (docs/wire.md 11.4.3 to 11.4.8, 11.4.12, 11.4.13). Touches nothing."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from mpagent.closed import say_why_not
from mpagent.errors import NotClosed
from mpagent.hal.ports import LifeCycle, SocFacts
from mpagent.image import Image
from mpagent.offline.anchors import UPDATE_SLOT
from mpagent.offline.facts import Facts
from mpagent.offline.holdings import Holdings
from mpagent.offline.words import refuse, told
from mpagent.slots import VaultSlot
from mpwire import bundle as wire
from mpwire.bundle import POLICY, Frame
from mpwire.limits import SLOT_VALUE_MAX_BYTES
from mpwire.messages.bundle import BUNDLE_POLICY, UPDATE_KEY, Bundle, BundlePolicy, Component, Conditions, UpdateKey
from mpwire.secret import Secret
from mpwire.trust import Trust, apply_trust_update

FIRST: Final = "mp"
"""Authority of a first loading."""
_PIN: Final = "apply the bundle in the provisioning image, which reads the class key, or pin an open_blob in this one"
_CLOSED: Final = (LifeCycle.CLOSED, LifeCycle.CLOSED_PENDING_REBOOT)


class Piece(NamedTuple):
    """A component for this board, with its place in the manifest."""

    number: int
    component: Component
    replaces: bool = False
    """The board has a value already."""


class Plan(NamedTuple):
    """What becomes of each component for this board."""

    written: tuple[Piece, ...]
    skipped: tuple[Piece, ...]
    """Action `fill`, of slots that the board has already."""
    policy: Piece | None
    """None as well where the board has a newer one: this one is passed over."""
    made: tuple[str, ...]
    """Slots of kind `local` that this board has not made yet."""

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Everything that has to open."""
        whole = (*self.written, *self.skipped, *(() if self.policy is None else (self.policy,)))
        return tuple(sorted(whole, key=lambda one: one.number))

    @property
    def valued(self) -> tuple[Piece, ...]:
        """Of these, those whose value has a shape of its own."""
        return tuple(one for one in self.pieces if one.component.kind in ("update-key", POLICY))


def find_update_key(authority: str, slots: Mapping[str, VaultSlot]) -> UpdateKey:
    """The key that this board holds for an update authority. Raises BundleRefused("bundle-authority-key")."""
    slot = slots.get(UPDATE_SLOT[authority])
    if slot is None:
        raise refuse("bundle-authority-key", authority if slots else f"{authority}; nothing was loaded yet")
    return UPDATE_KEY.decode(slot.value.reveal(), SLOT_VALUE_MAX_BYTES)


def check_issuer(frame: Frame, trust: Trust, update: bytes | None) -> Trust:
    """11.4.2, 11.4.3 of a first loading; what is believed from now on."""
    with told("trust-update"):
        trust = trust if update is None else apply_trust_update(update, trust)
    with told("bundle-signer"):
        wire.verify_issuer(frame, trust)
    return trust


def check_authority(frame: Frame, key: UpdateKey) -> None:
    """11.4.3 of an update."""
    with told("bundle-signer"):
        wire.verify_authority(frame, key.point)


def check_subject(bundle: Bundle, image: Image) -> None:
    """11.4.4."""
    if bundle.realm != image.realm:
        raise refuse("bundle-realm", f"{bundle.realm}, not {image.realm}")
    if bundle.product != image.product:
        raise refuse("bundle-product", f"{bundle.product}, not {image.product}")


def check_time(bundle: Bundle, floor: int) -> None:
    """11.4.5."""
    if bundle.expires < floor:
        raise refuse("bundle-expired")


def check_conditions(conditions: Conditions, facts: SocFacts) -> None:
    """11.4.6. What the part does not tell is not met. Whether this boot is closed, 11.4.13 asks."""
    if conditions.family not in (None, facts.family):
        raise refuse("bundle-family", f"{conditions.family}, not {facts.family}")
    if conditions.srk_hash not in (None, facts.srk_hash):
        raise refuse("bundle-srk", "" if facts.srk_hash is not None else "the part does not tell its fuses")
    if conditions.life_cycle == "closed" and facts.life_cycle not in _CLOSED:
        raise refuse("bundle-life-cycle", "" if facts.life_cycle is not None else "the part does not tell")
    if conditions.uids is not None and facts.uid not in conditions.uids:
        raise refuse("bundle-uid", "" if facts.uid is not None else "the part does not tell its UID")


def check_version(bundle: Bundle, facts: Facts, image: Image) -> None:
    """11.4.7. The image's minimum is for the first loading: update authorities count their own versions."""
    before = facts.of(bundle.authority)
    if bundle.version < before.version:
        raise refuse("bundle-old", f"version {bundle.version}, and version {before.version} was taken")
    minimum = max(before.minimum, image.bundle_minimum if bundle.authority == FIRST else 0)
    if bundle.version < minimum:
        raise refuse("bundle-old", f"version {bundle.version}, and the lowest is {minimum}")


def plan_slots(bundle: Bundle, uid: bytes | None, image: Image, held: Holdings) -> Plan:
    """11.4.8."""
    slots, facts = held.slots, held.facts
    pieces = [Piece(number, one, one.name in slots) for number, one in wire.find_components(bundle, uid)]
    wanted = {one.name: one for one in image.slots}
    policy = next((one for one in pieces if one.component.kind == POLICY), None)
    pieces = [one for one in pieces if one is not policy]
    for _, component, _ in pieces:
        want = wanted.get(component.name)
        if want is None:
            raise refuse("bundle-slots", f"this image asks for no slot {component.name!r}")
        if (component.kind, component.destination) != (want.kind, want.destination):
            raise refuse("bundle-slots", f"slot {component.name!r} is another kind of thing than this image asks for")
    if bundle.authority == FIRST:
        _check_whole(pieces, image)
    skipped = tuple(one for one in pieces if one.component.action == "fill" and one.component.name in slots)
    written = tuple(one for one in pieces if one not in skipped)
    _check_slot_versions(written, {**slots, **held.torn})
    _check_rights(bundle, pieces, policy, facts)
    if policy is not None and policy.component.version < facts.policy_version:
        policy = None
    made = tuple(one.name for one in image.slots if one.kind == "local" and one.name not in slots)
    return Plan(written, skipped, policy, made)


def _check_whole(pieces: Sequence[Piece], image: Image) -> None:
    there = {one.component.name for one in pieces}
    missing = [one.name for one in image.slots if one.kind != "local" and one.name not in there]
    if missing:
        raise refuse("bundle-slots", f"nothing for slot {missing[0]!r} of this board")


def _check_slot_versions(written: Sequence[Piece], slots: Mapping[str, VaultSlot]) -> None:
    for _, component, _ in written:
        before = slots.get(component.name)
        if before is not None and component.version < before.version:
            raise refuse("bundle-slot-version", f"{component.name!r}: {component.version} below {before.version}")


def _check_rights(bundle: Bundle, pieces: Sequence[Piece], policy: Piece | None, facts: Facts) -> None:
    authority = bundle.authority
    if policy is not None and authority not in (FIRST, "oem"):
        raise refuse("bundle-authority", f"{authority} may make no policy")
    if authority == FIRST:
        return
    for _, component, _ in pieces:
        owner = "oem" if component.kind == "update-key" else facts.owner(component.name)
        if owner != authority:
            raise refuse("bundle-authority", f"slot {component.name!r} is {owner}'s, not {authority}'s")


def check_value(component: Component, value: Secret) -> BundlePolicy | None:
    """11.4.12; the policy, where it is one."""
    with told("bundle-value"):
        if component.kind == "update-key":
            UPDATE_KEY.decode(value.reveal(), SLOT_VALUE_MAX_BYTES)
        if component.kind == POLICY:
            policy: BundlePolicy = BUNDLE_POLICY.decode(value.reveal(), SLOT_VALUE_MAX_BYTES)
            return policy
    return None


def judge_closed(facts: SocFacts, image: Image, *, class_key_holds: bool) -> str:
    """11.4.13: how closed is shown in this boot, "none" where the product takes open parts. Raises NotClosed.

    `class_key_holds`: the class key of the running boot opened this first loading, or is the one that opened an
    earlier one. The fuse alone is no proof, and neither is the key where the fuse says open.
    """
    if facts.life_cycle in _CLOSED and class_key_holds:
        return "mp-key"
    if facts.life_cycle is LifeCycle.CLOSED and facts.closed_by in ("secure-world", "open-blob"):
        return facts.closed_by
    if image.allow_open:
        return "none"
    raise NotClosed(say_why_not(facts.life_cycle, _PIN))
