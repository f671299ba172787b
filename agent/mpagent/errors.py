"""What can go wrong on the device, in the device's own words (exit codes: docs/operate.md)."""

from mpwire.errors import MpError, Retry


class ConfigWrong(MpError):
    """anchors.toml or mpagent.toml says something we cannot follow; the text names file and line."""

    exit_code, retry = 78, Retry.OPERATOR


class AnchorsMissing(ConfigWrong):
    """There is no anchors.toml: no image, or the wrong root."""


class Busy(MpError):
    """Another mpagent holds the state folder; the text names its process id."""

    exit_code, retry = 75, Retry.LATER


class NoServer(MpError):
    """Nobody answered, or the line broke before an answer was whole."""

    exit_code, retry = 69, Retry.LATER


class Pending(MpError):
    """The server asks us to say the same bytes again later."""

    exit_code, retry = 75, Retry.LATER

    def __init__(self, public: str, *, retry_after_s: int, detail: str = "") -> None:
        super().__init__(public, detail=detail)
        self.retry_after_s = retry_after_s


class Refused(MpError):
    """The issuer refused and an operator must act. It ends this run and latches nothing."""

    exit_code, retry = 77, Retry.OPERATOR

    def __init__(self, check: str, public: str, *, detail: str = "") -> None:
        super().__init__(public, detail=detail)
        self.check = check


class RefusedForNow(Refused):
    """The issuer refused, and says that trying again later can help."""

    exit_code, retry = 75, Retry.LATER


class NoBundle(MpError):
    """Nothing lies where bundles are looked for; it may still be put there."""

    exit_code, retry = 69, Retry.LATER


class BundleBroke(MpError):
    """A bundle that is torn, malformed, or not signed by anybody whose word counts. Nothing we keep has changed."""

    exit_code, retry = 76, Retry.OPERATOR

    def __init__(self, check: str, public: str, *, advice: str = "", detail: str = "") -> None:
        super().__init__(public, detail=detail)
        self.check = check
        """Its name in docs/wire.md 11.4."""
        self.advice = advice
        """What to do about this one, as a clause without a full stop."""


class BundleRefused(BundleBroke):
    """A whole bundle that is not for this board, this image or this time, or lacks its job secret: a person acts."""

    exit_code, retry = 77, Retry.OPERATOR


class MediumBroke(MpError):
    """What a bundle or a job secret lies on cannot be read: pulled, worn, or not ours to read. Nothing changed."""

    exit_code, retry = 74, Retry.OPERATOR


class StorageFull(MpError):
    """The state partition cannot take a new file: full, or read-only. What was there is as it was."""

    exit_code, retry = 73, Retry.OPERATOR


class StorageBroke(MpError):
    """Reading or writing the state partition failed half-way."""

    exit_code, retry = 74, Retry.OPERATOR


class Tampered(MpError):
    """Our own seal, counter or key contradicts our record. Latched on disk before this is raised."""

    exit_code, retry = 65, Retry.NEVER


class ForeignDisk(MpError):
    """The record is whole, but names another chip: a cloned or swapped disk. Found anew at every start."""

    exit_code, retry = 65, Retry.NEVER


class NotClosed(MpError):
    """The part is open, or closed by fuse but not rebooted; sealing here would use a public test key."""

    exit_code, retry = 77, Retry.OPERATOR


class PcrsMoved(MpError):
    """What runs was not approved by the OEM to have what is sealed. Nothing is damaged: an approved image opens it."""

    exit_code, retry = 77, Retry.OPERATOR


class HardwareBusy(MpError):
    """Nothing happened in the chip; ask again."""

    exit_code, retry = 75, Retry.LATER


class HardwareLockout(MpError):
    """A TPM in dictionary-attack lockout: it says so itself, and only time or its owner ends it."""

    exit_code, retry = 75, Retry.LATER


class HardwareGone(MpError):
    """The chip is absent, broken or answers nonsense; stop for good."""

    exit_code, retry = 74, Retry.OPERATOR

    def __init__(self, public: str, *, detail: str = "", advice: str = "") -> None:
        super().__init__(public, detail=detail)
        self.advice = advice
        """What to do about this one cause, as a clause without a full stop; empty: the advice of the class."""


class HardwareAbsent(HardwareGone):
    """This board has no such part, so the next one the image names is tried. Never said of a part that is broken."""


class Unordered(MpError):
    """The finisher has no order of this boot: enrollment has not passed yet."""

    exit_code, retry = 75, Retry.LATER


class TargetRefused(MpError):
    """A device that the finisher must not write to, or cannot. Nothing was written."""

    exit_code, retry = 77, Retry.OPERATOR


class ProgramMissing(MpError):
    """A program of the image that the finisher needs is not there, or does not start."""

    exit_code, retry = 78, Retry.OPERATOR


class InstallFailed(MpError):
    """The image's installer took the verified image and ended with a failure. The running system is as it was."""

    exit_code, retry = 74, Retry.OPERATOR


class ImageWrong(MpError):
    """What came is not the image that the Grant names. It does not boot: its first bytes were never written."""

    exit_code, retry = 76, Retry.LATER


class NotMine(MpError):
    """A blob that this chip did not seal, or sealed in another life-cycle state."""

    exit_code, retry = 65, Retry.NEVER
