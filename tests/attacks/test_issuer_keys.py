"""Keys of the issuer that are stolen, expired, revoked, of another role, or never were the issuer's."""

from collections.abc import Callable
from typing import Any

import pytest

from mpagent.belief import keep_update, make_trust
from mpagent.record import Record, Stage
from mpwire import labels
from mpwire.cose import thumbprint
from mpwire.errors import PeerBroke
from mpwire.p256 import SoftKey
from mpwire.trust import Trust, apply_trust_update, check_chain, read_signed
from tests.attacks.conftest import Shrugs
from tests.attacks.forge import EIGHT_HOURS_S, Exchange, RogueIssuer, name_root
from tests.line import NOW, Device, Oem

MakeChain = Callable[[RogueIssuer, SoftKey], list[bytes]]


def finish(device: Device) -> None:
    """The honest line is back."""
    assert device.enroll().stage is Stage.DONE


def test_unknown_root_is_refused(device: Device, rogue: RogueIssuer, shrugs: Shrugs) -> None:
    """T-130 Another issuer: a whole chain, right but for its root."""
    root, key = SoftKey.generate(), SoftKey.generate()

    shrugs(device, rogue.grant(Exchange.of(device), key=key, chain=[rogue.certify(key, root)]), "issuer-root")

    finish(device)


def test_certificate_signed_by_another_root_is_refused(device: Device, rogue: RogueIssuer, shrugs: Shrugs) -> None:
    """T-131 Forgery: it names our root as its signer; another key signed."""
    root, key = SoftKey.generate(), SoftKey.generate()
    forged = rogue.certify(key, root, signer=thumbprint(rogue.root.public_key()))

    shrugs(device, rogue.grant(Exchange.of(device), key=key, chain=[forged]), "issuer-signature")


def test_grant_by_a_key_with_another_role_is_refused(device: Device, rogue: RogueIssuer, shrugs: Shrugs) -> None:
    """T-132 Role: the head key, which stands on every server, signs a Grant."""
    chain = rogue.authority.chain("head")
    key = HeadKey(rogue)

    shrugs(device, rogue.grant(Exchange.of(device), key=key, chain=chain), "issuer-role")  # type: ignore[arg-type]

    finish(device)


class HeadKey:
    """The head key as a signer."""

    def __init__(self, rogue: RogueIssuer) -> None:
        self._rogue = rogue

    def public_key(self) -> bytes:
        return self._rogue.authority.public_key("head")

    def sign(self, message: bytes) -> bytes:
        return self._rogue.authority.sign("head", message)


def test_grant_by_a_key_with_the_right_chain_of_another_is_refused(
    device: Device, rogue: RogueIssuer, shrugs: Shrugs
) -> None:
    """T-133 Forgery: the OEM's true chain over a signature that its key did not make."""
    chain = rogue.authority.chain("grant")

    shrugs(device, rogue.grant(Exchange.of(device), key=SoftKey.generate(), chain=chain), "grant-signature")

    finish(device)


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"realm": "production"}, "issuer-realm"),
        ({"product": "doorbell"}, "issuer-product"),
        ({"not_after": NOW - 86_401}, "issuer-expired"),
        ({"role": "tls"}, "issuer-role"),
        ({"role": "trust"}, "issuer-role"),
    ],
)
def test_certificate_that_does_not_cover_the_grant_is_refused(
    device: Device, rogue: RogueIssuer, shrugs: Shrugs, changes: dict[str, Any], check: str
) -> None:
    """T-134 Stolen key: of another realm or product, or one that ended before the image was built."""
    key = SoftKey.generate()

    shrugs(device, rogue.grant(Exchange.of(device), key=key, chain=[rogue.certify(key, **changes)]), check)

    finish(device)


def test_certificate_that_ended_before_the_time_floor_is_refused(
    device: Device, rogue: RogueIssuer, shrugs: Shrugs
) -> None:
    """T-135 Clock: a key that ended last week counts for no device that heard a later time from a verified issuer."""
    key = SoftKey.generate()
    grant = rogue.grant(Exchange.of(device), key=key, chain=[rogue.certify(key, not_after=NOW + 60)])
    with device.power() as board:
        journal = device.parts(board).journal
        journal.save(journal.load()._replace(time_floor=NOW + 61))

    shrugs(device, grant, "issuer-expired")

    assert device.record().time_floor == NOW + 61
    finish(device)


