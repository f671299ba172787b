"""Many orders in one transaction: each stands or falls alone, all are durable together (promises P1 to P4)."""

import threading

import pytest

from mpissuer.errors import NotNow, Refused
from mpissuer.ports import GrantRow, StoredValue, Unit
from mpserver.answering import grant_work, receipt_work
from mpserver.store.books import SqlBooks
from mpserver.store.sequencer import ALARMS_PER_UNIT, Work
from mpserver.store.writer import Writer
from mpwire.merkle import leaf_hash, verify_inclusion
from mpwire.messages.plain import CLOSED
from mpwire.trust import Trust, read_head
from tests.mpserver.shop import JOB, NOW, Shop, answer_of


def test_a_refused_board_takes_nobody_of_its_batch_with_it(shop: Shop) -> None:
    good, other = shop.order(), shop.order()
    clone = shop.order(ueid=good.ueid)

    outcomes = shop.grant(good, clone, other)

    assert isinstance(outcomes[0], bytes) and isinstance(outcomes[2], bytes)
    assert isinstance(outcomes[1], Refused) and outcomes[1].check == "clone"
    assert shop.granted() == shop.count("units") == shop.count("grants") == 2
    assert shop.raw.execute("SELECT kind, ueid, count FROM alarms").fetchall() == [("clone", good.ueid, 1)]
    assert shop.verify().grants == 2


def test_a_bug_in_one_order_leaves_nothing_of_it_and_all_of_the_others(shop: Shop) -> None:
    def act(books: SqlBooks) -> bytes:
        books.add_unit(_unit(b"\x01" + bytes(32)))
        raise TypeError("a bug")

    outcomes = shop.settle([Work(act), grant_work(shop.order(), shop.issuer)])

    assert isinstance(outcomes[0], TypeError) and isinstance(outcomes[1], bytes)
    assert shop.granted() == shop.count("units") == 1
    shop.verify()


def test_a_full_disk_gives_everybody_later_and_leaves_nothing_half(shop: Shop) -> None:
    shop.raw.execute("UPDATE jobs SET quota = 100")
    pages = shop.raw.execute("PRAGMA page_count").fetchone()[0]
    shop.raw.execute(f"PRAGMA max_page_count = {pages}")
    orders = [shop.order() for _ in range(40)]

    assert all(isinstance(one, NotNow) for one in shop.grant(*orders))
    assert shop.granted() == shop.count("units") == shop.count("entries") == 0

    shop.raw.execute("PRAGMA max_page_count = 100000")
    answers = [answer_of(one) for one in shop.grant(*orders)]
    assert [answer_of(one) for one in shop.grant(*orders)] == answers
    assert shop.granted() == 40


def test_over_quota_is_refused_inside_one_batch_too(shop: Shop) -> None:
    outcomes = shop.grant(*(shop.order() for _ in range(9)))

    refused = [one for one in outcomes if isinstance(one, Refused)]
    assert len(refused) == 5 and {one.check for one in refused} == {"quota"}
    assert shop.granted() == shop.count("units") == 4
    assert shop.raw.execute("SELECT state FROM jobs").fetchone() == ("exhausted",)


def _unit(ueid: bytes, **ids: bytes) -> Unit:
    return Unit(ueid, "camera", JOB, "granted", b"\x04" + bytes(64), "mp", "L", ids)


def _refusal(shop: Shop, *acts: Work) -> Refused:
    outcome = shop.settle(acts)[-1]
    assert isinstance(outcome, Refused)
    return outcome


def _add(unit: Unit) -> Work:
    return Work(lambda books: books.add_unit(unit), newcomer=b"\x04" + bytes(64))


def test_the_schema_itself_keeps_the_quota(shop: Shop) -> None:
    """Second lock of P2: an order that forgot to ask is stopped by the table."""
    units = [_unit(b"\x01" + bytes(31) + bytes([number])) for number in range(5)]
    assert _refusal(shop, *map(_add, units)).check == "quota"
    assert shop.granted() == shop.count("units") == 4


