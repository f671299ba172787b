"""Somebody with the ledger file rewrites history; `mpserver ledger verify` names the place."""

from collections.abc import Callable

import pytest

from mpserver.errors import StoreDamaged
from mpserver.keystore import LAST_HEAD
from mpserver.store.audit import Findings, verify_ledger
from mpserver.store.database import open_database
from mpserver.store.lasthead import LastHeadFile
from mpserver.store.tree import place_of
from mpwire import labels
from mpwire.merkle import Frontier, leaf_hash
from mpwire.messages.issuer import ENTRY, HEAD, Head
from mpwire.p256 import SoftKey
from mpwire.trust import read_signed
from tests.attacks.forge import RogueIssuer
from tests.line import NOW, Factory, Oem

Forge = Callable[[Oem], None]


@pytest.fixture
def kept(factory: Factory, oem: Oem) -> Oem:
    """Three boards stand in the ledger; it verifies."""
    for _ in range(3):
        factory.board().enroll()
    found = verify(oem)
    assert (found.entries, found.units, found.closed, found.grants) == (6, 3, 3, 3)
    return oem


def verify(oem: Oem) -> Findings:
    """As the command does."""
    connection = open_database(oem.folder / "ledger.db")
    try:
        last = LastHeadFile(oem.folder / "keys" / LAST_HEAD).read()
        return verify_ledger(connection, oem.image.roots, "lab", last)
    finally:
        connection.close()


def tamper(oem: Oem, *statements: str | tuple[str, tuple[object, ...]]) -> None:
    """An editor with the file; foreign keys are his to switch off."""
    connection = open_database(oem.folder / "ledger.db")
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    for one in statements:
        sql, row = one if isinstance(one, tuple) else (one, ())
        assert connection.execute(sql, row).rowcount != 0, sql
    connection.close()


def entry_of(oem: Oem, index: int) -> bytes:
    """A leaf."""
    ((body,),) = oem.rows(f"SELECT body FROM entries WHERE idx = {index}")
    assert isinstance(body, bytes)
    return body


def test_edited_entry_is_named(kept: Oem) -> None:
    """T-210 Rewriting: an entry is about another day, and still reads well."""
    entry = ENTRY.decode(entry_of(kept, 2), 4096)
    tamper(kept, ("UPDATE entries SET body = ? WHERE idx = 2", (ENTRY.encode(entry._replace(time=entry.time + 1)),)))

    with pytest.raises(StoreDamaged, match="entry 2 "):
        verify(kept)


@pytest.mark.parametrize("index", [0, 3, 5])
def test_removed_entry_is_named(kept: Oem, index: int) -> None:
    """T-211 Rewriting: an entry is gone, from the beginning, the middle or the end."""
    tamper(kept, f"DELETE FROM entries WHERE idx = {index}")

    with pytest.raises(StoreDamaged, match=f"entry {index} is missing"):
        verify(kept)


def test_cut_off_end_is_named(kept: Oem) -> None:
    """T-212 Rewriting: the last board is removed with its entries, heads, grant and count."""
    ((ueid,),) = kept.rows("SELECT ueid FROM units ORDER BY rowid DESC LIMIT 1")
    tamper(
        kept,
        "DELETE FROM entries WHERE idx >= 4",
        "DELETE FROM heads WHERE size > 4",
        *((f"DELETE FROM {table} WHERE ueid = ?", (ueid,)) for table in ("grants", "slot_values", "hardware_ids")),
        ("DELETE FROM units WHERE ueid = ?", (ueid,)),
        "UPDATE jobs SET granted = 2, state = 'open'",
    )

    with pytest.raises(StoreDamaged, match="6 were committed"):
        verify(kept)


def test_swapped_entries_are_named(kept: Oem) -> None:
    """T-213 Rewriting: two entries change places."""
    tamper(
        kept,
        "UPDATE entries SET idx = 100 WHERE idx = 1",
        "UPDATE entries SET idx = 1 WHERE idx = 2",
        "UPDATE entries SET idx = 2 WHERE idx = 100",
    )

    with pytest.raises(StoreDamaged, match="entry 1 "):
        verify(kept)


