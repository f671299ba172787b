"""The second receipt: a production image shows that it has every secret, and the ledger says so."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mpagent.errors import ForeignDisk, Refused, Tampered
from mpagent.record import Record, Stage
from mpserver.errors import StoreDamaged
from mpserver.store.audit import verify_ledger
from mpserver.store.lasthead import LastHead
from mpwire import labels, limits
from mpwire.cose import read_sign1
from mpwire.messages.grant import RECEIPT, Receipt
from mpwire.messages.plain import CLOSED
from mpwire.trust import ES256_ONLY
from tests.line import PRODUCT, Device, Factory, Oem, ask_all
from tests.power.plug import plug_in

WITH_IMAGE = f'{PRODUCT}\n[image]\nversion = "2.0.0"\ndigest = "{"ab" * 32}"\nsize = 4096\n'


@pytest.fixture
def oem(tmp_path: Path) -> Iterator[Oem]:
    made = Oem(tmp_path / "oem", quota=100, product=WITH_IMAGE)
    yield made
    made.stop()


@pytest.fixture
def factory(tmp_path: Path, oem: Oem) -> Iterator[Factory]:
    with ExitStack() as stack:
        yield Factory(tmp_path, oem, stack)


def in_production(device: Device) -> Device:
    """The same board and disk, booted from the production image."""
    device.image = device.image._replace(phase="final", swname="production", swversion="2.0.0")
    return device


def read_receipt(raw: bytes) -> Receipt:
    return RECEIPT.decode(read_sign1(raw, typ=labels.TYP_RECEIPT, algs=ES256_ONLY).payload, limits.RECEIPT_MAX_BYTES)


def check_ledger(oem: Oem, receipts: int) -> None:
    """The whole tree, as `mpserver ledger verify` walks it."""
    roots = (oem.authority.public_key("trust"),)
    assert verify_ledger(oem.connection, roots, "lab", LastHead(0, b"")).closed == receipts


def test_a_production_image_unseals_every_slot_and_says_so_once(factory: Factory, oem: Oem) -> None:
    device = factory.board()
    sealed = device.enroll()
    assert sealed.stage is Stage.DONE and sealed.grant is not None and sealed.hello is not None
    before = device.secrets()

    final = in_production(device).enroll()
    assert final.stage is Stage.FINAL
    assert (final.grant, final.hello, final.challenge, final.proof, final.outbox) == (None,) * 5
    assert device.secrets() == before
    (raw, closed) = oem.rows("SELECT receipt, closed FROM finals")[0]
    assert isinstance(raw, bytes) and isinstance(closed, bytes)
    receipt = read_receipt(raw)
    assert (receipt.phase, receipt.grant_digest) == ("final", sealed.grant_digest)
    assert {one.name for one in receipt.slots} == set(before)
    assert CLOSED.decode(closed, limits.CLOSED_MAX_BYTES).receipt_digest == hashlib.sha256(raw).digest()
    assert oem.granted() == 1
    check_ledger(oem, 2)

    said = len(device.line.heard)
    assert device.enroll().stage is Stage.FINAL and len(device.line.heard) == said

    oem.connection.execute("DELETE FROM finals")
    with pytest.raises(StoreDamaged, match="2 receipts stand in the ledger, and 1 Closeds are kept"):
        check_ledger(oem, 2)


def test_a_board_whose_grant_named_no_image_has_no_final_receipt_to_say(tmp_path: Path) -> None:
    oem = Oem(tmp_path / "plain")
    with ExitStack() as stack:
        device = Factory(tmp_path, oem, stack).board()
        assert device.enroll().grant is None
        assert in_production(device).enroll().stage is Stage.DONE
    oem.stop()


def test_a_provisioning_image_booted_again_says_nothing_more(factory: Factory) -> None:
    device = factory.board()
    device.enroll()
    said = len(device.line.heard)
    assert device.enroll().stage is Stage.DONE and len(device.line.heard) == said


def test_power_fails_at_every_touch_of_the_final_receipt_and_the_next_boot_ends_it(factory: Factory, oem: Oem) -> None:
    """T-547 A cut at any disk write, chip use or message of the production image's report: one receipt, no more."""
    cut_at, finished = 0, False
    while not finished:
        cut_at += 1
        device = plug_in(factory.board())
        device.live(None)
        in_production(device)
        finished = device.live(cut_at)
        assert device.enroll().stage is Stage.FINAL
        assert oem.count("finals") == oem.granted() == oem.count("grants") == cut_at
    assert cut_at > 20
    check_ledger(oem, 2 * cut_at)


def test_a_final_receipt_before_the_sealed_one_is_refused(factory: Factory, oem: Oem) -> None:
    """T-548 Skipping: root on a board signs the second receipt without the first; nothing is booked."""
    device = factory.board()
    record = ask_all(device, "kept")
    with device.power() as board:
        from mpagent.enrollment import show

        shown = show(record, None, device.parts(board).tools)
    before = oem.state()
    assert shown.outbox is not None
    said = device.line.ask(shown.outbox)
    assert said[:1] != b"\xd2" and b"receipt-unfinished" in said and oem.state() == before


def edit(device: Device, change: Record) -> None:
    with device.power() as board:
        journal = device.parts(board).journal
        journal.load()
        journal.save(change)


def test_a_kept_grant_that_was_exchanged_or_bent_is_no_grant(factory: Factory) -> None:
    """T-541 Another board's Grant, or one with a byte changed, in the record: nobody signed it for this board."""
    one, other = factory.board(), factory.board()
    mine, theirs = one.enroll(), other.enroll()
    assert mine.grant is not None
    bent = mine.grant[:-1] + bytes([mine.grant[-1] ^ 1])
    for wrong in (mine._replace(grant=theirs.grant), mine._replace(grant=bent), mine._replace(hello=theirs.hello),
                  mine._replace(grant_digest=bytes(32))):  # fmt: skip
        edit(one, wrong)
        one.disk.remove("latch")
        with pytest.raises((Tampered, ForeignDisk, Refused)):
            in_production(one).enroll()
        assert one.line.oem.count("finals") == 0
