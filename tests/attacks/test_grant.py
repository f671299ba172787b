"""Somebody on the line, or an issuer gone wrong, gives a board a Grant that is not for it or not whole."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mpagent.acceptance import check_slots
from mpagent.errors import Refused, RefusedForNow
from mpagent.record import Stage
from mpwire import labels, limits
from mpwire.codec import encode
from mpwire.errors import PeerBroke
from mpwire.messages.grant import GRANT, Contents, Grant, SlotGrant, make_check_value
from mpwire.messages.plain import REFUSAL, RETRY, Refusal
from mpwire.p256 import SoftKey
from mpwire.secret import Secret
from mpwire.trust import read_signed, write_signed
from tests.attacks.conftest import Shrugs
from tests.attacks.forge import Exchange, RogueIssuer, begin_anew, hello_of, prove
from tests.line import NOW, Device, Factory, Oem, ask_all

Slots = Callable[[list[SlotGrant], Secret], list[SlotGrant]]


def finish(device: Device) -> None:
    """The honest line is back: the board takes its own Grant."""
    assert device.enroll().stage is Stage.DONE
    assert device.line.oem.granted() == 1


def test_rogue_issuers_grant_would_be_taken_if_it_were_right(device: Device, rogue: RogueIssuer) -> None:
    """T-110 Control: an unedited Grant of this file passes, so each test below fails by its own edit."""
    granted = rogue.grant(Exchange.of(device))
    device.line.thief = lambda asked, answer: granted if asked == device.record().proof else answer

    with pytest.raises(Exception, match="grant-unknown"):
        device.enroll()

    assert device.record().stage is Stage.KEPT and device.secrets()["licence"] == b"rogue" * 4
    assert rogue.oem.rows("SELECT closed FROM units") == [(None,)]


def test_no_byte_of_a_grant_can_be_changed(device: Device, shrugs: Shrugs, oem: Oem) -> None:
    """T-110 Tampering: one bit in every region of a recorded Grant."""
    proof = device.record().proof
    assert proof is not None
    grant = oem.hear(proof)

    for at in [*range(64), *range(64, len(grant), 41), len(grant) - 1]:
        changed = bytearray(grant)
        changed[at] ^= 0x01
        shrugs(device, bytes(changed), ".")

    finish(device)


def test_grant_of_another_device_is_refused(device: Device, factory: Factory, shrugs: Shrugs, oem: Oem) -> None:
    """T-111 Mix-up: device A's Grant is played to device B; nothing of A's reaches B's chip."""
    other = factory.board()
    stolen = oem.hear(prove(other))

    shrugs(device, stolen, "grant-hello")

    assert not (device.disk.folder / "vault").exists()


def test_grant_to_an_older_challenge_is_refused(device: Device, shrugs: Shrugs, oem: Oem) -> None:
    """T-112 Replay: this board's own Grant for an earlier nonce."""
    proof = device.record().proof
    assert proof is not None
    older = oem.hear(begin_anew(device, proof, hello_of(proof)))

    shrugs(device, older, "grant-nonce")

    finish(device)


@pytest.mark.parametrize(
    ("check", "edit"),
    [
        ("grant-hello", {"hello_hash": bytes(32)}),
        ("grant-nonce", {"nonce": bytes(60)}),
        ("grant-ueid", {"ueid": b"\x01" + bytes(32)}),
        ("grant-product", {"product": "doorbell"}),
        ("grant-realm", {"realm": "production"}),
        ("grant-time", {"issued_at": NOW + 10**9}),
    ],
)
def test_grant_about_something_else_is_refused(
    device: Device, rogue: RogueIssuer, shrugs: Shrugs, check: str, edit: dict[str, Any]
) -> None:
    """T-113 Mix-up: a Grant signed by the OEM that names another exchange, board, product, realm or far future."""

    def head(grant: Grant) -> Grant:
        return grant._replace(**edit)

    shrugs(device, rogue.grant(Exchange.of(device), head=head), check)

    assert device.record().time_floor == 0
    finish(device)


