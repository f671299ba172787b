"""The next step, in words, for every failure we foresaw; printed after the failure itself."""

from collections.abc import Mapping
from typing import Any, Final

from mpagent import errors
from mpagent.durable import Damaged
from mpwire.errors import Malformed, MpError, PeerBroke, Unauthentic
from mpwire.jobsecret import Mistyped

_BY_CHECK: Final[Mapping[str, str]] = {
    "quota": "the OEM raises the job's quota or opens another job",
    "clone": "keep this board apart: its chip id is known with other device keys; the OEM decides",
    "job": "the OEM opens a job for this product",
    "job-ended": "the OEM opens another job",
    "product": "this image names a product the server does not know; flash the right image",
    "life-cycle": "close the part, reboot it, and enroll again",
    "rework": "the OEM approves a rework of this board on the server",
}
"""By the name of the issuer's check; every other check has the advice of its class."""
_BY_CLASS: Final[tuple[tuple[type[MpError], str], ...]] = (
    (errors.AnchorsMissing, "flash an image that holds it, or name the folder that does with --root"),
    (errors.ConfigWrong, "correct it there and run the command again"),
    (errors.Busy, "wait for that process to end, or stop it"),
    (errors.NoBundle, "put the bundle there; mpagent.toml says where it is looked for"),
    (errors.MediumBroke, "put the stick or card in again, or use another"),
    (Mistyped, "scan or type it again, from the OEM's own print"),
    (errors.BundleRefused, "use the bundle that was made for this board and image"),
    (errors.BundleBroke, "copy the bundle again, from the OEM's own file"),
    (errors.NoServer, "bring the line up and run enroll again; nothing is lost"),
    (errors.Pending, "run enroll again later; the same bytes will be said"),
    (errors.RefusedForNow, "run enroll again later"),
    (errors.Refused, "ask the OEM: the server's log names this run and the check"),
    (errors.StorageFull, "make room or make the state partition writable, then run enroll again"),
    (errors.StorageBroke, "look at that path; with nothing strange there, check the flash and its file system"),
    (errors.ForeignDisk, "put this disk back to its board, or start with an empty state partition"),
    (errors.NotMine, "this chip cannot open what lies here; rework on the server, then an empty state partition"),
    (errors.Tampered, "keep the board apart; rework on the server, then an empty state partition"),
    (errors.NotClosed, "close the part and reboot"),
    (
        errors.PcrsMoved,
        "boot an approved image, or have the OEM approve what this one measures (mpserver tpm authorize-pcrs)",
    ),
    (Damaged, "run mpagent enroll, which sets it aside and says what that means"),
    (errors.Unordered, "look at mpagent status: the order comes when mpagent enroll has passed in this boot"),
    (errors.TargetRefused, "correct [finish] of the image's anchors.toml, or what is mounted; nothing was written"),
    (errors.ProgramMissing, "put it into the image"),
    (errors.InstallFailed, "look at the installer's own log; the next run tries again"),
    (errors.ImageWrong, "compare the file on the server with the product's [image]; the next run begins anew"),
    (errors.HardwareBusy, "try again"),
    (errors.HardwareLockout, "wait until the TPM's lockout ends; its owner can end it at once"),
    (errors.HardwareGone, "check that part and its driver; mpagent doctor tries each one"),
    (Unauthentic, "check that the server and this image belong together"),
    (PeerBroke, "check that server and image speak the same version, then run enroll again"),
)
"""The first class that fits."""


def advise(error: MpError) -> str:
    """One clause without a full stop; empty where the failure says all."""
    if isinstance(error, errors.Refused) and error.check in _BY_CHECK:
        return _BY_CHECK[error.check]
    if isinstance(error, errors.HardwareGone | errors.BundleBroke) and error.advice:
        return error.advice
    return next((advice for kind, advice in _BY_CLASS if isinstance(error, kind)), "")


def say(error: MpError) -> str:
    """What failed and what to do, on one line."""
    advice = advise(error)
    text = f"not a message of this protocol: {error}" if isinstance(error, Malformed) else str(error)
    stop = "" if text.endswith(("?", ".")) else "."
    return f"{text}{stop} Next: {advice}" if advice else text


def describe(error: MpError) -> dict[str, Any]:
    """The same for a script."""
    return {
        "check": getattr(error, "check", type(error).__name__),
        "text": str(error),
        "next": advise(error),
        "retry": error.retry.value,
        "exit_code": error.exit_code,
    }
