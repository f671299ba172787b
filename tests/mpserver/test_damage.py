"""Ledgers that were restored, changed or broken: found out, named, and not made worse (promises P2, P9)."""

import shutil
from pathlib import Path

import pytest

from mpissuer.booking import digest_of_object
from mpissuer.errors import NotNow
from mpserver.cli import main
from mpserver.errors import StoreDamaged
from mpserver.store.books import SqlBooks
from mpserver.store.lasthead import RECORD_BYTES, LastHead
from mpserver.store.sequencer import Work
from mpwire.messages.issuer import ENTRY, Entry
from tests.mpserver.shop import JOB, NOW, Shop, answer_of


def _fill(shop: Shop) -> None:
    first, second = shop.order(), shop.order()
    for one in (first, second):
        shop.grant(one)
        shop.close_units(one)


def _decide(shop: Shop) -> None:
    """What the OEM's commands enter beside the rows that `make_shop` wrote."""
    (quota,) = shop.raw.execute("SELECT quota FROM jobs").fetchone()
    (product,) = shop.raw.execute("SELECT digest FROM products").fetchone()
    job = [digest_of_object("draft", JOB, "camera", quota), digest_of_object("open", JOB)]
    entries = [Entry("product", NOW, "camera", product), *(Entry("job", NOW, JOB, one) for one in job)]

    def act(books: SqlBooks) -> None:
        for one in entries:
            books.append(ENTRY.encode(one))

    assert shop.settle([Work(act)]) == [b""]


def _checkpoint(shop: Shop) -> None:
    shop.raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _restore(shop: Shop, copy: Path) -> Shop:
    shop.close()
    for name in ("ledger.db-wal", "ledger.db-shm"):
        (shop.folder / name).unlink(missing_ok=True)
    shutil.copy(copy, shop.folder / "ledger.db")
    return Shop(shop.folder, shop.authority)


