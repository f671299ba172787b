"""`mpserver init`: keys and an empty ledger, all of it or nothing, whenever the power fails.

Everything is made in a folder of its own inside the state directory and moved into place once it is whole, the keys
last. So while there are no keys in place nobody has used what an interrupted init left, and the next one begins anew.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mpserver.authority import make_keystore
from mpserver.errors import SetUp, StateBroke
from mpserver.keystore import Keystore, sync_directory
from mpserver.state import Places
from mpserver.store.database import make_database
from mpserver.token.preparation import choose_token
from mpserver.token.safe import open_safe
from mpserver.token.settings import TokenSettings, has_settings
from mpwire.errors import MpError

STAGING: Final = "init.new"


def found(directory: Path, realm: str, names: Sequence[str], now: int, token: TokenSettings | None = None) -> None:
    """A new issuer. Raises SetUp where one is there already, another init is at work, or the token is not fit to hold
    its keys; StateBroke; TokenAway."""
    places, made = Places(directory), Places(directory / STAGING)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(directory):
            _clear_interrupted(places, made)
            if places.ledger.exists() or places.keys.exists():
                raise SetUp(f"{directory} is set up already; another issuer needs another --dir")
            _check_empty(directory)
            if token is not None:
                token = choose_token(token)
            directory.chmod(0o700)
            made.directory.mkdir(mode=0o700)
            make_keystore(made.keys, realm, names, now, token)
            make_database(made.ledger, {"realm": realm})
            _move_into_place(places, made)
    except OSError as error:
        raise StateBroke(f"cannot set up {directory}: {error.strerror}") from error


def _check_empty(directory: Path) -> None:
    """A folder that holds something of another is not closed to its owners, and no state directory."""
    strange = sorted(one.name for one in directory.iterdir() if one.name != "lost+found")
    if strange:
        raise SetUp(f"{directory} holds other files ({strange[0]}): name an empty or a new folder with --dir")


def _move_into_place(places: Places, made: Places) -> None:
    for source, target in _moves(places, made):
        if target.exists():
            raise SetUp(f"{target} exists already; another issuer needs another --dir")
        source.rename(target)
        sync_directory(places.directory)
    made.directory.rmdir()


def _clear_interrupted(places: Places, made: Places) -> None:
    """Remove what an interrupted init left, moved or not: never used, for its keys are not in place."""
    if not made.directory.exists():
        return
    if made.keys.exists() and not places.keys.exists():
        for source, target in _moves(places, made):
            if target.exists() and not source.exists():
                shutil.rmtree(target) if target.is_dir() else target.unlink()
        _clear_token(Keystore(made.keys), made.directory)
    shutil.rmtree(made.directory)


def _clear_token(store: Keystore, staging: Path) -> None:
    """Destroy the keys that the interrupted init left in a token. Raises SetUp where that cannot be done now."""
    if not has_settings(store):
        return
    try:
        open_safe(store, is_new=True).forget_all()
    except MpError as error:
        raise SetUp(
            f"an init was interrupted, and the keys it left in a token cannot be destroyed: {error.detail or error};"
            f" put the token in, or remove {staging} if that token is gone for good"
        ) from error


def _moves(places: Places, made: Places) -> list[tuple[Path, Path]]:
    """What goes where, the keys last."""
    offline = Keystore(made.keys).offline, Keystore(places.keys).offline
    return [offline, (made.ledger, places.ledger), (made.keys, places.keys)]


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One init at a time on a directory."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise SetUp(f"another mpserver init is at work on {directory}") from None
    finally:
        os.close(held)
