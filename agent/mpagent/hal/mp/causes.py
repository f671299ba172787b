"""Every way in which manufacturing protection fails that we know to tell apart, each with one line of advice.

Sources, unless a cause names its own: optee_os core/pta/imx/manufacturing_protection.c (who may open it),
core/drivers/crypto/caam/mp/caam_mp.c and hal/common/hal_ctrl.c (what a call gives). docs/hardware.md says what of this
was ever run.
"""

from typing import Final, NamedTuple

from mpagent.errors import HardwareAbsent, HardwareGone


class Part(NamedTuple):
    """What is known of the SoC when a failure has to be explained; None is not known."""

    family: str | None = None
    """As ports.SocFacts.family: "imx8mq"."""
    revision: str | None = None
    """As /sys/devices/soc0/revision prints it: "2.0"."""
    has_unlock: bool | None = None
    """Whether somebody has seen the Unlock command in a CSF of this board's boot image."""


UNKNOWN_PART: Final = Part()


class Cause(NamedTuple):
    """One reason why MP does not work here."""

    name: str
    """Stable, for doctor --json."""
    text: str
    advice: str
    """One clause without a full stop."""
    is_absent: bool = False
    """This board has no MP at all, so another attester may be tried."""


class MpAbsent(HardwareAbsent):
    """This board has no MP."""

    def __init__(self, cause: Cause, detail: str) -> None:
        super().__init__(cause.text, detail=detail, advice=cause.advice)
        self.cause = cause


class MpBroken(HardwareGone):
    """MP is there and cannot be used."""

    def __init__(self, cause: Cause, detail: str) -> None:
        super().__init__(cause.text, detail=detail, advice=cause.advice)
        self.cause = cause


def fail(cause: Cause, detail: str = "") -> MpAbsent | MpBroken:
    """The error to raise for a cause."""
    return MpAbsent(cause, detail) if cause.is_absent else MpBroken(cause, detail)