def test_a_restored_older_ledger_grants_nothing(shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P2: a restore must not give the quota a second time."""
    shop.grant(shop.order())
    _checkpoint(shop)
    shutil.copy(shop.folder / "ledger.db", tmp_path / "old.db")
    shop.grant(*(shop.order() for _ in range(3)))

    restored = _restore(shop, tmp_path / "old.db")
    (outcome,) = restored.grant(restored.order())

    assert isinstance(outcome, NotNow) and str(outcome) == "recovery" and "older copy" in outcome.detail
    assert restored.count("units") == restored.granted() == 1
    assert main(["--dir", str(restored.folder), "doctor"]) == 77
    assert "FAIL ledger-head: recovery" in capsys.readouterr().out
    assert main(["--dir", str(restored.folder), "ledger", "verify"]) == 65
    assert "1 entries, but 4 were committed" in capsys.readouterr().err
    assert main(["--dir", str(restored.folder), "ledger", "accept-gap"]) == 77
    assert "two people" in capsys.readouterr().err
    restored.close()


def test_a_ledger_swapped_under_a_running_server_grants_nothing(shop: Shop, tmp_path: Path) -> None:
    """The same, without a restart in between: a replica elsewhere committed what this file does not have."""
    shop.grant(shop.order())
    last = shop.last_head.read()
    shop.last_head.raise_to(LastHead(last.size + 1, bytes(32)))

    (outcome,) = shop.grant(shop.order())

    assert isinstance(outcome, NotNow) and str(outcome) == "recovery"
    assert shop.granted() == 1


def test_another_ledger_of_the_same_length_grants_nothing(shop: Shop, tmp_path: Path) -> None:
    _checkpoint(shop)
    shutil.copy(shop.folder / "ledger.db", tmp_path / "empty.db")
    shop.grant(shop.order())
    last = shop.last_head.read()
    forked = _restore(shop, tmp_path / "empty.db")
    forked.last_head = forked.sequencer._last_head
    (shop.folder / "keys" / "last-head").unlink()
    forked.last_head.make()
    forked.grant(forked.order())
    forked.last_head.raise_to(LastHead(last.size + 1, last.root))  # only to have a place to write the first one again
    (shop.folder / "keys" / "last-head").unlink()
    forked.last_head.make()
    forked.last_head.raise_to(last)
    forked.close()

    opened = Shop(shop.folder, shop.authority)
    (outcome,) = opened.grant(opened.order())

    assert isinstance(outcome, NotNow) and "not those that were committed" in outcome.detail
    assert opened.granted() == 1
    opened.close()


def test_without_the_head_kept_outside_nothing_is_granted(shop: Shop) -> None:
    (shop.folder / "keys" / "last-head").unlink()
    (outcome,) = shop.grant(shop.order())
    assert isinstance(outcome, NotNow) and str(outcome) == "recovery"
    assert shop.count("units") == 0


@pytest.mark.parametrize("torn", [0, 1])
def test_a_torn_record_of_the_last_head_costs_at_most_one_batch(shop: Shop, torn: int) -> None:
    """A cut while one record is written leaves the other; what it says is true, only older."""
    for _ in range(3):
        shop.grant(shop.order())
    path = shop.folder / "keys" / "last-head"
    raw = bytearray(path.read_bytes())
    raw[torn * RECORD_BYTES + 20] ^= 1
    path.write_bytes(raw)

    assert shop.last_head.read().size in (2, 3)
    answer_of(shop.grant(shop.order())[0])
    assert shop.last_head.read().size == 4


def test_a_last_head_without_any_whole_record_is_named(shop: Shop) -> None:
    (shop.folder / "keys" / "last-head").write_bytes(b"x" * 2 * RECORD_BYTES)
    with pytest.raises(StoreDamaged, match="no whole record"):
        shop.last_head.read()


DAMAGES: dict[str, tuple[str, str]] = {
    "an entry was changed": (
        "UPDATE entries SET body = (SELECT body FROM entries WHERE idx = 0) WHERE idx = 2",
        "entry 2",
    ),
    "an entry cannot be read": ("UPDATE entries SET body = x'00' WHERE idx = 1", "entry 1"),
    "an entry is no bytes": ("UPDATE entries SET body = 7 WHERE idx = 1", "entry 1"),
    "an entry was removed": ("DELETE FROM entries WHERE idx = 1", "entry 1 is missing"),
    "the last entries were removed": ("DELETE FROM entries WHERE idx >= 2", "entry 2 is missing"),
    "a tree node was changed": ("UPDATE nodes SET hash = zeroblob(32) WHERE place = 2", "entry 1 "),
    "a tree node was removed": ("DELETE FROM nodes WHERE place = 0", "entry 0 "),
    "the last head was removed": ("DELETE FROM heads WHERE size = 7", "entry 4 is under no signed head"),
    "a head is not signed": (
        "UPDATE heads SET signed = CAST(substr(signed, 1, length(signed) - 1) || x'00' AS BLOB)",
        "head over",
    ),
    "a head is no bytes": ("UPDATE heads SET signed = 'text'", "head over"),
    "a head was moved": ("UPDATE heads SET signed = (SELECT signed FROM heads WHERE size = 1)", "head 1 disagrees"),
    "a Closed was lost": ("UPDATE units SET closed = NULL", "without a Closed"),
    "a unit set back": ("UPDATE units SET closed = NULL, receipt = NULL, state = 'granted'", "and no Closed"),
    "a unit called granted": ("UPDATE units SET state = 'granted'", "is called granted"),
    "a Closed of another": ("UPDATE units SET closed = (SELECT max(closed) FROM units)", "not the receipt of unit"),
    "a grant was changed": ("UPDATE grants SET answer = x'00'", "not the one in the ledger"),
    "a grant was removed": ("DELETE FROM grants WHERE nonce = (SELECT max(nonce) FROM grants)", "1 are stored"),
    "a count was lowered": ("UPDATE jobs SET granted = 1", "says 1 of 4 granted, units say 2"),
    "a unit was removed": ("DELETE FROM units WHERE ueid = (SELECT max(ueid) FROM units)", "units say 1"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_ledger_verify_finds(name: str, shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    _fill(shop)
    _decide(shop)
    assert main(["--dir", str(shop.folder), "ledger", "verify"]) == 0
    statement, place = DAMAGES[name]
    shop.raw.execute("PRAGMA foreign_keys = OFF")
    shop.raw.execute(statement)

    assert main(["--dir", str(shop.folder), "ledger", "verify"]) == 65
    assert place in capsys.readouterr().err


def test_a_ledger_file_full_of_garbage_is_named_and_left_as_it_is(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.close()
    (shop.folder / "ledger.db").write_bytes(garbage := b"not a database at all" * 400)
    for command in (["run"], ["doctor"], ["ledger", "verify"], ["device", "list"]):
        assert main(["--dir", str(shop.folder), *command]) == 65, command
        assert "is damaged" in capsys.readouterr().err
    assert (shop.folder / "ledger.db").read_bytes() == garbage


def test_a_page_of_the_ledger_file_overwritten_is_no_silent_answer(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    _fill(shop)
    _checkpoint(shop)
    root = shop.raw.execute("SELECT rootpage FROM sqlite_master WHERE name = 'entries'").fetchone()[0]
    shop.close()
    with (shop.folder / "ledger.db").open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    for command in (["ledger", "verify"], ["ledger", "show"]):
        assert main(["--dir", str(shop.folder), *command]) == 65, command
    assert main(["--dir", str(shop.folder), "doctor"]) in (65, 77)
    capsys.readouterr()


def test_a_state_directory_without_its_keys_says_so(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(shop.folder / "keys")
    assert main(["--dir", str(shop.folder), "run"]) == 78
    assert "keys is missing: run `mpserver init` first" in capsys.readouterr().err
