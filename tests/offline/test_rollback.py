"""Who holds the board's disk: older bundles, older disks, edited records, and a bundle that changes under the eyes."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest

from mpagent.errors import BundleBroke, BundleRefused, ForeignDisk, NoBundle, StorageBroke, Tampered
from mpagent.hal.choose import BoardChoice
from mpagent.hal.ports import Board
from mpagent.journal import FILES, Journal
from mpagent.offline.apply import open_all
from mpagent.offline.facts import Facts, Taken, note_bundle, read_facts, write_facts
from mpagent.offline.holdings import find_holdings
from mpagent.offline.sources import open_bundle
from mpagent.record import Record
from mpagent.vault import GENERATION
from mpsim.counter import SoftCounter
from mpsim.swtpm import SoftTpm
from mpwire.bundlereceipt import LENGTH_BYTES, read_receipt
from mpwire.messages.bundle import BundlePolicy
from tests.offline.bench import API_KEY, ITEMS, MODEL, OEM, OWNER, SERVICE, Site
from tests.offline.conftest import MakeSite
from tests.offline.maker import NOW, Item, Maker, UpdateAuthority, policy

YEAR_S = 365 * 86_400


def refuse(site: Site, raw: bytes, check: str) -> None:
    before = site.kept("lock")
    with pytest.raises(BundleBroke) as caught:
        site.apply(raw)
    assert caught.value.check == check and site.kept("lock") == before


def edit(site: Site, **changes: object) -> None:
    """As a stranger with the disk in his hands: every copy of the record, with its checksum made right."""
    journal = Journal(site.disk, site.said.append)
    for _ in FILES:
        journal.save(journal.load()._replace(**changes))  # type: ignore[arg-type]


def forget(site: Site, *folders: str) -> None:
    for name in FILES:
        site.disk.remove(name)
    for folder in folders:
        shutil.rmtree(site.disk.folder / folder)


OLD = Item("api-key", "static", b"old", 1, "replace")


def test_older_bundle_is_refused_and_the_record_has_no_say(site: Site, maker: Maker) -> None:
    """T-694 Replay: yesterday's bundle again, with the record untouched, edited, set back to nothing, and gone."""
    old = maker.make(ITEMS, version=4)
    first = maker.make([ITEMS[0]._replace(action="replace"), *ITEMS[1:]], version=4)
    site.apply(old)
    site.apply(maker.make([OLD._replace(plain=b"new", version=2), *ITEMS[1:]], version=5, minimum=5))
    assert site.values()["api-key"] == b"new"
    refuse(site, first, "bundle-old")
    edit(site, time_floor=0, epoch=0, job="lot-0", grant_digest=bytes(32))
    refuse(site, first, "bundle-old")
    forget(site)
    assert site.record() == Record()
    with pytest.raises(BundleRefused, match="version 4"):
        site.apply(first)
    assert site.values()["api-key"] == b"new"  # the record was made again from the vault
    assert site.record().job == "lot-1"


def test_minimum_outlives_the_bundle_that_set_it(site: Site, maker: Maker) -> None:
    """T-694 The version one below the minimum is refused for ever, also where it is the version taken last."""
    site.apply(maker.make(ITEMS, version=3))
    rights = policy({}, {"oem": 7})
    site.apply(maker.make([*ITEMS, rights], version=3))
    for version in (1, 6):
        refuse(site, maker.make([OLD], maker.under(OEM), version=version), "bundle-old")
    site.apply(maker.make([OLD], maker.under(OEM), version=7))
    site.apply(maker.make([policy({}, {"oem": 2})], maker.under(OEM), version=8))
    refuse(site, maker.make([OLD], maker.under(OEM), version=7), "bundle-old")


OLD_MODEL = Item("model", "file", b"weak" * 30_000)
NEW_MODEL = OLD_MODEL._replace(plain=MODEL, version=2, action="replace")


def tear(site: Site) -> None:
    """As root on the board: the last chunk of the file is gone."""
    (path,) = (site.disk.folder / "files").iterdir()
    os.truncate(path, path.stat().st_size - 1)