def test_revoked_epoch_is_refused(device: Device, rogue: RogueIssuer, shrugs: Shrugs) -> None:
    """T-136 Revocation: once a device believes epoch 2, a key of epoch 1 signs for nobody."""
    key = SoftKey.generate()
    device.image = device.image._replace(epoch=2)

    shrugs(device, rogue.grant(Exchange.of(device), key=key, chain=[rogue.certify(key)]), "issuer-epoch")


@pytest.mark.parametrize(
    "changes",
    [
        {"not_after": NOW + EIGHT_HOURS_S + 1},
        {"not_before": NOW + 7_776_000 - 60, "not_after": NOW + 7_776_060},
        {"epoch": 0, "not_after": NOW + 60},
    ],
)
def test_delegation_beyond_its_bounds_is_refused(
    device: Device, rogue: RogueIssuer, shrugs: Shrugs, changes: dict[str, Any]
) -> None:
    """T-137 Delegation: a software key certified for over a shift, past its signer's end, or of an older epoch."""
    middle, key = SoftKey.generate(), SoftKey.generate()
    chain = [rogue.certify(key, middle, **changes), rogue.certify(middle)]

    shrugs(device, rogue.grant(Exchange.of(device), key=key, chain=chain), "issuer-delegation")

    finish(device)


def test_delegation_widens_no_product(device: Device, rogue: RogueIssuer, shrugs: Shrugs) -> None:
    """T-137 Delegation: a key for one product certifies one for all."""
    middle, key = SoftKey.generate(), SoftKey.generate()
    chain = [rogue.certify(key, middle, not_after=NOW + 60), rogue.certify(middle, product="camera")]

    shrugs(device, rogue.grant(Exchange.of(device), key=key, chain=chain), "issuer-delegation")


def test_delegation_of_a_shift_is_taken(device: Device, rogue: RogueIssuer) -> None:
    """T-137 Delegation: the bound itself holds: eight hours, under a role certificate, are enough for a Grant."""
    middle, key = SoftKey.generate(), SoftKey.generate()
    chain = [rogue.certify(key, middle, not_after=NOW + EIGHT_HOURS_S), rogue.certify(middle)]
    granted = rogue.grant(Exchange.of(device), key=key, chain=chain)
    device.line.thief = lambda asked, answer: granted if asked == device.record().proof else answer

    with pytest.raises(Exception, match="grant-unknown"):
        device.enroll()

    assert device.record().stage is Stage.KEPT


def test_chain_of_three_is_refused(device: Device, rogue: RogueIssuer, shrugs: Shrugs) -> None:
    """T-138 Delegation: a delegated key delegates once more; an empty chain is none."""
    one, two, three = SoftKey.generate(), SoftKey.generate(), SoftKey.generate()
    chain = [
        rogue.certify(three, two, not_after=NOW + 60),
        rogue.certify(two, one, not_after=NOW + 60),
        rogue.certify(one),
    ]

    shrugs(device, rogue.grant(Exchange.of(device), key=three, chain=chain), "issuer-chain")
    shrugs(device, rogue.grant(Exchange.of(device), key=three, chain=[]), "issuer-chain")


def test_forged_trust_update_is_refused(device: Device, rogue: RogueIssuer, shrugs: Shrugs) -> None:
    """T-139 Trust: an update by an unknown key, by the grant key, of another realm, or with a bit changed."""
    exchange = Exchange.of(device)
    right = rogue.update()
    for update, check in (
        (rogue.update(signer=SoftKey.generate()), "trust-update-root"),
        (rogue.update(realm="production"), "trust-update-realm"),
        (right[:-1] + bytes([right[-1] ^ 1]), "trust-update-signature"),
    ):
        shrugs(device, rogue.grant(exchange, update=update), check)

    assert device.record().epoch == 0 and device.record().trust_updates == ()
    finish(device)


def test_trust_update_to_a_lower_epoch_is_refused(device: Device, rogue: RogueIssuer, shrugs: Shrugs) -> None:
    """T-140 Rollback: a recorded update would bring revoked keys back."""
    device.image = device.image._replace(epoch=3)

    shrugs(device, rogue.grant(Exchange.of(device), update=rogue.update()), "trust-update-epoch")


def test_new_root_without_its_own_signature_is_refused(device: Device, rogue: RogueIssuer, shrugs: Shrugs) -> None:
    """T-141 Rotation: a root that does not sign for itself, or signed for another epoch, is nobody's."""
    fresh = SoftKey.generate()
    exchange = Exchange.of(device)
    for roots in (
        [(fresh.public_key(), bytes(64))],
        [name_root(fresh, epoch=1)],
        [name_root(fresh, realm="production")],
        [(fresh.public_key(), name_root(SoftKey.generate())[1])],
    ):
        shrugs(device, rogue.grant(exchange, update=rogue.update(roots=roots)), "trust-update-new-root")

    assert device.record().trust_updates == ()