PTA_MISSING: Final = Cause(
    "pta-missing",
    "OP-TEE has no manufacturing-protection pseudo-TA: it was built without CAAM, is older than 3.21, "
    "or this SoC has none",
    "on i.MX8M, 7 and 6UL build OP-TEE with CFG_NXP_CAAM=y; on another SoC choose another attester",
    is_absent=True,
)
CAAM_OFF: Final = Cause(
    "caam-off",
    "this SoC can do manufacturing protection, and OP-TEE was built without CAAM or is older than 3.21",
    "build OP-TEE with CFG_NXP_CAAM=y, which upstream leaves off",
    is_absent=True,
)
SOC_WITHOUT_MP: Final = Cause(
    "soc-without-mp",
    "this SoC has no manufacturing protection that Linux could reach",
    "choose another attester: a TPM, a card, or OP-TEE's attestation pseudo-TA",
    is_absent=True,
)
SECO_ONLY: Final = Cause(
    "seco-only",
    "on this SoC the SECO does manufacturing protection, without Unlock, and only U-Boot can ask it",
    "choose another attester, or register the key from U-Boot's mfgprot log",
    is_absent=True,
)
SILICON_B0: Final = Cause(
    "silicon-b0",
    "an i.MX8MQ of minor revision 0 (B0 and before) has no manufacturing protection",
    "use silicon B1 or later, or choose another attester",
    is_absent=True,
)
ACCESS_CONTROLLED: Final = Cause(
    "access-controlled",
    "the manufacturing-protection pseudo-TA is there and refuses Linux",
    "build OP-TEE 4.0.0 or later with CFG_NXP_CAAM_MP_NO_ACCESS_CTRL=y, or install a relay TA and name its UUID",
)
RELAY_MISSING: Final = Cause(
    "relay-missing",
    "the pseudo-TA refuses Linux, and no relay TA of the configured UUIDs is installed",
    "install the relay TA where tee-supplicant looks, as a rule /lib/optee_armtz, or correct its UUID",
)
RELAY_WAITS: Final = Cause(
    "relay-waits",
    "a relay TA cannot be loaded: OP-TEE waits for tee-supplicant, which does not answer",
    "start tee-supplicant before the agent",
)
RELAY_REFUSES: Final = Cause(
    "relay-refuses",
    "a relay TA is there and does not open",
    "look at OP-TEE's console: a TA with a wrong signature or of another OP-TEE is refused there",
)
CSF_WITHOUT_UNLOCK: Final = Cause(
    "csf-without-unlock",
    "no MP key after boot: the part is closed, and its CSF lacks Unlock MFG, so the boot ROM cleared the key",
    "put [Unlock] Engine=CAAM Features=MFG into the CSF of the first image (SPL), sign and flash again",
)
UNLOCK_ELSEWHERE: Final = Cause(
    "unlock-elsewhere",
    "no MP key after boot, though a CSF has Unlock MFG: it does not count, or MP is broken on this part",
    "put Unlock into the CSF that HAB processes for the first image (SPL), not U-Boot's; then check MPECC in U-Boot",
)
UNLOCK_OR_B0: Final = Cause(
    "unlock-or-b0",
    "no MP key after boot: the part is closed and its CSF lacks Unlock MFG, or it is an i.MX8MQ of minor revision 0",
    "look at /sys/devices/soc0; unless it is an i.MX8MQ x.0, put [Unlock] Engine=CAAM Features=MFG into SPL's CSF",
)
KEY_HIDDEN: Final = Cause(
    "key-hidden",
    "the chip signs and does not give its public key; one closed i.MX8MM is known to do so, and no cure",
    "compare with a second board of the lot, and choose another attester if it does the same",
)
"""community.nxp.com thread 1847143."""
JOB_FAILED: Final = Cause(
    "job-failed",
    "the CAAM driver of OP-TEE is not initialised, or a CAAM job failed",
    "look at OP-TEE's console; on early i.MX8MQ and 8MM check the MP fuses in U-Boot: "
    "md.l 0x309003f8 1 has to show 00000000",
)
FUSES_MISPROGRAMMED: Final = Cause(
    "fuses-misprogrammed",
    "the MP key fuses of this part fail their check: it left the fab with wrong ones and can never do MP",
    "exchange the part (NXP's notice names the part numbers), or choose another attester",
)
"""MPECC bits 24:16, the syndrome. community.nxp.com threads 1104343 and 1442091; layout from MIMXRT117x's header."""
FUSES_EMPTY: Final = Cause(
    "fuses-empty",
    "the MP key fuses of this part were never programmed",
    "exchange the part, or choose another attester",
)
"""MPECC bit 27."""
OLD_ABI: Final = Cause(
    "old-abi",
    "this is NXP's pseudo-TA of 2019 (4.14.78 to 4.19.35): its signing command has two parameters, and no sizes",
    "move to OP-TEE 4.0.0 or NXP's lf-6.1.55-2.2.0 and later",
)
FORMAT_ERROR: Final = Cause(
    "format-error",
    "OP-TEE refused the parameters: a CAAM format error or an unknown version of the interface, which look the same",
    "compare OP-TEE's version with docs/hardware.md, and look at its console for a CAAM status",
)
RELAY_SHAPE: Final = Cause(
    "relay-shape",
    "the relay TA refused the parameters: it has another interface, or cannot reach the pseudo-TA itself",
    "use a relay TA with the interface of NXP's mp_sign, in an OP-TEE that has the pseudo-TA",
)
MPMR_LOCKED: Final = Cause(
    "mpmr-locked",
    "success with nothing in it: the MPMR was locked before OP-TEE started, so OP-TEE never set the engine up",
    "have the boot loader leave the MPMR alone: OP-TEE fills and locks it",
)
CURVE_P521: Final = Cause(
    "curve-p521",
    "profile-unverified: this part does MP on P-521, and no vector of a real part is known to check that against",
    "choose another attester",
)
SIZE_UNKNOWN: Final = Cause(
    "size-unknown",
    "OP-TEE gave a key or signature of a size that belongs to no curve known",
    "compare OP-TEE's version with docs/hardware.md",
)
MPMR_SIZE: Final = Cause(
    "mpmr-size",
    "OP-TEE gave an MPMR that has not 32 bytes",
    "compare OP-TEE's version with docs/hardware.md",
)
WANTS_MORE_ROOM: Final = Cause(
    "wants-more-room",
    "OP-TEE wants more room for a key, signature or MPMR than any of them needs",
    "compare OP-TEE's version with docs/hardware.md",
)
KEY_OFF_CURVE: Final = Cause(
    "key-off-curve",
    "the chip gave a public key that is not a point of P-256",
    "take the board apart from the others: fuses, CAAM or OP-TEE are broken; OP-TEE's console may say which",
)
SIGNATURE_FALSE: Final = Cause(
    "signature-false",
    "the chip's signature does not hold under its own public key and MPMR",
    "take the board apart from the others; a relay TA that changes the message does this too",
)
TOO_LONG: Final = Cause(
    "too-long",
    "OP-TEE takes no message of this length, though it has at most 4096 bytes",
    "compare OP-TEE's version with docs/hardware.md",
)
CRASHED: Final = Cause(
    "crashed",
    "the TA or pseudo-TA crashed in the call",
    "look at OP-TEE's console for the panic",
)
SUPPLICANT_LOST: Final = Cause(
    "supplicant-lost",
    "OP-TEE lost tee-supplicant in the middle of a call",
    "start tee-supplicant again, and look why it ended",
)
CALL_WAITS: Final = Cause(
    "call-waits",
    "the session opened, and then a call did not end: OP-TEE or its CAAM driver waits",
    "look at OP-TEE's console; keep Linux from gating CAAM's clock (clk_ignore_unused) and tee-supplicant running",
)
SIGNING_FORBIDDEN: Final = Cause(
    "signing-forbidden",
    "this image keeps the MP public key secret (mp_use), and any signature would give it away: nothing was signed",
    "use an image whose product says mp_use = sign, on parts with other SRK fuses",
)
UNEXPECTED: Final = Cause(
    "unexpected",
    "OP-TEE refused in a way that manufacturing protection does not know",
    "look at OP-TEE's console, and keep the result that the log names",
)