def test_edited_head_is_named(kept: Oem) -> None:
    """T-214 Rewriting: a head says another root, or is signed by another key."""
    ((signed,),) = kept.rows("SELECT signed FROM heads WHERE size = 6")
    assert isinstance(signed, bytes)
    head = HEAD.decode(read_signed(signed, labels.TYP_HEAD).payload, 2048)
    forged = RogueIssuer(kept).head(head, key=SoftKey.generate())

    tamper(kept, ("UPDATE heads SET signed = ? WHERE size = 6", (forged,)))
    with pytest.raises(StoreDamaged, match="signed head over 6"):
        verify(kept)
    tamper(kept, ("UPDATE heads SET signed = ?, root = ? WHERE size = 6", (signed, bytes(32))))
    with pytest.raises(StoreDamaged, match="entry 5 "):
        verify(kept)


def test_rewritten_tree_without_the_head_key_is_named(kept: Oem) -> None:
    """T-215 Rewriting: entry, nodes and root are made to fit each other; only the head key is missing."""
    rogue, edge = RogueIssuer(kept), Frontier()
    entry = ENTRY.decode(entry_of(kept, 5), 4096)
    forged = [entry_of(kept, index) for index in range(5)] + [ENTRY.encode(entry._replace(digest=bytes(32)))]
    statements: list[tuple[str, tuple[object, ...]]] = [("UPDATE entries SET body = ? WHERE idx = 5", (forged[5],))]
    for body in forged:
        edge, made = edge.append(leaf_hash(body))
        places = [(node.hash, place_of(node.level, node.place)) for node in made]
        statements += [("UPDATE nodes SET hash = ? WHERE place = ?", place) for place in places]
    head = rogue.head(Head(6, edge.root(), NOW, "lab"), key=SoftKey.generate())
    statements.append(("UPDATE heads SET root = ?, signed = ? WHERE size = 6", (edge.root(), head)))

    tamper(kept, *statements)

    with pytest.raises(StoreDamaged, match="signed head over 6 ledger entries does not hold"):
        verify(kept)


def test_entries_behind_the_last_head_are_named(kept: Oem) -> None:
    """T-215 Rewriting: the newest head is removed, so that its entries could be exchanged."""
    tamper(kept, "DELETE FROM heads WHERE size = 6")

    with pytest.raises(StoreDamaged, match="under no signed head"):
        verify(kept)


def test_changed_tree_node_is_named(kept: Oem) -> None:
    """T-216 Rewriting: an inner hash that later inclusion proofs would be made of."""
    tamper(kept, ("UPDATE nodes SET hash = ? WHERE place = 3", (bytes(32),)))

    with pytest.raises(StoreDamaged, match="tree node"):
        verify(kept)


def test_swapped_closed_is_named(kept: Oem) -> None:
    """T-217 Paper boards: one unit shows another's Closed."""
    rows = kept.rows("SELECT ueid, closed FROM units ORDER BY rowid")
    tamper(kept, ("UPDATE units SET closed = ? WHERE ueid = ?", (rows[1][1], rows[0][0])))

    with pytest.raises(StoreDamaged, match="is not the receipt of unit"):
        verify(kept)


def test_unit_provisioned_without_a_receipt_is_named(kept: Oem) -> None:
    """T-218 Paper boards: a unit is called provisioned by an edit."""
    tamper(kept, "UPDATE units SET closed = NULL WHERE rowid = 2")

    with pytest.raises(StoreDamaged, match="provisioned without a Closed"):
        verify(kept)


@pytest.mark.parametrize("receipt", [b"another story", None, "text"])
def test_exchanged_receipt_is_named(kept: Oem, receipt: object) -> None:
    """T-233 Paper boards: the receipt kept beside a unit is exchanged, removed, or turned into text."""
    tamper(kept, ("UPDATE units SET receipt = ? WHERE rowid = 2", (receipt,)))

    with pytest.raises(StoreDamaged, match="the receipt of unit"):
        verify(kept)


def test_edited_count_is_named(kept: Oem) -> None:
    """T-219 Over-production: the count of a job is set back, or its quota raised above what was granted."""
    tamper(kept, "UPDATE jobs SET granted = 1")

    with pytest.raises(StoreDamaged, match=r"job-1 says 1 of 4 granted, units say 3"):
        verify(kept)


def test_grant_that_is_not_in_the_tree_is_named(kept: Oem) -> None:
    """T-219 Over-production: a Grant is removed, or another put in its place."""
    tamper(kept, ("UPDATE grants SET answer = ? WHERE rowid = 1", (b"other",)))
    with pytest.raises(StoreDamaged, match="not the one in the ledger"):
        verify(kept)
    tamper(kept, "DELETE FROM grants WHERE rowid = 1")
    with pytest.raises(StoreDamaged, match="2 are stored"):
        verify(kept)
