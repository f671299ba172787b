"""Bundles that a board must not take: which check says so, and that nothing the board keeps has changed."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from mpagent.errors import BundleBroke, BundleRefused, HardwareGone, MediumBroke, NotClosed
from mpagent.offline.jobsecrets import from_file
from mpagent.offline.words import WORDS
from mpsim.board import BoardPlan, close_fuse, power_cycle
from mpwire.errors import MpError
from mpwire.jobsecret import Mistyped, write_job_secret
from mpwire.messages.bundle import Conditions
from mpwire.p256 import SoftKey
from mpwire.secret import Secret
from tests.offline.bench import ITEMS, OEM, OWNER, SERVICE, SLOTS, Site
from tests.offline.conftest import MakeSite
from tests.offline.maker import JOB_SECRET, NOW, TEST_POINT, Item, Maker, policy

Make = Callable[[Maker, Site], bytes]
NEW_KEY = Item("api-key", "static", b"n", 2, "replace")


def refuse(site: Site, raw: bytes, check: str, kind: type[BundleBroke] | None = None) -> BundleBroke:
    """It is refused by this check, in the dry run too, and the board is as it was."""
    before, exported = site.kept("lock"), site.exported()
    caught = []
    for attempt in (site.apply, site.try_):
        with pytest.raises(BundleBroke) as error:
            attempt(raw)
        caught.append(error.value)
    assert [one.check for one in caught] == [check, check], caught
    assert type(caught[0]) is (kind or (BundleRefused if WORDS[check].refused else BundleBroke))
    assert caught[0].advice and caught[0].exit_code == (77 if WORDS[check].refused else 76)
    assert site.kept("lock") == before and site.exported() == exported
    return caught[0]


FIRST: dict[str, tuple[str, Make]] = {
    "garbage": ("bundle-frame", lambda maker, site: b"not a bundle at all"),
    "nothing": ("bundle-frame", lambda maker, site: b""),
    "length-too-long": ("bundle-frame", lambda maker, site: b"mpbundle\xff\xff\xff\xff" + bytes(100)),
    "no-manifest": ("bundle-manifest", lambda maker, site: b"mpbundle\x00\x00\x00\x03\xd2\x84\x40"),
    "stranger": ("bundle-signer", lambda maker, site: Maker().make(ITEMS)),
    "role-grant": ("bundle-signer", lambda maker, site: with_chain(maker, role="grant")),
    "other-product-key": ("bundle-signer", lambda maker, site: with_chain(maker, product="toaster")),
    "other-realm-key": ("bundle-signer", lambda maker, site: with_chain(maker, realm="production")),
    "expired-key": ("bundle-signer", lambda maker, site: with_chain(maker, not_before=NOW - 9, not_after=NOW - 86_401)),
    "key-of-years": ("bundle-signer", lambda maker, site: with_chain(maker, not_after=NOW + 9_000_000)),
    "signature": ("bundle-signature", lambda maker, site: signed_by_another(maker)),
    "time": ("bundle-time", lambda maker, site: maker.make(ITEMS, made_at=NOW - 1)),
    "trust-update-of-a-stranger": ("trust-update", lambda maker, site: with_update(maker, SoftKey.generate())),
    "realm": ("bundle-realm", lambda maker, site: maker.make(ITEMS, realm="production")),
    "product": ("bundle-product", lambda maker, site: for_product(maker, "toaster")),
    "expired": ("bundle-expired", lambda maker, site: maker.make(ITEMS, expires=NOW - 86_401)),
    "family": ("bundle-family", lambda maker, site: on(maker, family="imx8mq")),
    "srk": ("bundle-srk", lambda maker, site: on(maker, srk_hash=bytes(32))),
    "uid": ("bundle-uid", lambda maker, site: on(maker, uids=(b"\x01" * 8, b"\x02" * 8))),
    "minimum-of-itself": ("bundle-old", lambda maker, site: maker.make(ITEMS, version=2)),
    "slot-missing": ("bundle-slots", lambda maker, site: maker.make(ITEMS[1:])),
    "slot-for-another-board": ("bundle-slots", lambda maker, site: for_another_board(maker)),
    "slot-unknown": ("bundle-slots", lambda maker, site: maker.make([*ITEMS, Item("extra", "static", b"x")])),
    "slot-kind": ("bundle-slots", lambda maker, site: maker.make([ITEMS[0]._replace(kind="random"), *ITEMS[1:]])),
    "slot-destination": (
        "bundle-slots",
        lambda maker, site: maker.make([ITEMS[0]._replace(destination="keyring"), *ITEMS[1:]]),
    ),
    "local-slot": ("bundle-slots", lambda maker, site: maker.make([*ITEMS, Item("disk", "static", b"x")])),
    "longer": ("bundle-payload", lambda maker, site: maker.make(ITEMS) + b"\0"),
    "shorter": ("bundle-payload", lambda maker, site: maker.make(ITEMS)[:-1]),
    "secret-missing": ("bundle-secret", lambda maker, site: maker.make(ITEMS, job_secret=JOB_SECRET)),
    "class-key": ("bundle-key", lambda maker, site: under_key(maker, TEST_POINT)),
    "update-key-shape": (
        "bundle-value",
        lambda maker, site: maker.make([*ITEMS[:2], OEM.item(plain=OEM.value[:-1]), ITEMS[3]]),
    ),
    "policy-shape": ("bundle-value", lambda maker, site: maker.make([*ITEMS, policy({}, plain=b"\xa0")])),
    "policy-for-mp": ("bundle-value", lambda maker, site: maker.make([*ITEMS, policy({}, plain=mp_policy())])),
}
"""For a board that holds nothing yet."""


def with_chain(maker: Maker, **changes: Any) -> bytes:
    maker.chain = [maker.certify(**changes)]
    return maker.make(ITEMS)


def signed_by_another(maker: Maker) -> bytes:
    maker.chain = [maker.certify()]
    maker.role = SoftKey.generate()
    return maker.make(ITEMS)


def with_update(maker: Maker, signer: SoftKey) -> bytes:
    maker.trust_update = maker.update_trust(signer=signer)
    return maker.make(ITEMS)


def for_product(maker: Maker, product: str) -> bytes:
    """By an issuer's key that may serve any product."""
    return maker.make(ITEMS, product=product)