def test_torn_file_is_no_door_for_an_older_one(site: Site, maker: Maker) -> None:
    """T-730 Torn on purpose: the file an update brought is cut, so that the first loading may bring its older one."""
    first = maker.make([ITEMS[0], OLD_MODEL, *ITEMS[2:]])
    update = maker.make([NEW_MODEL], maker.under(OEM))
    site.apply(first)
    site.apply(update)
    for _ in range(2):
        tear(site)
        refuse(site, first, "bundle-slot-version")
    site.put(first, "first.mpbundle")
    site.put(update, "update.mpbundle")
    site.enroll()  # what is passed over stops nobody who has the newest
    assert site.values()["model"] == MODEL


def test_torn_slot_outlives_a_bundle_without_it(site: Site, maker: Maker) -> None:
    """T-731 Forgotten: a board whose file is torn takes another update, and must not lose the slot and its version."""
    first = maker.make([ITEMS[0], OLD_MODEL, *ITEMS[2:]])
    site.apply(first)
    site.apply(maker.make([NEW_MODEL], maker.under(OEM)))
    tear(site)
    result = site.apply(maker.make([OLD._replace(version=2)], maker.under(OEM), version=2))
    (outcome,) = result.outcomes
    assert outcome.opened is not None and list(result.held.torn) == ["model"]
    (name,) = (one for one in site.exported() if "-oem-2" in one)
    receipt = read_receipt((site.receipts / name).read_bytes()[LENGTH_BYTES:]).receipt
    assert "model" not in {one.name for one in receipt.slots}
    with pytest.raises(NoBundle, match="model"):
        site.enroll()
    refuse(site, first, "bundle-slot-version")
    site.apply(maker.make([NEW_MODEL], maker.under(OEM), version=3))
    site.enroll()
    assert site.values()["model"] == MODEL and site.values()["api-key"] == b"old"


def test_rights_are_not_set_back_by_a_bundle_that_is_taken_again(site: Site, maker: Maker) -> None:
    """T-732 Revoked rights: the first loading once more, or another of its version, brings none back."""
    first = maker.make([*ITEMS, policy({"api-key": "owner"}, version=1)])
    twin = maker.make([*ITEMS, policy({"api-key": "owner"}, version=1)], job="lot-2")
    site.apply(first)
    site.apply(maker.make([policy({}, version=2)], maker.under(OEM)))
    by_owner = maker.make([OLD], maker.under(OWNER))
    refuse(site, by_owner, "bundle-authority")
    tear(site)
    for again in (first, twin):
        result = site.apply(again)
        assert result.held.facts.rights == {} and result.held.facts.policy_version == 2
        refuse(site, by_owner, "bundle-authority")
    assert site.values()["model"] == MODEL
    site.apply(maker.make([policy({"api-key": "owner"}, version=3)], maker.under(OEM), version=2))
    site.apply(by_owner)


def test_fresh_board_takes_nothing_below_the_minimum_of_its_image(make_site: MakeSite, maker: Maker) -> None:
    """T-695 Fresh board: what was never told anything is told by its image, which verity covers."""
    site = make_site(changes={"bundle_minimum": 5})
    refuse(site, maker.make(ITEMS, version=4), "bundle-old")
    site.apply(maker.make(ITEMS, version=5))
    site.apply(maker.make([OLD], maker.under(OEM), version=1))  # update authorities count their own


def test_wiped_board_is_a_fresh_one(make_site: MakeSite, maker: Maker) -> None:
    """What no software on the disk can prevent: bounded by the image's minimum, and by nothing else."""
    site = make_site()
    old = maker.make(ITEMS, version=4)
    site.apply(maker.make(ITEMS, version=5))
    shutil.rmtree(site.disk.folder)
    site.apply(old)
    shutil.rmtree(site.disk.folder)
    site.changes = {"bundle_minimum": 5}
    refuse(site, old, "bundle-old")


@dataclass
class CountingSite(Site):
    """A board with a counter beside its disk."""

    counter: SoftCounter = field(default_factory=SoftCounter)

    @contextmanager
    def power(self) -> Iterator[Board]:
        with super().power() as board:
            yield board._replace(counter=self.counter)


@pytest.fixture
def counting(tmp_path: Path, maker: Maker) -> CountingSite:
    return CountingSite(tmp_path / "counting", maker)


def copy_disk(site: Site, name: str) -> Path:
    to = site.folder / name
    shutil.copytree(site.disk.folder, to)
    return to


