"""How a check says no: by its name, which docs/wire.md and docs/operate.md both know."""

from types import TracebackType

from mpissuer.errors import Refused
from mpwire.errors import Malformed, Unauthentic


class step:
    """Names the check inside it: a malformed or unauthentic part becomes Refused by that name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Malformed | Unauthentic):
            raise Refused(self.name, str(error)) from error


def require(holds: bool, check: str, detail: str) -> None:
    """Raises Refused(check) unless it holds."""
    if not holds:
        raise Refused(check, detail)