def on(maker: Maker, **changes: Any) -> bytes:
    return maker.make(ITEMS, conditions=maker.plan(ITEMS).conditions._replace(**changes))


def for_another_board(maker: Maker) -> bytes:
    return maker.make([ITEMS[0]._replace(uid=b"\x01" * 8), *ITEMS[1:]])


def under_key(maker: Maker, point: bytes) -> bytes:
    maker.point = point
    return maker.make(ITEMS)


def mp_policy() -> bytes:
    """A policy that gives a slot to `mp`, which is no update authority."""
    from mpwire.codec import encode

    return encode({0: 1, 1: {"api-key": "mp"}, 2: {}})


@pytest.mark.parametrize("name", FIRST)
def test_first_loading_that_is_wrong_in_one_place_is_refused(make_site: MakeSite, maker: Maker, name: str) -> None:
    """T-678 Wrong bundle: for another product, realm, SoC, fuses or board; by nobody, out of date or torn."""
    check, make = FIRST[name]
    site = make_site(changes={"bundle_minimum": 3} if check == "bundle-old" else {})
    refuse(site, make(maker, site), check)
    assert site.kept("lock") == {}
    fresh = Maker()
    fresh.root = maker.root
    site.apply(fresh.make(ITEMS, version=3))
    assert site.values()["api-key"] == ITEMS[0].plain


UPDATES: dict[str, tuple[str, Make]] = {
    "no-such-authority": ("bundle-authority-key", lambda maker, site: maker.make([NEW_KEY], maker.under(SERVICE))),
    "stranger-in-its-name": (
        "bundle-authority-key",
        lambda maker, site: maker.make([NEW_KEY], maker.under(type(OEM)("oem"))),
    ),
    "issuer-signs-an-update": (
        "bundle-signer",
        lambda maker, site: maker.make([NEW_KEY], maker.first()._replace(authority="oem")),
    ),
    "authority-signs-a-first-loading": (
        "bundle-signer",
        lambda maker, site: maker.make(ITEMS, maker.under(OEM)._replace(authority="mp"), version=2),
    ),
    "another-key": (
        "bundle-key",
        lambda maker, site: maker.make([NEW_KEY], maker.under(type(OEM)("oem", OEM.signer, Secret(bytes(32))))),
    ),
    "other-authority's-slot": (
        "bundle-authority",
        lambda maker, site: maker.make([NEW_KEY], maker.under(OWNER), version=5),
    ),
    "other-authority's-key": (
        "bundle-authority",
        lambda maker, site: maker.make([OEM.item(version=2, action="replace")], maker.under(OWNER), version=5),
    ),
    "its-own-key": (
        "bundle-authority",
        lambda maker, site: maker.make([OWNER.item(version=2, action="replace")], maker.under(OWNER), version=5),
    ),
    "policy-of-the-owner": (
        "bundle-authority",
        lambda maker, site: maker.make([policy({"api-key": "owner"})], maker.under(OWNER), version=5),
    ),
    "older-value": (
        "bundle-slot-version",
        lambda maker, site: maker.make([NEW_KEY._replace(version=0)], maker.under(OEM)),
    ),
    "mp-minimum": ("bundle-old", lambda maker, site: maker.make(ITEMS, version=1)),
    "owner-minimum-of-the-policy": (
        "bundle-old",
        lambda maker, site: maker.make([Item("owned", "static", b"n", 2, "replace")], maker.under(OWNER), version=4),
    ),
    "unknown-slot": ("bundle-slots", lambda maker, site: maker.make([Item("x", "static", b"")], maker.under(OEM))),
}
"""For a board that took a first loading of version 2, whose policy wants version 5 of the owner."""