def restore(site: Site, copy: Path) -> None:
    shutil.rmtree(site.disk.folder)
    shutil.copytree(copy, site.disk.folder)


def test_older_disk_put_back_is_noticed_by_a_counter(counting: CountingSite, maker: Maker) -> None:
    """T-696 Restored disk: whole, or without its record, which alone would look like a record that was lost."""
    counting.apply(maker.make(ITEMS))
    old = copy_disk(counting, "old")
    counting.apply(maker.make([OLD], maker.under(OEM)))
    new = copy_disk(counting, "new")
    for remove_record in (False, True):
        restore(counting, old)
        if remove_record:
            forget(counting)
        with pytest.raises(Tampered):
            counting.enroll()
        with pytest.raises(Tampered, match="latched"):
            counting.apply(maker.make([OLD], maker.under(OEM), version=2))
        restore(counting, new)
    counting.enroll()
    assert counting.values()["api-key"] == b"old"


def test_record_behind_the_counter_is_brought_up_to_it(counting: CountingSite, maker: Maker) -> None:
    """A cut between counter and record, and a stranger who puts an older record beside the newest vault: the same."""
    counting.apply(maker.make(ITEMS))
    there = [name for name in FILES if (counting.disk.folder / name).exists()]
    records = {name: (counting.disk.folder / name).read_bytes() for name in there}
    counting.apply(maker.make([OLD], maker.under(OEM)))
    for name in FILES:
        (counting.disk.folder / name).unlink(missing_ok=True)
    for name, raw in records.items():
        (counting.disk.folder / name).write_bytes(raw)
    result = counting.enroll()
    assert result.record.generation == 2 and counting.values()["api-key"] == b"old"


def test_vault_taken_apart_opens_nothing(site: Site, maker: Maker) -> None:
    """T-697 Editor: facts of one generation in another, cut off, or changed by a bit; the tag is over all of it."""
    site.apply(maker.make([*ITEMS, policy({"api-key": "oem"})]))
    older = GENERATION.decode(site.disk.read("vault/gen-000001", 10**6) or b"", 10**6)
    site.apply(maker.make([OLD, policy({"api-key": "owner"})], maker.under(OEM)))
    good = site.disk.read("vault/gen-000002", 10**6) or b""
    newer = GENERATION.decode(good, 10**6)
    assert older.facts is not None and newer.facts is not None
    flipped = newer.facts[:-1] + bytes([newer.facts[-1] ^ 1])
    whole = copy_disk(site, "whole")
    for facts in (older.facts, None, flipped):
        site.disk.write("vault/gen-000002", GENERATION.encode(newer._replace(facts=facts)))
        with pytest.raises(Tampered):
            site.enroll()
        restore(site, whole)
    site.disk.write("vault/gen-000002", GENERATION.encode(older))
    with pytest.raises(Tampered):
        site.enroll()
    restore(site, whole)
    site.enroll()


def test_disk_of_another_board_is_foreign_with_and_without_its_record(make_site: MakeSite, maker: Maker) -> None:
    """T-698 Cloned disk: nothing is latched, and back on its own board it is whole."""
    one, other = make_site(), make_site()
    one.apply(maker.make(ITEMS))
    shutil.copytree(one.disk.folder, other.disk.folder, dirs_exist_ok=True)
    for lose_record in (False, True):
        if lose_record:
            forget(other)
        before = other.kept("lock")
        with pytest.raises(ForeignDisk):
            other.enroll()
        with pytest.raises(ForeignDisk):
            other.apply(maker.make(ITEMS))
        assert other.kept("lock") == before
    restore(one, other.disk.folder)
    one.enroll()


def test_service_cannot_end_what_the_oem_signs(site: Site, maker: Maker) -> None:
    """T-699 Clock: an update of a far future binds its own authority alone; a first loading's time binds everybody."""
    site.apply(maker.make([*ITEMS, policy({"api-key": "owner"})]))
    far = NOW + 40 * YEAR_S
    site.apply(maker.make([OLD], maker.under(OWNER), made_at=far, expires=far + 1))
    refuse(site, maker.make([OLD], maker.under(OWNER), version=2, expires=far - 1), "bundle-expired")
    site.apply(maker.make([policy({})], maker.under(OEM), expires=NOW + 10))
    site.apply(maker.make(ITEMS, version=2, made_at=NOW + 100))
    refuse(site, maker.make([OLD], maker.under(OEM), version=2, expires=NOW + 99), "bundle-expired")
    edit(site, time_floor=0)
    refuse(site, maker.make([OLD], maker.under(OEM), version=2, expires=NOW + 99), "bundle-expired")
    assert site.record().time_floor == 0


