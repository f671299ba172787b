"""The backend `pkcs11`: OP-TEE's PKCS#11 TA or any other token as sealer and keyring (python-pkcs11, imported late)."""

from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from mpagent.hal.pkcs11.keys import NEEDS, Pkcs11Keyring
from mpagent.hal.pkcs11.seal import Pkcs11Sealer, explain_lack, open_sealer
from mpagent.hal.pkcs11.token import Token, open_token
from mpagent.hal.ports import Shelf

__all__ = ["Pkcs11Parts", "open_pkcs11"]


class Pkcs11Parts(NamedTuple):
    """What one open token offers; all parts share its session, and after close() none may be used.

    Asking for a part the token has no mechanisms for raises HardwareAbsent, or HardwareGone if it once had.
    """

    token: Token
    shelf: Shelf

    @property
    def sealer(self) -> Pkcs11Sealer:
        """Makes no key yet."""
        return open_sealer(self.token)

    @property
    def keyring(self) -> Pkcs11Keyring:
        """Makes no key yet."""
        missing = self.token.lacks(*NEEDS)
        if missing:
            raise explain_lack(self.token, "keep device keys", missing)
        return Pkcs11Keyring(self.token, self.shelf)

    def close(self) -> None:
        """Log out; closing twice is harmless."""
        self.token.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_pkcs11(module: Path, token: str, pin_file: Path, shelf: Shelf, serial: bytes | None = None) -> Pkcs11Parts:
    """Log in to the token of this label behind a PKCS#11 module; see token.open_token for what is raised.

    `serial` tells tokens of one label apart. `pin_file` is read only when the token is there and has tries left.
    """
    return Pkcs11Parts(open_token(module, token, pin_file, serial), shelf)