@pytest.mark.parametrize("name", UPDATES)
def test_update_without_the_right_is_refused(make_site: MakeSite, maker: Maker, name: str) -> None:
    """T-679 Overreach: a bundle under one authority that would touch another's slots, keys, rights or versions."""
    from mpagent.image import WantedSlot

    site = make_site(slots=(*SLOTS, WantedSlot("owned", "static", "sealed")))
    rights = policy({"owned": "owner"}, {"owner": 5})
    items = [*ITEMS, Item("owned", "static", b"o"), rights]
    site.apply(maker.make(items, version=2, minimum=2))
    check, make = UPDATES[name]
    refuse(site, make(maker, site), check)
    site.apply(maker.make([Item("owned", "static", b"n", 2, "replace")], maker.under(OWNER), version=5))
    assert site.values()["owned"] == b"n"


def test_update_before_anything_was_loaded_is_refused(site: Site, maker: Maker) -> None:
    error = refuse(site, maker.make([NEW_KEY], maker.under(OEM)), "bundle-authority-key")
    assert "nothing was loaded yet" in str(error)


OTHERS = ("bundle-payload", "bundle-signer", "bundle-authority-key")
"""Checks that a changed digest or authority meets first."""


def test_every_field_of_the_manifest_is_under_the_signature(site: Site, maker: Maker) -> None:
    """T-680 Edited manifest: any field changed by who has no key is refused, and by who stole one it opens nothing."""
    draft = maker.plan(ITEMS, version=2)
    plains = [one.plain for one in ITEMS]
    good = maker.seal(draft, plains, maker.first(), None)
    length = int.from_bytes(good[8:12], "big")
    changes: dict[str, Any] = {
        "product": "toaster",
        "realm": "production",
        "job": "lot-2",
        "authority": "oem",
        "version": 3,
        "minimum": 1,
        "made_at": NOW + 1,
        "expires": NOW + 5,
        "conditions": Conditions("any"),
        "salt": bytes(32),
        "components": tuple(one._replace(action="replace") for one in draft.components),
        "policy_digest": b"\x01" * 32,
        "secret_id": bytes(8),
        "digests": (bytes(32),) * len(ITEMS),
        "key_check": bytes(16),
    }
    assert set(changes) == set(draft._fields)
    for name, value in changes.items():
        forged = maker.seal(draft, plains, maker.first(), None, **{name: value})
        stolen_key = refuse_any(site, forged)
        assert stolen_key in {"bundle-key", "bundle-secret", f"bundle-{name}", *OTHERS}, name
        head = forged[12 : 12 + int.from_bytes(forged[8:12], "big")]
        signed_once = head[:-64] + good[12 + length - 64 : 12 + length]
        without_key = good[:8] + len(signed_once).to_bytes(4, "big") + signed_once + good[12 + length :]
        assert refuse_any(site, without_key) in {"bundle-signature", *OTHERS}, name
    site.apply(good)


def refuse_any(site: Site, raw: bytes) -> str:
    before = site.kept("lock")
    with pytest.raises(BundleBroke) as caught:
        site.apply(raw)
    assert site.kept("lock") == before
    return caught.value.check


def test_every_4_kib_cut_is_refused_and_leaves_nothing(site: Site, maker: Maker) -> None:
    """T-681 Torn: cut at any block, on the way from the image or by a stick that was pulled."""
    raw = maker.make(ITEMS)
    for end in range(0, len(raw), 4_096):
        assert refuse_any(site, raw[:end]) in {"bundle-frame", "bundle-payload"}, end
    assert site.kept("lock") == {}


