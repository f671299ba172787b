"""The SQLite file: how it is made, opened, and what its errors mean here."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final, Protocol

from mpissuer.errors import NotNow
from mpserver.errors import SetUp, StateBroke, StoreDamaged

SCHEMA_VERSION: Final = "7"
BUSY_S: Final = 5.0
"""Seconds to wait for another process's transaction. A batch of 128 takes some 30 ms on a slow disk."""
CACHE_KIB: Final = 65_536
"""Page cache of a connection: the upper levels of every index of a million boards. SQLite's own 2 MiB cost half of
the time of a grant (measured)."""
CHECKPOINT_PAGES: Final = 8_192
"""Pages of 4 KiB in the WAL before they are moved to the ledger file: 32 MiB, some 5,000 boards."""
STATEMENTS_KEPT: Final = 256
"""Prepared statements a connection keeps; we have fewer than 80."""


class Connection(Protocol):
    """What the store uses of sqlite3.Connection: tests put one between that loses power at a chosen statement."""

    @property
    def in_transaction(self) -> bool:
        """Whether BEGIN ran and neither COMMIT nor ROLLBACK did."""

    def execute(self, sql: str, parameters: Any = ..., /) -> sqlite3.Cursor:
        """One statement."""

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        """One statement for each row."""

    def close(self) -> None:
        """Without COMMIT, what is open is rolled back."""


def make_database(path: Path, facts: dict[str, str]) -> None:
    """A new, empty ledger; all of its schema or nothing. Raises SetUp where a file stands already."""
    if path.exists():
        raise SetUp(f"{path} exists already; `mpserver init` makes new ledgers only")
    schema = resources.files("mpserver.store").joinpath("schema.sql").read_text(encoding="utf-8")
    with explained(path):
        connection = _connect(path)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN IMMEDIATE;\n{schema}")
            rows = {"schema": SCHEMA_VERSION, **facts}
            connection.executemany("INSERT INTO facts (name, value) VALUES (?, ?)", rows.items())
            connection.execute("COMMIT")
        finally:
            connection.close()
    path.chmod(0o600)


def open_database(path: Path) -> sqlite3.Connection:
    """A connection for one thread at a time. Raises SetUp, StoreDamaged, StateBroke."""
    if not path.exists():
        raise SetUp(f"no ledger at {path}: run `mpserver init` first, or name the state directory with --dir")
    with explained(path):
        connection = _connect(path)
        try:
            found = connection.execute("SELECT value FROM facts WHERE name = 'schema'").fetchone()
        except BaseException:
            connection.close()
            raise
    if found is None or found[0] != SCHEMA_VERSION:
        connection.close()
        raise StoreDamaged(f"{path} has another schema than this version of mpserver")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS_KEPT
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute("PRAGMA temp_store = MEMORY")  # what a savepoint would bring back; nothing durable
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def read_fact(connection: Connection, name: str) -> str:
    """One of the facts written by `init` (realm, schema)."""
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise StoreDamaged(f"the ledger does not say its {name}")
    return str(row[0])


_DAMAGE: Final = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT"})


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file itself is wrong, not the disk under it."""
    name = getattr(error, "sqlite_errorname", "")
    strange = any(said in str(error) for said in ("no such table", "no such column", "Could not decode to UTF-8"))
    return strange or any(name == one or name.startswith(one + "_") for one in _DAMAGE)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """For commands: what SQLite could not do, as one of our errors with the next step."""
    try:
        yield
    except sqlite3.Error as error:
        if is_damage(error):
            raise StoreDamaged(f"{path} is damaged ({error}); restore a backup, then `mpserver doctor`") from error
        raise StateBroke(f"{path}: {error}; look at free space, permissions and who else uses it") from error


@contextmanager
def answering() -> Iterator[None]:
    """For the line: the peer hears "later", the operator hears why."""
    try:
        yield
    except sqlite3.Error as error:
        raise NotNow("storage", retry_after_s=5, detail=f"{type(error).__name__}: {error}") from error
