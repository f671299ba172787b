"""The issuer's no, with the name of the failed check (design promise P11)."""

from enum import IntEnum

from mpwire.errors import MpError, Retry


class Again(IntEnum):
    """What the peer is told about trying again (docs/wire.md 4.7)."""

    RETRY = 1
    OPERATOR = 2
    FINAL = 3


class Refused(MpError):
    """One check failed. The peer hears the check's name and the class; the operator hears the detail.

    `alarm` marks a refusal that shows an attack by somebody authenticated (a clone): the ledger keeps a row of it.
    """

    exit_code, retry = 77, Retry.OPERATOR

    def __init__(
        self, check: str, detail: str, *, again: Again = Again.OPERATOR, alarm: bool = False, retry_after_s: int = 0
    ) -> None:
        super().__init__(check, detail=detail)
        self.check, self.again, self.alarm, self.retry_after_s = check, again, alarm, retry_after_s


class NotNow(MpError):
    """Nothing was decided; the same bytes may be said again later (HTTP 503)."""

    exit_code, retry = 75, Retry.LATER

    def __init__(self, public: str, *, retry_after_s: int = 2, detail: str = "") -> None:
        super().__init__(public, detail=detail)
        self.retry_after_s = retry_after_s


class KeptAlready(MpError):
    """The vault keeps a secret under this name already; what it keeps cannot be compared, so a person decides."""

    exit_code, retry = 77, Retry.OPERATOR


class NotKept(MpError):
    """The vault keeps nothing under this name."""

    exit_code, retry = 77, Retry.OPERATOR


class ProductWrong(MpError):
    """A product file says something that cannot be followed; the text names the key.

    `key` is that key ("" for the file or a slot as a whole) and `slot` its [[slot]] table, counted from 0, or None.
    """

    exit_code, retry = 78, Retry.OPERATOR

    def __init__(self, public: str, *, key: str = "") -> None:
        super().__init__(public)
        self.key = key
        self.slot: int | None = None