def test_grant_under_another_job_name_does_not_open(device: Device, shrugs: Shrugs, rogue: RogueIssuer) -> None:
    """T-114 Mix-up: HPKE binds job, nonce, evidence and issuer; the head cannot be exchanged over a ciphertext."""
    exchange = Exchange.of(device)
    envelope = read_signed(rogue.grant(exchange), labels.TYP_GRANT)
    right = GRANT.decode(envelope.payload, limits.GRANT_MAX_BYTES)
    moved = write_signed(
        GRANT.encode(right._replace(job="job-2")),
        labels.TYP_GRANT,
        labels.AAD_GRANT,
        rogue.authority.chain("grant"),
        lambda raw: rogue.authority.sign("grant", raw),
    )

    shrugs(device, moved, ".")
    shrugs(device, rogue.grant(replace(exchange, evidence_hash=bytes(32))), ".")

    finish(device)


def test_grant_to_another_kem_key_does_not_open(device: Device, shrugs: Shrugs, rogue: RogueIssuer) -> None:
    """T-115 Mix-up: the right head over a ciphertext for somebody else's key."""
    stranger = SoftKey.generate().public_key()

    shrugs(device, rogue.grant(replace(Exchange.of(device), kem_key=stranger)), ".")

    finish(device)


def drop(slots: list[SlotGrant], _key: Secret) -> list[SlotGrant]:
    return slots[:-1]


def add(slots: list[SlotGrant], key: Secret) -> list[SlotGrant]:
    value = Secret(bytes(16))
    return [*slots, SlotGrant("root", "static", "sealed", 1, value, make_check_value(key, "root", 1, value))]


def double(slots: list[SlotGrant], _key: Secret) -> list[SlotGrant]:
    return [*slots[:-1], slots[1], slots[1]]


def rename(slots: list[SlotGrant], _key: Secret) -> list[SlotGrant]:
    return [slots[0]._replace(name="disk2"), *slots[1:]]


def move(slots: list[SlotGrant], _key: Secret) -> list[SlotGrant]:
    return [slots[0], slots[1]._replace(destination="plain"), *slots[2:]]


def retype(slots: list[SlotGrant], _key: Secret) -> list[SlotGrant]:
    return [slots[0], slots[1]._replace(kind="static"), *slots[2:]]


def send_local(slots: list[SlotGrant], key: Secret) -> list[SlotGrant]:
    value = Secret(bytes(32))
    return [slots[0]._replace(value=value, check=make_check_value(key, "disk", 1, value)), *slots[1:]]


def leave_out_value(slots: list[SlotGrant], _key: Secret) -> list[SlotGrant]:
    return [slots[0], slots[1]._replace(value=None, check=None), *slots[2:]]


def leave_out_check(slots: list[SlotGrant], _key: Secret) -> list[SlotGrant]:
    return [slots[0], slots[1]._replace(check=None), *slots[2:]]


def change_value(slots: list[SlotGrant], _key: Secret) -> list[SlotGrant]:
    return [slots[0], slots[1]._replace(value=Secret(bytes(31) + b"\x01")), *slots[2:]]


def change_version(slots: list[SlotGrant], _key: Secret) -> list[SlotGrant]:
    return [slots[0], slots[1]._replace(version=2), *slots[2:]]


@pytest.mark.parametrize(
    ("edit", "check"),
    [
        (drop, "grant-slots"),
        (add, "grant-slots"),
        (double, "grant-slots"),
        (rename, "grant-slots"),
        (move, "grant-slot-kind"),
        (retype, "grant-slot-kind"),
    ],
)
def test_grant_with_other_slots_is_refused(
    device: Device, rogue: RogueIssuer, shrugs: Shrugs, edit: Slots, check: str
) -> None:
    """T-116 Wrong contents: a slot missing, extra, doubled, renamed, of another kind or bound for another place."""
    shrugs(device, rogue.grant(Exchange.of(device), slots=edit), check)

    assert not (device.disk.folder / "vault").exists()
    finish(device)