def test_trust_update_in_a_bundle_ends_older_keys_for_good(site: Site, maker: Maker) -> None:
    """T-700 Revoked key: epoch 2 came with a bundle; a key of epoch 1 counts no more, edited record or not."""
    stolen = maker.certify(epoch=1)
    maker.trust_update, maker.chain = maker.update_trust(2), [maker.certify(epoch=2)]
    site.apply(maker.make(ITEMS, version=1))
    assert site.record().epoch == 2
    maker.trust_update, maker.chain = None, [stolen]
    by_stolen = maker.make(ITEMS, version=2)
    refuse(site, by_stolen, "bundle-signer")
    edit(site, epoch=0, trust_updates=())
    refuse(site, by_stolen, "bundle-signer")


class Swapping:
    """A stick whose content changes between two passes over it."""

    def __init__(self, file: BinaryIO, path: Path, other: bytes) -> None:
        self._file, self._path, self._other, self.reads = file, path, other, 0

    def read(self, size: int) -> bytes:
        raw = self._file.read(size)
        if not raw:  # the first pass has seen the end
            with open(self._path, "r+b") as file:
                file.write(self._other)
        self.reads += 1
        return raw

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)


@pytest.mark.parametrize("how", ["in place", "by another file", "shorter"])
def test_bundle_that_changes_between_two_passes_is_refused(site: Site, maker: Maker, how: str) -> None:
    """T-701 Exchange: the digests were right when they were looked at; what is opened is held against its tag."""
    big = [ITEMS[0], Item("model", "file", bytes(3_000_000)), *ITEMS[2:]]
    good, other = maker.make(big), maker.make([big[0]._replace(plain=bytes(32)), *big[1:]])
    path = site.put(good)
    with site.power() as board, open_bundle(path) as source:
        parts = site.parts(board)
        record = parts.journal.load()
        held = find_holdings(record, board, parts.tools.vault, site.disk)
        if how == "by another file":
            path.with_name("new").write_bytes(other)
            os.replace(path.with_name("new"), path)  # the name is another's now; the descriptor is not
            opened = open_all(source, record, held, parts.tools, keep=False)
            assert opened.values["api-key"].reveal() == API_KEY
            return
        spoilt = other if how == "in place" else b""
        swapping = Swapping(source.file, path, spoilt)
        if how == "shorter":
            swapping._other = good[:100]
        with pytest.raises(BundleBroke) as caught:
            changed = source._replace(file=swapping)  # type: ignore[arg-type]  # read and seek are all
            if how == "shorter":
                os.truncate(path, 5_000)
            open_all(changed, record, held, parts.tools, keep=True)
        assert caught.value.check in {"bundle-open", "bundle-payload"}
    assert site.kept("lock") == {}


def test_facts_only_rise(maker: Maker) -> None:
    bundle = maker.plan(ITEMS, version=5, minimum=4, made_at=NOW + 5)
    facts = note_bundle(Facts(), bundle, b"\1" * 32, None)
    assert facts.of("mp") == Taken(5, 4, NOW + 5, b"\1" * 32)
    lower = bundle._replace(version=5, minimum=1, made_at=NOW)
    facts = note_bundle(facts, lower, b"\2" * 32, BundlePolicy({"a": "owner"}, {"owner": 9}))
    assert facts.of("mp") == Taken(5, 4, NOW + 5, b"\2" * 32)
    assert facts.of("owner") == Taken(minimum=9) and facts.owner("a") == "owner" and facts.owner("b") == "oem"
    facts = facts._replace(receipt=b"row", mpk_id=bytes(16))
    assert read_facts(write_facts(facts)) == facts and read_facts(None) is None