def test_good_trust_update_ends_the_old_epoch_for_good(device: Device, rogue: RogueIssuer) -> None:
    """T-142 Revocation: the update comes with a Grant, is kept with it, and the old chain is refused from then on."""
    key, fresh = SoftKey.generate(), SoftKey.generate()
    update = rogue.update(roots=[name_root(fresh)])
    granted = rogue.grant(Exchange.of(device), key=key, chain=[rogue.certify(key, epoch=2)], update=update)
    device.line.thief = lambda asked, answer: granted if asked == device.record().proof else answer
    with pytest.raises(Exception, match="grant-unknown"):
        device.enroll()
    record = device.record()
    assert record.epoch == 2 and record.trust_updates == (update,)

    trust = make_trust(record, device.image)
    assert trust.roots == (*device.image.roots, fresh.public_key())
    with pytest.raises(PeerBroke, match="issuer-epoch"):
        check_chain(read_of(rogue.grant(Exchange.of(device))), "grant", "camera", trust)
    renewed = rogue.grant(Exchange.of(device), key=key, chain=[rogue.certify(key, fresh, epoch=2)])
    assert check_chain(read_of(renewed), "grant", "camera", trust).point == key.public_key()


def read_of(grant: bytes) -> Any:
    """A Grant's envelope."""
    return read_signed(grant, labels.TYP_GRANT)


def test_grant_of_the_old_epoch_beside_its_own_revocation_is_refused(
    device: Device, rogue: RogueIssuer, shrugs: Shrugs
) -> None:
    """T-143 Revocation: a stolen key repeats the update that ends it; the update is believed first."""
    shrugs(device, rogue.grant(Exchange.of(device), update=rogue.update()), "issuer-epoch")

    assert device.record().epoch == 0
    finish(device)


def test_roots_do_not_pile_up_without_end(rogue: RogueIssuer, oem: Oem) -> None:
    """T-144 Flood: rotation after rotation; a device believes a bounded number of roots."""
    trust = Trust("lab", oem.image.roots, 1, NOW)
    with pytest.raises(PeerBroke, match="trust-update-roots"):
        for _ in range(9):
            trust = apply_trust_update(rogue.update(roots=[name_root(SoftKey.generate())]), trust)

    assert len(trust.roots) == 8


def test_root_written_into_the_record_counts_for_nothing(device: Device, rogue: RogueIssuer, shrugs: Shrugs) -> None:
    """T-145 Edited disk: somebody with a flash programmer adds a root of his own; only the image's count."""
    thief, key = SoftKey.generate(), SoftKey.generate()
    planted = rogue.update(signer=thief, roots=[name_root(thief)])
    with device.power() as board:
        journal = device.parts(board).journal
        for _ in range(2):
            journal.save(journal.load()._replace(trust_updates=(planted, b"garbage")))
    grant = rogue.grant(Exchange.of(device), key=key, chain=[rogue.certify(key, thief, epoch=2)])

    shrugs(device, grant, "issuer-root")

    assert make_trust(device.record(), device.image).roots == device.image.roots
    assert make_trust(device.record(), device.image).epoch == 0
    finish(device)


def test_edited_epoch_brings_no_revoked_key_back(rogue: RogueIssuer, oem: Oem) -> None:
    """T-146 Edited disk: the epoch in the record is set back; the update it came by says it again."""
    update = rogue.update()
    record = Record(epoch=0, trust_updates=(update,))

    assert make_trust(record, oem.image).epoch == 2


def test_updates_kept_stay_few(rogue: RogueIssuer, oem: Oem) -> None:
    """T-144 Flood: updates without roots replace each other; those that changed nothing are not kept."""
    record, roots = Record(), [name_root(SoftKey.generate(), epoch=3)]
    for update in (rogue.update(epoch=2), rogue.update(epoch=3, roots=roots), *map(rogue_epoch(rogue), range(4, 40))):
        record = record._replace(trust_updates=keep_update(record, oem.image, update))
        record = record._replace(trust_updates=keep_update(record, oem.image, update))

    assert len(record.trust_updates) == 2
    trust = make_trust(record, oem.image)
    assert trust.epoch == 39 and trust.roots[-1] == roots[0][0]


def rogue_epoch(rogue: RogueIssuer) -> Callable[[int], bytes]:
    """An update to an epoch and nothing else."""
    return lambda epoch: rogue.update(epoch=epoch)