@pytest.mark.parametrize(
    ("edit", "check"),
    [
        (send_local, "grant-slot-value"),
        (leave_out_value, "grant-slot-value"),
        (leave_out_check, "grant-slot-value"),
        (change_value, "grant-check-value"),
        (change_version, "grant-check-value"),
    ],
)
def test_grant_whose_values_do_not_fit_is_refused(
    device: Device, rogue: RogueIssuer, shrugs: Shrugs, edit: Slots, check: str
) -> None:
    """T-117 Wrong contents: a value that is not the one checked, or sent where the device makes it, or missing."""
    shrugs(device, rogue.grant(Exchange.of(device), slots=edit), check)

    assert not (device.disk.folder / "vault").exists()
    finish(device)


def test_certificate_for_another_key_is_refused(device: Device, rogue: RogueIssuer, shrugs: Shrugs, oem: Oem) -> None:
    """T-118 Swapped identity: the certificate is the OEM's and names this board, over a key it does not have."""
    exchange = Exchange.of(device)
    stranger = SoftKey.generate().public_key()

    shrugs(device, rogue.grant(replace(exchange, points={"identity": stranger})), "grant-certificate")

    finish(device)


def test_older_slot_version_is_refused(factory: Factory, oem: Oem, rogue: RogueIssuer) -> None:
    """T-119 Rollback: a Grant of the OEM that would put an older version over the one stored."""
    device = factory.board()
    prove(device)
    exchange, key = Exchange.of(device), Secret(bytes(range(32)))
    contents = Contents(tuple(rogue.slots(exchange, key)), key, bytes(32))
    check_slots(contents, device.image.slots, {"cloud": 1}, exchange.points)

    with pytest.raises(PeerBroke, match="grant-slot-version"):
        check_slots(contents, device.image.slots, {"cloud": 2}, exchange.points)


def test_oversized_grant_is_refused(device: Device, shrugs: Shrugs) -> None:
    """T-120 Flood: an answer beyond every bound, and one that says it is long and is not."""
    shrugs(device, b"\xd2" + bytes(limits.GRANT_MAX_BYTES), "grant-size")
    shrugs(device, b"\xd2\x84\x43\xa1\x01\x26\xa0\x5a\x7f\xff\xff\xff" + bytes(100), ".")
    shrugs(device, encode({0: 6, 1: 1, 2: bytes(32)}) + bytes(limits.CLOSED_MAX_BYTES), ".")

    finish(device)


def test_refusal_by_a_stranger_changes_nothing(factory: Factory, oem: Oem) -> None:
    """T-121 Denial: anybody can say no; at every stage it ends one run, keeps every byte and latches nothing."""
    device = factory.board()
    for stage in ("greeted", "proven", "kept"):
        ask_all(device, stage)
        for check, retry in [("clone", 3), ("scrapped", 3), ("quota", 2), ("busy", RETRY), ("x" * 64, 2)]:
            before = device.kept()
            refusal = REFUSAL.encode(Refusal(check, retry))
            device.line.thief = lambda _asked, _answer, refusal=refusal: refusal  # type: ignore[misc]
            with pytest.raises(RefusedForNow if retry == RETRY else Refused):
                device.enroll()
            assert device.kept() == before and "latch" not in before
        device.line.thief = lambda _asked, answer: answer

    finish(device)
    assert hashlib.sha256(device.line.heard[0]).digest() == hashlib.sha256(device.line.heard[1]).digest()


def test_grant_is_decodable_only_as_it_was_signed(device: Device, shrugs: Shrugs, oem: Oem) -> None:
    """T-122 Envelope: the same Grant with an unprotected header, a trailing byte, or spelled in another way."""
    proof = device.record().proof
    assert proof is not None
    grant = oem.hear(proof)
    envelope = read_signed(grant, labels.TYP_GRANT)
    protected, payload, signature = envelope.protected, envelope.payload, envelope.signature
    for other in (
        grant + b"\x00",
        grant[1:],
        b"\xd8\x12" + grant[1:],
        b"\xd2" + encode([protected, {4: b"kid"}, payload, signature]),
        b"\xd2" + encode([protected, {}, None, signature]),
        b"\xd2" + encode([protected, {}, payload, b""]),
    ):
        shrugs(device, other, ".")

    finish(device)