def test_largest_facts_fit(maker: Maker) -> None:
    rights = {f"{number:064d}": "service" for number in range(64)}
    facts = Facts(rights=rights, job="j" * 64, receipt=bytes(16_512), mpk_id=bytes(16))
    for authority in ("mp", "oem", "owner", "service"):
        bundle = maker.plan(ITEMS, authority=authority, version=2**62, minimum=2**62, made_at=2**62, job="j" * 64)
        facts = note_bundle(facts, bundle, b"\xff" * 32, None)
    assert len(write_facts(facts)) <= 32_768


def test_update_key_of_one_authority_opens_nothing_of_another(site: Site, maker: Maker) -> None:
    """T-702 Mixed keys: signed by the owner in the OEM's name, or under the owner's key with the OEM's signature."""
    site.apply(maker.make(ITEMS))
    mixed = UpdateAuthority("oem", OEM.signer, OWNER.key)
    refuse(site, maker.make([OLD], maker.under(mixed)), "bundle-key")
    mixed = UpdateAuthority("oem", OWNER.signer, OEM.key)
    refuse(site, maker.make([OLD], maker.under(mixed)), "bundle-authority-key")
    refuse(site, maker.make([OLD], maker.under(SERVICE)), "bundle-authority-key")
    assert site.values()["model"] == MODEL


@dataclass
class TpmSite(Site):
    """Sealed by a TPM, with its NV counter; the class key is the chip's."""

    tcti: str = ""

    @property
    def choice(self) -> BoardChoice:
        return super().choice._replace(seal=("tpm",), counter=("tpm",), tpm_tcti=self.tcti)


def test_board_with_a_tpm_and_its_counter(tmp_path: Path, maker: Maker) -> None:
    """swtpm's own counter: it begins anywhere, and an older disk does not fit it."""
    with SoftTpm(tmp_path / "tpm") as tpm:
        site = TpmSite(tmp_path / "board", maker, tcti=tpm.tcti)
        site.apply(maker.make(ITEMS))
        old = copy_disk(site, "old")
        site.apply(maker.make([OLD], maker.under(OEM)))
        forget(site)
        tpm.power_cycle()
        assert site.enroll().record.generation == site.record().generation
        assert site.values()["api-key"] == b"old"
        (name,) = [one for one in site.exported() if "oem" in one]
        assert b"tpm-nv" in (site.receipts / name).read_bytes()
        restore(site, old)
        with pytest.raises(Tampered):
            site.enroll()


def test_several_bundles_on_one_medium(site: Site, maker: Maker) -> None:
    """T-691 First loadings before updates, the newest of each; what is older by then is passed over, with a word."""
    site.put(maker.make([OLD._replace(plain=b"u2", version=3)], maker.under(OEM), version=2), "0.mpbundle")
    site.put(maker.make([OLD._replace(plain=b"u1", version=2)], maker.under(OEM), version=1), "1.mpbundle")
    site.put(maker.make(ITEMS, version=1), "2.mpbundle")
    site.put(maker.make([ITEMS[0]._replace(plain=b"v2"), *ITEMS[1:]], version=2), "3.mpbundle")
    site.put(
        maker.make(ITEMS, version=9, conditions=maker.plan(ITEMS).conditions._replace(uids=(bytes(8),))), "4.mpbundle"
    )
    result = site.enroll()
    assert [(one.authority, one.version) for one in result.outcomes] == [("mp", 2), ("oem", 2)]
    assert site.values()["api-key"] == b"u2" and len(site.exported()) == 2
    told = "\n".join(site.said)
    assert told.count("older than what this board") == 2 and told.count("this one is not among them") == 1
    assert [one.taken_before for one in site.enroll().outcomes] == [True, True]


def test_file_that_is_damaged_in_its_middle_heals_when_an_update_finds_it(site: Site, maker: Maker) -> None:
    """T-692 A boot looks at its end alone; the receipt of an update reads all of it, and its bundle brings it again."""
    site.put(maker.make(ITEMS))
    site.enroll()
    path = site.disk.folder / "files/model-000001"
    whole = path.read_bytes()
    path.write_bytes(whole[:70_000] + b"\0" + whole[70_001:])
    site.enroll()
    update = maker.make([OLD], maker.under(OEM))
    with pytest.raises(StorageBroke, match="brings it again"):
        site.apply(update)
    assert site.record().generation == 1
    site.enroll()
    assert site.values()["model"] == MODEL
    site.apply(update)
    assert site.values()["api-key"] == b"old" and site.values()["model"] == MODEL
