"""A server whose keys are in a real token (SoftHSM2), with a module of its own for each test."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from mpserver.authority import IssuerAuthority, make_keystore, open_safe
from mpserver.keystore import Keystore
from mpserver.token.pool import Pool, Session
from mpserver.token.preparation import choose_token, name_token
from mpserver.token.safe import TokenSafe
from mpserver.token.settings import TokenSettings
from mpsim.clock import SetClock
from mpsim.softhsm import SoftHsm

NOW = 1_800_000_000
LABEL = "oem"


class Office:
    """An issuer whose keys are in the token of these settings."""

    def __init__(self, folder: Path, settings: TokenSettings) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder, self.keys = folder, folder / "keys"
        self.store, self.clock = Keystore(self.keys), SetClock(NOW)
        self._settings = settings

    def found(self) -> Self:
        """As `init` does."""
        make_keystore(self.keys, "lab", (), NOW, choose_token(self._settings))
        return self

    def forget(self) -> None:
        """Every key of this issuer, for the next one."""
        safe = open_safe(self.store)
        assert isinstance(safe, TokenSafe)
        safe.forget_all()

    def open(self) -> IssuerAuthority:
        """As each process does when it starts."""
        return IssuerAuthority(open_safe(self.store), self.store, "lab", self.clock)


class TokenOffice(Office):
    """In a token in software of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.token = SoftHsm(folder / "token", LABEL)
        self.token.initialize()
        self.module = self.token.make_module()
        super().__init__(folder, name_token(self.module, LABEL, "", str(self.token.pin_file)))

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
