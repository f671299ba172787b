"""What the kernel's refusals mean: the cause, the kernel option behind it, and the next step."""

import errno
from collections.abc import Mapping, Sequence
from typing import Final

from mpagent.errors import HardwareAbsent, HardwareBusy, HardwareGone, NotMine
from mpwire.errors import MpError

_NO_KEYS: Final = "build the kernel with CONFIG_KEYS, and allow add_key and keyctl (SystemCallFilter=@keyring)"
_MEANINGS: Final[Mapping[int, tuple[type[HardwareGone], str, str]]] = {
    errno.ENOSYS: (HardwareAbsent, "the kernel has no keyrings", _NO_KEYS),
    errno.EPERM: (HardwareGone, "the kernel's keyrings are closed to this program", _NO_KEYS),
    errno.EACCES: (HardwareGone, "the kernel's keyrings are closed to this program", _NO_KEYS),
}
_BUSY: Final = {
    errno.EDQUOT: "the kernel's quota of keys is used up: see /proc/key-users and kernel.keys.maxkeys",
    errno.ENOMEM: "the kernel has no memory for a key",
    errno.EBUSY: "the kernel's key source is busy",
    errno.EAGAIN: "the kernel's key source is busy",
    errno.EINTR: "a signal came in between",
}
_CAAM_CAUSES: Final = (
    "the part's life cycle changed since (opened, closed, field return), its boot chain counts PRIBLOB otherwise, "
    "the job ring went from Linux to OP-TEE or back, or another chip sealed it"
)
_CAUSES: Final[Mapping[str, str]] = {
    "caam": _CAAM_CAUSES,
    "tee": "OP-TEE's hardware key changed with the boot software, its trusted-keys TA was replaced, or another chip "
    "sealed it",
    "tpm": "another TPM sealed it, or this one was cleared since",
    "dcp": "the part's life cycle changed since, dcp_use_otp_key differs, or another chip sealed it",
}
"""Why a blob that was good stops opening, by source (docs/kernel.md)."""
_DAMAGED: Final[Mapping[str, frozenset[int]]] = {
    "caam": frozenset({errno.EBADMSG}),
    "tee": frozenset({errno.EFAULT}),
    "tpm": frozenset({errno.EPERM, errno.EINVAL, errno.E2BIG, errno.EFAULT}),
    "dcp": frozenset({errno.EBADMSG, errno.EINVAL}),
}
"""By source, how the kernel says that a blob does not open. CAAM: "blob decap job failed 0x2000071a" in its log, a
failed check of the blob's own value. TEE: one errno for whatever the TA answers."""
_STALLED: Final = (
    "look for caam in the kernel's log: a gated clock (try clk_ignore_unused) or a job ring that is OP-TEE's stalls it"
)


def explain_no_source(refused: OSError, parts: Sequence[str]) -> MpError:
    """Why no trusted key could be made at all; `parts` are the sources whose hardware is there all the same."""
    code = _code(refused)
    if code == errno.ENODEV:
        return _explain_no_type(parts)
    return explain_call(refused, "making a trusted key")


def _explain_no_type(parts: Sequence[str]) -> HardwareGone:
    if not parts:
        return HardwareAbsent(
            "the kernel has no trusted keys: not built in, or no source of theirs works on this board",
            advice="build it with CONFIG_TRUSTED_KEYS and a source (docs/kernel.md); mpagent doctor lists what is "
            "missing",
        )
    found = " and ".join(parts)
    return HardwareGone(
        f"the board has {found}, and the kernel has no trusted keys from it",
        advice=f"boot with trusted.source={parts[0]} and CONFIG_TRUSTED_KEYS_{parts[0].upper()} built in: unset, a "
        "built-in tee is chosen before caam even where no OP-TEE answers",
    )


def refuse_source(present: str, accepted: Sequence[str], parts: Sequence[str]) -> HardwareGone:
    """The kernel's source is not one that the image takes; a part that the image wants may be there unused."""
    text = f"the kernel's trusted keys come from {present}, and the image takes {' or '.join(accepted)}"
    unused = [part for part in parts if part in accepted]
    if unused:
        return HardwareGone(text, advice=f"boot with trusted.source={unused[0]}")
    return HardwareAbsent(text, advice=f"name {present} in the image's list if that source is meant")


def explain_load(refused: OSError, source: str) -> MpError:
    """Why a blob did not load again."""
    code = _code(refused)
    detail = f"add_key: {errno.errorcode.get(code, code)}"
    if code in _DAMAGED[source]:
        return NotMine(f"sealed by {source} and does not open: it is damaged, or {_CAUSES[source]}", detail=detail)
    if source == "caam" and code in (errno.EIO, errno.ETIMEDOUT, errno.ENODEV, errno.EINVAL):
        return HardwareGone("the CAAM fails to open any blob", detail=detail, advice=_STALLED)
    return explain_call(refused, "loading a trusted key")


def refuse_other_source(sealed_by: str, present: str) -> HardwareGone:
    """The kernel was started with another source than the one that sealed: the blob is good, and the boot is not."""
    return HardwareGone(
        f"sealed when the kernel's trusted keys came from {sealed_by}; in this boot they come from {present}",
        advice=f"boot with trusted.source={sealed_by}, as when this was sealed",
    )


def explain_wrap(refused: OSError, wrapper: str) -> MpError:
    """AF_ALG or dm-crypt failed with a key that the kernel holds."""
    return explain_call(refused, f"wrapping a key by {wrapper}")


def refuse_no_wrapper() -> HardwareGone:  # not here: for a kernel without either
    """The kernel holds trusted keys and offers no way to use one."""
    return HardwareGone(
        "the kernel holds trusted keys, and neither AF_ALG nor dm-crypt is there to use one",
        advice="build it with CONFIG_CRYPTO_USER_API_AEAD and CONFIG_CRYPTO_CCM, or with CONFIG_DM_CRYPT and "
        "CONFIG_BLK_DEV_LOOP, and give mpagent their devices",
    )


def read_digits(shown: bytes) -> bytes:
    """The blob that KEYCTL_READ printed in hexadecimal digits."""
    try:
        return bytes.fromhex(shown.decode("ascii"))
    except ValueError:
        raise HardwareGone("the kernel shows a trusted key that is no hexadecimal number") from None


def explain_call(refused: OSError, doing: str) -> MpError:
    code = _code(refused)
    detail = f"{errno.errorcode.get(code, code)} while {doing}"
    if code in _BUSY:
        return HardwareBusy(f"{_BUSY[code]} while {doing}: try again", detail=detail)
    if code in _MEANINGS:
        kind, text, advice = _MEANINGS[code]
        return kind(f"{text} while {doing}", detail=detail, advice=advice)
    return HardwareGone(f"the kernel refused with {errno.errorcode.get(code, code)} while {doing}", detail=detail)


def _code(refused: OSError) -> int:
    return refused.errno or 0
