"""P7 without a line: the power fails at every touch of disk, chip and counter, in a first loading and in an update."""

import io
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from mpagent.offline.pickup import pick_up
from mpagent.record import Stage
from mpsim.counter import SoftCounter
from mpwire.bundlekeys import make_receipt_key
from mpwire.bundlereceipt import check_mac, read_receipt, split_receipts
from tests.offline.bench import API_KEY, ITEMS, MODEL, OEM, OWNER, Site
from tests.offline.maker import Item, Maker, policy
from tests.offline.plugged import PluggedSite
from tests.offline.shell import Shell
from tests.power.processes import KILLED, axe

UPDATE = (
    Item("api-key", "static", b"replaced", 2, "replace"),
    Item("model", "file", MODEL[:70_000], 2, "replace"),
    OWNER.item(version=2, action="fill"),
    policy({"api-key": "owner"}),
)
AFTER_FIRST = {"api-key": API_KEY, "model": MODEL}
AFTER_UPDATE = {"api-key": b"replaced", "model": MODEL[:70_000]}


def check_whole(site: Site, expected: dict[str, bytes], maker: Maker) -> None:
    """One generation, its files and no others, one receipt for each bundle, and nothing half-done."""
    record, values = site.record(), site.values()
    assert record.stage is Stage.APPLIED
    assert {name: values[name] for name in expected} == expected
    kept = site.kept("lock")
    assert [name for name in kept if name.startswith("vault/")] == [f"vault/gen-{record.generation:06d}"]
    assert len([name for name in kept if name.startswith("files/")]) == 1
    wrong = [name for name in kept if Path(name).name.startswith(".") or "damaged" in name or name == "latch"]
    assert wrong == []
    for name in site.exported():
        (row,) = split_receipts(io.BytesIO((site.receipts / name).read_bytes()))
        heard = read_receipt(row)
        under = maker.under(OEM) if heard.receipt.authority == "oem" else maker.first()
        check_mac(heard, make_receipt_key(under.expand, "camera", "lot-1"))
        assert heard.receipt.ueid == record.ueid and not name.startswith(".")


@pytest.fixture(params=["no counter", "counter"])
def make_plugged(request: pytest.FixtureRequest, tmp_path: Path, maker: Maker) -> Callable[[], PluggedSite]:
    numbers = count()

    def make() -> PluggedSite:
        counter = SoftCounter() if request.param == "counter" else None
        return PluggedSite(tmp_path / f"board{next(numbers)}", maker, counter=counter)

    return make


def test_every_kind_of_touch_is_cut(make_plugged: Callable[[], PluggedSite], maker: Maker) -> None:
    site = make_plugged()
    site.put(maker.make(ITEMS))
    plug = site.plug
    with site.power() as board:
        pick_up(site.parts(board))
    for verb in ("extract", "seal", "unseal", "stage files/model-000001", "publish files/model-000001",
                 "write vault/gen-000001", "write record-a", "open files/model-000001"):  # fmt: skip
        assert f"{verb}:before" in plug.touches and f"{verb}:after" in plug.touches, verb
    assert "stage files/model-000001:chunk" in plug.touches
    assert any(one.startswith("write receipts/") for one in plug.touches)
    assert site.counter is None or "counter raise_to:after" in plug.touches


def test_power_cut_at_any_touch_of_a_first_loading(make_plugged: Callable[[], PluggedSite], maker: Maker) -> None:
    """T-693 Power cut: before that the board holds nothing, after it all; the next start finishes it either way."""
    raw, told = maker.make(ITEMS), 0
    for pull_at in count(1):
        site = make_plugged()
        site.put(raw)
        finished = site.live(pull_at)
        early = {name: (site.receipts / name).read_bytes() for name in site.exported()}
        assert site.live(None)
        check_whole(site, AFTER_FIRST, maker)
        (name,) = site.exported()
        assert early in ({}, {name: (site.receipts / name).read_bytes()})
        told += bool(early)
        if finished:
            break
    assert pull_at > 60 and told >= 1


def test_power_cut_at_any_touch_of_an_update(make_plugged: Callable[[], PluggedSite], maker: Maker) -> None:
    """T-693 The former state or the new one, whole: never a slot of the one beside a file of the other."""
    first, update = maker.make(ITEMS), maker.make(UPDATE, maker.under(OEM))
    former = new = 0
    for pull_at in count(1):
        site = make_plugged()
        site.put(first, "a.mpbundle")
        assert site.live(None)
        local = site.values()["disk"]
        site.put(update, "b.mpbundle")
        finished = site.live(pull_at)
        (site.medium / "b.mpbundle").rename(site.medium / "b.taken-away")
        assert site.live(None)  # the stick was pulled with the power
        values = site.values()
        stands = AFTER_UPDATE if values["api-key"] == b"replaced" else AFTER_FIRST
        check_whole(site, {**stands, "disk": local}, maker)
        former, new = former + (stands is AFTER_FIRST), new + (stands is AFTER_UPDATE)
        assert len(site.exported()) == (2 if stands is AFTER_UPDATE else 1)
        (site.medium / "b.taken-away").rename(site.medium / "b.mpbundle")
        assert site.live(None)
        check_whole(site, {**AFTER_UPDATE, "disk": local}, maker)
        assert len(site.exported()) == 2
        if finished:
            break
    assert former > 40 and new > 3


def test_power_cut_at_every_touch_in_a_row(make_plugged: Callable[[], PluggedSite], maker: Maker) -> None:
    """One board whose power fails again and again, each time a touch later than before."""
    site = make_plugged()
    site.put(maker.make(ITEMS), "a.mpbundle")
    starts = 1
    while not site.live(starts):
        starts += 1
    check_whole(site, AFTER_FIRST, maker)
    site.put(maker.make(UPDATE, maker.under(OEM)), "b.mpbundle")
    starts = 1
    while not site.live(starts):
        starts += 1
    check_whole(site, AFTER_UPDATE, maker)
    assert starts > 10


@pytest.mark.parametrize("call", ["fdatasync", "fsync", "rename", "unlink"])
def test_agent_killed_at_any_durable_step_is_finished_by_the_next_start(
    tmp_path: Path, maker: Maker, call: str
) -> None:
    """T-693 Real processes: wiping the bundle and laying the receipt there are among the steps."""
    raw = maker.make(ITEMS)
    for number in count(1):
        shell = Shell(tmp_path / f"board{number}", maker, more="[offline]\nwipe = true\n\n")
        path = shell.put(raw)
        cut = shell.run("enroll", "--once", prefix=axe(call, number))
        done = shell.run("enroll", "--once")
        assert done.returncode == 0 and done.stdout.startswith(b"PASS "), done.stderr
        assert not path.exists() and len(list(shell.receipts.iterdir())) == 1
        assert shell.run("secret", "get", "model").stdout == MODEL
        state = shell.state()
        assert [name for name in state if "/." in name or name.startswith(".")] == []
        if cut.returncode == 0:
            break
        assert cut.returncode == KILLED and b"PASS" not in cut.stdout
    assert number > 1
