"""What can go wrong on the server beside the issuer's own no (mpissuer.errors). Exit codes are sysexits."""

from mpwire.errors import MpError, Retry


class Usage(MpError):
    """The command line asks for something that does not exist or cannot be; nothing was done."""

    exit_code, retry = 64, Retry.OPERATOR


class StoreDamaged(MpError):
    """The ledger file or a file of the keystore contradicts itself. Nothing was written; a person must look."""

    exit_code, retry = 65, Retry.NEVER


class AddressTaken(MpError):
    """The address to listen on cannot be had."""

    exit_code, retry = 69, Retry.LATER


class StateBroke(MpError):
    """The state directory cannot be read or written: full, read-only, not ours."""

    exit_code, retry = 74, Retry.LATER


class SetUp(MpError):
    """The server is not set up for this: no `mpserver init` yet, or a realm that asks for more than it has."""

    exit_code, retry = 78, Retry.OPERATOR


class NeedsPerson(MpError):
    """A rule of the jobs or of the ledger says no until a person acts."""

    exit_code, retry = 77, Retry.OPERATOR


class LogWrong(MpError):
    """What a person handed over is cut off, contradicts itself, or says that the part failed. Nothing was kept."""

    exit_code, retry = 65, Retry.OPERATOR


class ReceiptsWrong(MpError):
    """A receipts file does not hold; nothing of it was kept. Another copy of it may be whole."""

    exit_code, retry = 65, Retry.OPERATOR
