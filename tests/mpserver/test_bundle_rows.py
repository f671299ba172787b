"""What the ledger file keeps of bundles, and what `ledger verify` says once somebody changed it."""

from pathlib import Path

import pytest

from mpissuer.booking import digest_of_object
from mpserver.errors import StoreDamaged
from mpserver.store.books import SqlBooks
from mpserver.store.bundles import (
    BundleRow,
    BundleSlot,
    digest_row,
    find_bundle,
    find_highest,
    insert_bundle,
    list_bundles,
)
from mpserver.store.decisions import check_decisions
from mpserver.store.sequencer import Work
from mpwire.messages.issuer import ENTRY, Entry
from tests.mpserver.shop import JOB, NOW, Shop, make_shop

ROW = BundleRow(
    digest=b"d" * 32,
    product="camera",
    job=JOB,
    authority="mp",
    version=3,
    minimum=2,
    made_at=NOW,
    expires=NOW + 86_400,
    quantity=4,
    uids=(b"u" * 8, b"v" * 16),
    policy_digest=bytes(32),
    vault_name="mpk-" + "0" * 32,
    slots=(BundleSlot("cloud", 1, "fill", None, b"c" * 16), BundleSlot("own", 1, "replace", b"u" * 8, b"d" * 16)),
)


@pytest.fixture
def booked(tmp_path: Path) -> Shop:
    """A ledger with one bundle, entered as the office enters it."""
    shop = make_shop(tmp_path / "oem")
    outcome = shop.settle([Work(lambda books: enter(shop, books))])[0]
    assert not isinstance(outcome, Exception)
    return shop


def enter(shop: Shop, books: SqlBooks) -> bytes:
    insert_bundle(shop.raw, ROW)
    for kind, subject, digest in (
        ("bundle", JOB, digest_row(ROW)),
        ("job", JOB, digest_of_object("draft", JOB, "camera", 4)),
        ("job", JOB, digest_of_object("open", JOB)),
        ("product", "camera", shop.raw.execute("SELECT digest FROM products").fetchone()[0]),
    ):
        books.append(ENTRY.encode(Entry(kind, NOW, subject, digest)))
    return b"done"


def test_a_row_comes_back_as_it_was_entered(booked: Shop) -> None:
    assert find_bundle(booked.raw, ROW.digest) == ROW
    assert list(list_bundles(booked.raw)) == [ROW]
    assert find_bundle(booked.raw, bytes(32)) is None
    assert find_highest(booked.raw, "camera", "mp") == (3, 2)
    assert find_highest(booked.raw, "camera", "oem") == (0, 0)
    check_decisions(booked.raw, booked.verify().decided)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE bundles SET quantity = 400",
        "UPDATE bundles SET version = 2",
        "UPDATE bundles SET uids = NULL",
        "UPDATE bundles SET slots = x'80'",
        "UPDATE bundles SET expires = 0.5",
        "UPDATE bundles SET vault_name = 'mpk-other'",
        "DELETE FROM bundles",
    ],
)
def test_a_bundle_changed_or_forgotten_in_the_file_is_found(booked: Shop, statement: str) -> None:
    """T-650 Insider: more boards printed than ordered, and the row says that they were ordered."""
    booked.raw.execute(statement)
    with pytest.raises(StoreDamaged, match=r"bundle"):
        check_decisions(booked.raw, booked.verify().decided)


@pytest.mark.parametrize("what", ["slots = x'ff'", "slots = x'8100'", "uids = x'8100'", "uids = 7"])
def test_a_row_that_cannot_be_read_is_named(booked: Shop, what: str) -> None:
    booked.raw.execute(f"UPDATE bundles SET {what}")
    with pytest.raises(StoreDamaged, match="cannot be read"):
        find_bundle(booked.raw, ROW.digest)
