"""A bundle on a good board: from nothing to updates, by whom each slot may be written."""

import io

import pytest

from mpagent.offline.jobsecrets import from_file
from mpagent.offline.telling import describe_outcome, describe_result
from mpagent.record import Stage
from mpwire import bundlekeys
from mpwire.bundlereceipt import HeardReceipt, check_mac, read_receipt, split_receipts
from mpwire.jobsecret import write_job_secret
from mpwire.messages.bundle import Conditions
from mpwire.messages.grant import make_check_value
from mpwire.secret import Secret
from mpwire.ueid import make_ueid
from tests.offline.bench import API_KEY, ITEMS, MODEL, OEM, OWNER, SLOTS, Site
from tests.offline.conftest import MakeSite
from tests.offline.maker import JOB_SECRET, Item, Maker, policy


def read_receipts(site: Site) -> dict[str, HeardReceipt]:
    """By file name, as the line hands them over."""
    found = {}
    for name in site.exported():
        (row,) = split_receipts(io.BytesIO((site.receipts / name).read_bytes()))
        found[name] = read_receipt(row)
    return found


def test_first_loading_fills_every_slot_and_is_receipted(site: Site, maker: Maker) -> None:
    raw = maker.make(ITEMS, version=3)
    result = site.apply(raw)

    values, record = site.values(), site.record()
    assert (values["api-key"], values["model"], len(values["disk"])) == (API_KEY, MODEL, 32)
    assert (record.stage, record.job, record.outbox, record.generation) == (Stage.APPLIED, "lot-1", None, 1)
    assert record.ueid == make_ueid("mp", "imx8mm", site.uid)
    (name,) = site.exported()
    assert name == f"{record.ueid.hex()}-3.receipts"
    heard = read_receipts(site)[name]
    check_mac(heard, bundlekeys.make_receipt_key(maker.expand, "camera", "lot-1"))
    receipt = heard.receipt
    assert receipt.bundle_digest == record.grant_digest and receipt.ueid == record.ueid
    assert (receipt.authority, receipt.version, receipt.skipped, receipt.rollback) == ("mp", 3, (), "none")
    assert (receipt.closed_proof, receipt.life_cycle) == ("mp-key", 3)
    assert receipt.hardware_ids == {"imx-uid": site.uid}
    assert {one.name for one in receipt.slots} == {one.name for one in SLOTS}
    assert {one.backend for one in receipt.slots} == {"sim"}
    assert result.not_exported is None and (site.medium / "one.bin").read_bytes() == raw


def test_check_values_of_the_receipt_are_those_of_the_plain_text(site: Site, maker: Maker) -> None:
    """A file's too: it was read back from the board's own disk for it."""
    draft = maker.plan(ITEMS)
    kek = bundlekeys.make_kek(draft, maker.expand, None)
    site.apply(maker.seal(draft, [one.plain for one in ITEMS], maker.first(), None))
    (heard,) = read_receipts(site).values()
    key, plain = bundlekeys.make_check_key(kek), {one.name: one.plain for one in ITEMS}
    found = {one.name: one.check for one in heard.receipt.slots if one.name in plain}
    assert found == {name: make_check_value(key, name, 1, Secret(value)) for name, value in plain.items()}


def test_same_bundle_again_changes_nothing(site: Site, maker: Maker) -> None:
    raw = maker.make(ITEMS)
    site.apply(raw)
    before = site.kept("lock")
    again = site.apply(raw)
    assert again.outcomes[0].taken_before and site.kept("lock") == before
    assert site.enroll().record == again.record and site.kept("lock") == before


def test_enroll_takes_what_lies_on_the_medium_and_shows_it_again_at_every_boot(site: Site, maker: Maker) -> None:
    site.put(maker.make(ITEMS))
    (site.medium / "notes.txt").write_text("not a bundle, and not named as one")
    first = site.enroll()
    assert [one.version for one in first.outcomes] == [1] and site.values()["api-key"] == API_KEY
    (site.medium / "a.mpbundle").unlink()
    again = site.enroll()
    assert again.outcomes == () and again.record == first.record
    assert "5 slots unsealed just now" in site.said[-1]