CAUSES: Final = tuple(value for value in tuple(globals().values()) if isinstance(value, Cause))
"""All of them, in the order above."""

_MP_FAMILIES: Final = ("imx8mm", "imx8mn", "imx8mp", "imx8mq", "imx7d", "imx7s", "imx6ul")
_SECO_FAMILIES: Final = ("imx8qm", "imx8qxp", "imx8qx", "imx8dx", "imx8dxl")
_OTHER_FAMILIES: Final = ("imx8ulp", "imx9")
_MPECC_SYNDROME: Final = 0x01FF_0000
_MPECC_ZERO: Final = 1 << 27


def explain_missing(part: Part) -> Cause:
    """Why there is no pseudo-TA."""
    if part.family is None:
        return PTA_MISSING
    if part.family in _SECO_FAMILIES:
        return SECO_ONLY
    if part.family.startswith(_OTHER_FAMILIES):
        return SOC_WITHOUT_MP
    return CAAM_OFF if part.family in _MP_FAMILIES else PTA_MISSING


def explain_not_supported(part: Part) -> Cause:
    """Why a pseudo-TA that opened has no key to work with."""
    if is_b0(part):
        return SILICON_B0
    if part.has_unlock:
        return UNLOCK_ELSEWHERE
    unsure = part.family is None or (part.family == "imx8mq" and part.revision is None)
    return UNLOCK_OR_B0 if unsure else CSF_WITHOUT_UNLOCK


def is_b0(part: Part) -> bool:
    """Whether OP-TEE takes this for an i.MX8MQ without MP: minor revision 0."""
    return part.family == "imx8mq" and part.revision is not None and part.revision.partition(".")[2] == "0"


def explain_mpecc(word: int) -> Cause | None:
    """What CAAM's register MPECC (CAAM + 0x3F8; 0x309003F8 on i.MX8M) says of the MP key fuses; None: whole."""
    if word & _MPECC_ZERO:
        return FUSES_EMPTY
    return FUSES_MISPROGRAMMED if word & _MPECC_SYNDROME else None
