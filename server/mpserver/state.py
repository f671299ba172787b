"""The state directory of one server: which files it has, and opening all of them together."""

import os
import pwd
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mpissuer.ports import SecretVault
from mpserver.authority import IssuerAuthority, open_safe
from mpserver.clock import SystemClock
from mpserver.errors import NeedsPerson, SetUp, StateBroke
from mpserver.keystore import LAST_HEAD, Keystore
from mpserver.safe import Safe
from mpserver.store.database import explained, open_database, read_fact
from mpserver.store.lasthead import LastHeadFile
from mpserver.store.sequencer import Sequencer

DEFAULT_DIRECTORY: Final = Path("/var/lib/mpserver")


@dataclass(frozen=True, slots=True)
class Places:
    """Where things lie under --dir."""

    directory: Path

    @property
    def ledger(self) -> Path:
        """The SQLite file."""
        return self.directory / "ledger.db"

    @property
    def keys(self) -> Path:
        """The keystore."""
        return self.directory / "keys"

    @property
    def last_head(self) -> Path:
        """The last head, outside the database."""
        return self.keys / LAST_HEAD


@dataclass(frozen=True, slots=True)
class State:
    """An opened server state: keys, and a connection that is not shared with another thread."""

    places: Places
    realm: str
    clock: SystemClock
    keystore: Keystore
    authority: IssuerAuthority
    connection: sqlite3.Connection
    last_head: LastHeadFile

    @property
    def safe(self) -> Safe:
        """Where the private and secret keys are."""
        return self.authority.safe

    @property
    def vault(self) -> SecretVault:
        """Secrets that are kept to be expanded: where the keys are."""
        return self.safe.vault

    def make_sequencer(self, connection: sqlite3.Connection) -> Sequencer:
        """For the one thread that writes by this connection."""
        return Sequencer(connection, self.authority, self.clock, self.last_head)

    def close(self) -> None:
        """Give the ledger file back."""
        self.connection.close()


def open_state(directory: Path) -> State:
    """Raises SetUp, StoreDamaged, StateBroke."""
    places = Places(directory)
    connection = open_ledger(places)
    try:
        with explained(places.ledger):
            realm = read_fact(connection, "realm")
        clock, keystore = SystemClock(), Keystore(places.keys)
        authority = IssuerAuthority(open_safe(keystore), keystore, realm, clock)
    except BaseException:
        connection.close()
        raise
    return State(places, realm, clock, keystore, authority, connection, LastHeadFile(places.last_head))


def open_ledger(places: Places) -> sqlite3.Connection:
    """A connection alone, for commands that need no key."""
    try:
        if not places.directory.is_dir():
            raise SetUp(f"no state directory {places.directory}: run `mpserver init`, or name another with --dir")
        _check_owner(places.directory)
        return open_database(places.ledger)
    except OSError as error:
        raise StateBroke(f"{places.directory}: {error.strerror}") from error


def _check_owner(directory: Path) -> None:
    """Raises NeedsPerson where another user, root too, would make files that the server's own user cannot read."""
    owner = directory.stat().st_uid
    if owner != os.geteuid():
        name = _name_user(owner)
        raise NeedsPerson(f"{directory} belongs to user {name}: type it as that user, e.g. sudo -u {name} mpserver ...")


def _name_user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"#{number}"
