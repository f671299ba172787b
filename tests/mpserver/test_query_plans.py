"""No statement of an enrollment may cost more the more boards the ledger holds."""

from contextlib import ExitStack
from pathlib import Path

from mpserver.store.database import Connection, open_database
from tests.line import Factory, Oem

SMALL = frozenset({"products", "jobs", "facts", "one", "other"})
"""Tables that do not grow with the boards, and the names queries give to `products`."""


def scans(connection: Connection, sql: str) -> list[str]:
    """What SQLite would read from end to end to answer a statement. One row off the end of an index is no walk."""
    steps = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()]
    if sql.endswith("LIMIT 1") and not any("TEMP B-TREE" in step for step in steps):
        return []
    return [step for step in steps if step.startswith("SCAN ") and step.split()[1] not in SMALL]


def test_the_millionth_board_costs_no_more_than_the_first(tmp_path: Path) -> None:
    oem, heard = Oem(tmp_path / "oem"), list[str]()
    try:
        for connection in (oem.connection, oem.writing):
            connection.set_trace_callback(heard.append)
        with ExitStack() as stack:
            factory = Factory(tmp_path, oem, stack)
            for _ in range(2):
                factory.board().enroll()
    finally:
        oem.stop()
    planned = {sql for sql in heard if sql.split()[0] in ("SELECT", "UPDATE", "DELETE", "INSERT")}
    assert {sql.split()[0] for sql in planned} >= {"SELECT", "UPDATE", "INSERT"}
    ledger = open_database(oem.folder / "ledger.db")
    try:
        assert {sql: found for sql in planned if (found := scans(ledger, sql))} == {}
    finally:
        ledger.close()


def test_a_walk_through_all_boards_is_seen(tmp_path: Path) -> None:
    oem = Oem(tmp_path / "oem")
    try:
        ids = "SELECT kind, ueid FROM hardware_ids WHERE"
        assert scans(oem.connection, f"{ids} (kind, id) IN (VALUES ('imx-uid', x'00'), ('device-key', x'01'))")
        assert not scans(oem.connection, f"{ids} (kind = 'imx-uid' AND id = x'00') OR (kind = 'tpm-ek' AND id = x'01')")
    finally:
        oem.stop()
