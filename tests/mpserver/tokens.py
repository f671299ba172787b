"""A server whose keys are in a real token (SoftHSM2), with a module of its own for each test."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpserver.authority import IssuerAuthority, make_keystore, open_safe
from mpserver.keystore import Keystore
from mpserver.token.pool import Pool, Session
from mpserver.token.preparation import choose_token, name_token
from mpserver.token.safe import TokenSafe
from mpsim.clock import SetClock
from mpsim.softhsm import SoftHsm

NOW = 1_800_000_000
LABEL = "oem"


class TokenOffice:
    """A token, and an issuer's keys in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        self.token = SoftHsm(folder / "token", LABEL)
        self.token.initialize()
        self.module = self.token.make_module()
        self.keys = folder / "keys"
        self.store = Keystore(self.keys)
        self.clock = SetClock(NOW)

    def found(self) -> "TokenOffice":
        """As `init` does."""
        settings = name_token(self.module, LABEL, "", str(self.token.pin_file))
        make_keystore(self.keys, "lab", (), NOW, choose_token(settings))
        return self

    def open(self) -> IssuerAuthority:
        """As each process does when it starts."""
        return IssuerAuthority(open_safe(self.store), self.store, "lab", self.clock)

    @contextmanager
    def stranger(self) -> Iterator[Session]:
        """Somebody else who has the PIN: a session with nothing of ours between it and the token."""
        settings = dataclasses.replace(safe_of(self.open()).settings, check=b"")
        pool, held = Pool(settings), []
        pool.run("", held.append)
        yield held[0]
        pool.close()


def safe_of(authority: IssuerAuthority) -> TokenSafe:
    """The safe, for tests that look into it."""
    assert isinstance(authority.safe, TokenSafe)
    return authority.safe


def labels_in(session: Session) -> list[str]:
    """Of every object in the token."""
    attribute: Any = session.p11.Attribute
    return sorted(str(one[attribute.LABEL]) for one in session.raw.get_objects({attribute.TOKEN: True}))