def test_update_fills_replaces_and_skips(site: Site, maker: Maker) -> None:
    """T-690 Client selection: each component says whether it may take the place of a value; the others are left."""
    site.apply(maker.make(ITEMS))
    disk = site.values()["disk"]
    items = [Item("api-key", "static", b"new", 2, "replace"), Item("model", "file", b"small", 2, "fill")]
    result = site.apply(maker.make(items, maker.under(OEM)))

    values = site.values()
    assert (values["api-key"], values["model"], values["disk"]) == (b"new", MODEL, disk)
    told = describe_outcome(result.outcomes[0])
    assert (told["replaced"], told["skipped"], told["filled"], told["made"]) == (["api-key"], ["model"], [], [])
    heard = read_receipts(site)[f"{result.record.ueid.hex()}-oem-1.receipts"]  # type: ignore[union-attr]
    check_mac(heard, bundlekeys.make_receipt_key(maker.under(OEM).expand, "camera", "lot-1"))
    assert heard.receipt.skipped == ("model",) and heard.receipt.authority == "oem"
    assert {one.name: one.version for one in heard.receipt.slots}["api-key"] == 2
    assert describe_result(result)["bundle_versions"] == {"mp": 1, "oem": 1}


def test_replaced_file_takes_the_place_of_the_one_before(site: Site, maker: Maker) -> None:
    site.apply(maker.make(ITEMS))
    assert site.disk.names("files") == ("model-000001",)
    site.apply(maker.make([Item("model", "file", b"", 2, "replace")], maker.under(OEM)))
    assert site.values()["model"] == b"" and site.disk.names("files") == ("model-000002",)


def test_slot_that_a_later_image_asks_for_comes_with_an_update(make_site: MakeSite, maker: Maker) -> None:
    site = make_site(slots=SLOTS[:2])
    site.apply(maker.make([ITEMS[0]]))
    site.slots = (*SLOTS[:2], SLOTS[3])
    assert site.enroll().held.generation == 1
    site.apply(maker.make([ITEMS[0], OEM.item()], version=2))
    assert site.values()["update-oem"] == OEM.value


def test_update_authority_changes_its_own_key(site: Site, maker: Maker) -> None:
    """What comes after it is under the new key alone."""
    from tests.offline.maker import UpdateAuthority

    site.apply(maker.make(ITEMS))
    renewed = UpdateAuthority("oem", key=Secret(bytes(32)))
    site.apply(maker.make([renewed.item(version=2, action="replace")], maker.under(OEM)))
    site.apply(maker.make([Item("api-key", "static", b"n", 2, "replace")], maker.under(renewed), version=2))
    assert site.values()["api-key"] == b"n"


def test_update_key_of_its_own_for_each_board(make_site: MakeSite, maker: Maker) -> None:
    """Per device: a bundle under one board's key is nothing to the other."""
    from tests.offline.maker import UpdateAuthority

    one, other = make_site(slots=(SLOTS[1], SLOTS[3])), make_site(slots=(SLOTS[1], SLOTS[3]))
    keys = {site.uid: UpdateAuthority("oem", key=Secret(site.uid * 4)) for site in (one, other)}
    items = [ITEMS[0], *(key.item(uid=uid) for uid, key in keys.items())]
    raw = maker.make(items, conditions=Conditions("closed", uids=tuple(keys)))
    for site in (one, other):
        site.apply(raw)
        assert site.values()["update-oem"] == keys[site.uid].value
    update = maker.make([Item("api-key", "static", b"n", 2, "replace")], maker.under(keys[one.uid]))
    one.apply(update)
    assert one.values()["api-key"] == b"n"
    with pytest.raises(Exception, match="holds no key of the update authority"):
        other.apply(update)