def test_components_swapped_between_bundles_are_refused(site: Site, maker: Maker) -> None:
    """T-682 Swap: the payload of an older bundle behind a newer manifest, whole or one component of it."""
    one, other = maker.make(ITEMS, version=1), maker.make(ITEMS, version=2)
    heads = [12 + int.from_bytes(raw[8:12], "big") for raw in (one, other)]
    assert refuse_any(site, other[: heads[1]] + one[heads[0] :]) == "bundle-payload"
    assert refuse_any(site, other[:-40] + one[-40:]) == "bundle-payload"
    resalted = maker.seal(maker.plan(ITEMS), [one.plain for one in ITEMS], maker.first(), None, salt=bytes(32))
    assert refuse_any(site, resalted) == "bundle-key"


def test_component_under_the_right_keys_that_does_not_open_keeps_nothing(site: Site, maker: Maker) -> None:
    """T-683 Careless OEM: digests fit, keys fit, and the last chunk of the last component is another's."""
    items = [*ITEMS[:1], *ITEMS[2:], ITEMS[1]]
    draft = maker.plan(items)
    good = maker.seal(draft, [one.plain for one in items], maker.first(), None)
    spoilt = bytearray(good)
    spoilt[-1] ^= 1
    digests = list(frame_of(good).bundle.digests)
    start = frame_of(good).places[-1].offset
    digests[-1] = hashlib.sha256(bytes(spoilt[start:])).digest()
    head = maker.seal(draft, [one.plain for one in items], maker.first(), None, digests=tuple(digests))
    raw = head[: frame_of(head).places[0].offset] + bytes(spoilt[frame_of(good).places[0].offset :])
    refuse(site, raw, "bundle-open")
    assert site.kept("lock") == {} and not list(site.disk.folder.rglob("*.new"))


def frame_of(raw: bytes) -> Any:
    import io

    from mpwire.bundle import read_bundle

    return read_bundle(io.BytesIO(raw))


def test_open_part_takes_no_bundle_for_closed_ones(make_site: MakeSite, maker: Maker) -> None:
    """T-684 Open part: by its fuses; by its test key where they are not asked; the fuse alone is no proof."""
    site = make_site(plan=BoardPlan(closed=False))
    refuse(site, maker.make(ITEMS), "bundle-life-cycle")
    refuse(site, maker.make(ITEMS, conditions=Conditions("any")), "bundle-key")
    maker.point = TEST_POINT
    before = site.kept("lock")
    with pytest.raises(NotClosed, match="test key"):
        site.apply(maker.make(ITEMS, conditions=Conditions("any")))
    assert site.kept("lock") == before == {}


def test_part_that_was_just_closed_says_to_reboot(make_site: MakeSite, maker: Maker) -> None:
    site = make_site(plan=BoardPlan(closed=False))
    close_fuse(site.folder / "chip")
    error = refuse(site, maker.make(ITEMS), "bundle-key")
    assert "reboot" in error.advice
    power_cycle(site.folder / "chip")
    site.apply(maker.make(ITEMS))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (write_job_secret(Secret(bytes(16))), BundleRefused),
        (write_job_secret(JOB_SECRET)[:-1], Mistyped),
        ("", Mistyped),
        ("\u00e4", Mistyped),
        (None, MediumBroke),
    ],
)
def test_wrong_job_secret_opens_nothing(
    make_site: MakeSite, maker: Maker, text: str | None, kind: type[MpError]
) -> None:
    """T-685 Leaked image: class key and bundle together open nothing without the job secret, nor with another's."""
    site = make_site()
    path = site.folder / "secret"
    if text is not None:
        path.write_text(text)
    site.secrets = (from_file(path, required=True),)
    with pytest.raises(kind) as caught:
        site.apply(maker.make(ITEMS, job_secret=JOB_SECRET))
    assert site.kept("lock") == {} and caught.value.exit_code in (74, 77)
    path.write_text(write_job_secret(JOB_SECRET))
    site.apply(maker.make(ITEMS, job_secret=JOB_SECRET))


def test_class_key_that_the_chip_does_not_give_is_told_as_hardware(site: Site, maker: Maker) -> None:
    from mpsim.faults import Fault, script

    script(site.folder / "chip", "extract", [Fault.GONE])
    with pytest.raises(HardwareGone):
        site.apply(maker.make(ITEMS))
    assert site.kept("lock") == {}


def test_every_check_of_the_document_has_words_and_a_test() -> None:
    met = {check for check, _ in (*FIRST.values(), *UPDATES.values())} | {"bundle-open", "bundle-life-cycle"}
    assert set(WORDS) == met