def test_the_schema_itself_keeps_one_owner_for_a_hardware_id(shop: Shop) -> None:
    shop.grant(order := shop.order())
    thief = _unit(b"\x01" + bytes(32), **order.hardware_ids)
    point = shop.order().sign_key

    outcome = _refusal(shop, Work(lambda books: books.add_unit(thief), ueid=order.ueid, newcomer=point))

    assert (outcome.check, outcome.alarm) == ("clone", True)
    assert shop.count("units") == shop.granted() == 1
    assert shop.count("alarms") == 1


def test_the_schema_itself_keeps_a_nonce_and_a_slot_value_to_one_use(shop: Shop) -> None:
    shop.grant(order := shop.order())
    row = GrantRow(bytes(32), order.ueid, "camera", JOB, order.sign_key, {}, b"twice")

    def again(books: SqlBooks) -> None:
        books.add_grant(row, order.nonce, bytes(32))

    def value(books: SqlBooks) -> None:
        books.add_values(order.ueid, [StoredValue("cloud", 1, b"another")])

    assert _refusal(shop, Work(again)).check == "nonce-used"
    assert _refusal(shop, Work(value)).check == "slot-value-known"
    assert shop.count("grants") == shop.count("slot_values") == 1


def test_a_receipt_said_twice_at_once_stands_once_in_the_ledger(shop: Shop) -> None:
    order = shop.order()
    shop.grant(order)

    first, second = shop.close_units(order, order)

    assert isinstance(first, bytes) and isinstance(second, NotNow)
    assert shop.close_units(order) == [first]
    assert shop.verify().closed == 1
    assert shop.count("entries") == 2


def test_a_proof_in_the_batch_that_closes_its_unit_waits_for_the_closed(shop: Shop) -> None:
    """P3: after Closed no Grant, even where the Closed is not on the unit yet."""
    order = shop.order()
    shop.grant(order)
    fresh = shop.order(ueid=order.ueid, sign_key=order.sign_key, hardware_ids=order.hardware_ids)

    closed, late = shop.settle(
        [receipt_work(shop.receipt(order), shop.issuer), grant_work(fresh, shop.issuer)],
    )

    assert isinstance(closed, bytes) and isinstance(late, NotNow)
    assert shop.grant(fresh) == [closed]
    assert shop.count("grants") == 1


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (3, 5, 8), (16,), (1, 7, 2, 13)])
def test_every_closed_proves_its_receipt_under_its_own_head(shop: Shop, sizes: tuple[int, ...]) -> None:
    shop.raw.execute("UPDATE jobs SET quota = 100")
    trust = Trust("lab", (shop.authority.public_key("trust"),), 0, NOW)
    for size in sizes:
        orders = [shop.order() for _ in range(size)]
        shop.grant(*orders)
        for outcome in shop.close_units(*orders):
            closed = CLOSED.decode(answer_of(outcome), 16_384)
            head = read_head(closed.head, trust)
            verify_inclusion(leaf_hash(closed.entry), closed.leaf_index, head.size, closed.path, head.root)
    assert shop.verify().closed == sum(sizes)


def test_alarms_of_a_cloner_with_many_keys_stay_few(shop: Shop) -> None:
    """P5: an attacker who can authenticate still cannot fill the disk."""
    shop.grant(good := shop.order())
    for _ in range(ALARMS_PER_UNIT + 20):
        shop.grant(shop.order(ueid=good.ueid))

    assert shop.count("alarms") == ALARMS_PER_UNIT + 1
    assert shop.raw.execute("SELECT sum(count) FROM alarms").fetchone()[0] == ALARMS_PER_UNIT + 20


def test_the_writer_answers_every_thread_and_finishes_what_waits(shop: Shop) -> None:
    shop.raw.execute("UPDATE jobs SET quota = 1000")
    answers: list[object] = []
    writer = Writer(shop.sequencer, lambda settled: answers.extend(outcome for _, outcome in settled))
    works = [grant_work(shop.order(), shop.issuer) for _ in range(200)]
    for number, work in enumerate(works):
        writer.submit(work, number)
    writer.start()
    late = [grant_work(shop.order(), shop.issuer) for _ in range(20)]
    threads = [threading.Thread(target=writer.submit, args=(one, 0)) for one in late]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.stop()

    assert len({one for one in answers if isinstance(one, bytes)}) == 220
    assert writer.orders == 220 and writer.batches < 220
    assert shop.granted() == 220
    with pytest.raises(NotNow):
        writer.submit(works[0], 0)