def test_board_finds_its_own_component_among_those_of_others(make_site: MakeSite, maker: Maker) -> None:
    site = make_site(slots=SLOTS[:2])
    others = [Item("api-key", "static", bytes([at]) * 4, uid=bytes([at]) * 8) for at in range(20)]
    mine = Item("api-key", "static", b"mine", uid=site.uid)
    site.apply(maker.make([*others, mine], conditions=Conditions("closed")))
    assert site.values()["api-key"] == b"mine"


def test_job_secret_by_a_file_opens_what_needs_it(make_site: MakeSite, maker: Maker) -> None:
    site = make_site()
    path = site.folder / "job-secret"
    path.write_text(write_job_secret(JOB_SECRET) + "\n")
    site.secrets = (from_file(site.folder / "not-there", required=False), from_file(path, required=True))
    site.apply(maker.make(ITEMS, job_secret=JOB_SECRET))
    assert site.values()["api-key"] == API_KEY
    site.apply(maker.make(ITEMS, version=2))  # one that needs none opens all the same


def test_dry_run_says_what_would_be_and_keeps_nothing(site: Site, maker: Maker) -> None:
    raw = maker.make(ITEMS)
    outcome = site.try_(raw)
    told = describe_outcome(outcome)
    assert (told["filled"], told["made"]) == (["api-key", "model", "update-oem", "update-owner"], ["disk"])
    assert site.kept() == {} and site.exported() == []
    site.apply(raw)
    before = site.kept()
    assert site.try_(raw).taken_before
    told = describe_outcome(site.try_(maker.make([Item("api-key", "static", b"n", 1, "replace")], maker.under(OEM))))
    assert told["replaced"] == ["api-key"] and site.kept() == before and len(site.exported()) == 1


def test_open_part_is_taken_where_image_and_bundle_take_open_parts(make_site: MakeSite, maker: Maker) -> None:
    """In a lab: under the test key, and the receipt says that nothing showed the part closed."""
    from mpsim.board import BoardPlan
    from tests.offline.maker import TEST_POINT

    site = make_site(plan=BoardPlan(closed=False), changes={"allow_open": True})
    maker.point = TEST_POINT
    site.apply(maker.make(ITEMS, conditions=Conditions("any")))
    (heard,) = read_receipts(site).values()
    assert (heard.receipt.closed_proof, heard.receipt.life_cycle) == ("none", 1)


def test_update_in_a_boot_that_proves_itself_otherwise(site: Site, maker: Maker) -> None:
    """An update says nothing of the boot: the secure world's word counts, and without it the class key's name."""
    site.apply(maker.make(ITEMS))
    site.apply(maker.make([Item("api-key", "static", b"n", 2, "replace")], maker.under(OEM)))
    proofs = {name: heard.receipt.closed_proof for name, heard in read_receipts(site).items()}
    assert sorted(proofs.values()) == ["mp-key", "secure-world"]


def test_policy_gives_a_slot_to_another_authority(site: Site, maker: Maker) -> None:
    site.apply(maker.make([*ITEMS, policy({"api-key": "owner"})]))
    site.apply(maker.make([Item("api-key", "static", b"owned", 2, "replace")], maker.under(OWNER)))
    assert site.values()["api-key"] == b"owned"
    site.apply(maker.make([policy({})], maker.under(OEM)))  # replaced whole: it is the OEM's again
    site.apply(maker.make([Item("api-key", "static", b"back", 3, "replace")], maker.under(OEM), version=2))
    assert site.values()["api-key"] == b"back"


def test_bundle_is_wiped_where_the_image_says_so(make_site: MakeSite, maker: Maker) -> None:
    site = make_site(changes={"wipes": True})
    path = site.put(maker.make(ITEMS))
    site.enroll()
    assert not path.exists() and site.exported()
    assert site.enroll().outcomes == ()
