"""Manufacturing protection: does it sign, under which MPMR and key, and who else on this image could use it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mpagent.checkup.desk import CALL_S, Desk
from mpagent.checkup.finding import EX_OPERATOR, Finding, State, explain
from mpagent.checkup.question import Question
from mpagent.errors import HardwareAbsent, HardwareGone
from mpagent.hal.mp import UNKNOWN_PART, Part, causes
from mpagent.hal.mp.causes import Cause
from mpagent.hal.mp.door import PTA
from mpagent.hal.mp.examination import XTEST_MP_SIGN, Examination, TaState, examine
from mpagent.hal.optee import check_node
from mpagent.hal.ports import LifeCycle
from mpwire import hkdf, mp
from mpwire.bundlekeys import make_mpk_id
from mpwire.errors import MpError
from mpwire.mpk import HiddenMpKey

_CALLS_MAX: Final = 8
"""Opening twice, reading the key twice, signing, and three to spare."""
_TA_FOLDERS: Final = ("lib/optee_armtz", "usr/lib/optee_armtz", "usr/lib64/optee_armtz")
"""Where tee-supplicant looks for TAs (optee_client, TEEC_LOAD_PATH and its default)."""
_UNLOCK_CAUSES: Final = (causes.CSF_WITHOUT_UNLOCK, causes.UNLOCK_ELSEWHERE, causes.UNLOCK_OR_B0)
_MPMR_NAMES: Final = {
    mp.MPMR_ZERO: "zero: no OP-TEE with MP filled it in this boot chain",
    mp.MPMR_OPTEE: "optee: the constant of every OP-TEE release",
    mp.MPMR_OPTEE_FIXED: "optee-fixed: the constant of an OP-TEE that fills its last word rightly",
}
_PUBLISHED_IDS: Final = (bytes.fromhex("32f85073497b0275bc336f40639170ce980db7b9daba553b7afc662b54613251"),)
"""Keys whose signatures anybody can repeat from print: that of NXP's mp-verification-tool (its README)."""


def ask_protection(desk: Desk) -> Iterator[Question]:
    """One question, because its parts follow from the same few calls. A production image has to give an answer."""
    deadline_s = CALL_S * (_CALLS_MAX + len(desk.choice.relay_tas))
    needed = desk.wants("attest", "mp") or desk.production
    yield Question("MP", lambda: _look(desk), deadline_s=deadline_s, needed=needed, asked=_is_asked(desk))


def _is_asked(desk: Desk) -> bool:
    return desk.asks(("attest",), ("mp",))


def _look(desk: Desk) -> Iterator[Finding]:
    needed = desk.wants("attest", "mp")
    identity = desk.part
    part = UNKNOWN_PART if identity is None else Part(identity.layout.family, identity.revision)
    try:
        check_node(desk.node)
    except HardwareGone as unreachable:
        # OP-TEE's own line has the cause.
        state = State.MISSING if isinstance(unreachable, HardwareAbsent) else State.BROKEN
        yield Finding("MP", state, "not asked: OP-TEE cannot be reached", "", unreachable.exit_code if needed else 0)
        if desk.production:
            yield _judge_silence(unreachable)
        return
    try:
        found = examine(desk.node, desk.choice.relay_tas, CALL_S, part, may_sign=_may_sign(desk))
    except MpError as error:
        yield explain("MP", error, needed=needed, asked=_is_asked(desk))
        if desk.production:
            yield _judge_silence(error)
        return
    yield from describe(desk, found, needed)
    if desk.production:
        yield judge_production(found, signing_tried=_may_sign(desk), is_installed=_has_xtest_ta(desk.root))


def describe(desk: Desk, found: Examination, needed: bool) -> Iterator[Finding]:
    """MP, Unlock, MPMR, key."""
    cause = found.cause
    counts = needed or (_is_asked(desk) and cause is not None and not cause.is_absent)
    exit_code = EX_OPERATOR if counts else 0
    if cause is None:
        way = "OP-TEE's pseudo-TA" if found.door == PTA else f"the relay TA {found.door}"
        told = f"signs, through {way}"
        if not _may_sign(desk):
            why = "mp_use = secret" if desk.choice.mp_secret else "this image pins no key that signs"
            told = f"gives its public key, through {way}; not asked to sign ({why})"
        yield Finding("MP", State.OK, told)
    elif desk.production and found.door is None and _is_shut(cause):
        yield Finding("MP", State.OK, f"{cause.text}; a production image needs no more")
    else:
        state = State.MISSING if cause.is_absent else State.BROKEN
        yield Finding("MP", state, cause.text, cause.advice, exit_code)
    yield _tell_unlock(desk, found, exit_code)
    if found.mpmr is not None:
        yield _tell_mpmr(found.mpmr)
    if found.public_key is not None:
        yield _tell_key(desk, found.public_key)


def _may_sign(desk: Desk) -> bool:
    """A signature gives a secret key away, so a production image has to say that its key is none before one is made.

    Whether Linux can have one, the door tells: it is guarded where it is opened, and nowhere else.
    """
    if desk.choice.mp_secret:
        return False
    return not desk.production or (desk.device is not None and bool(desk.device.image.mp_key_ids))


def _has_xtest_ta(root: Path) -> bool:
    """Whether it lies where tee-supplicant looks, which may start later."""
    return any(next((root / folder).glob(f"{XTEST_MP_SIGN}*"), None) is not None for folder in _TA_FOLDERS)


def _tell_mpmr(mpmr: bytes) -> Finding:
    name = _MPMR_NAMES.get(mpmr)
    if name is not None:
        return Finding("MPMR", State.OK, name)
    following = "list it in the product's mpmr, if this OP-TEE is yours"
    return Finding("MPMR", State.NOTE, f"{mpmr.hex()}, of no boot chain we know", following)


def _tell_unlock(desk: Desk, found: Examination, exit_code: int) -> Finding:
    if found.cause in _UNLOCK_CAUSES:
        assert found.cause is not None
        return Finding("CSF Unlock", State.BROKEN, found.cause.text, found.cause.advice, exit_code)
    if found.public_key is None:
        return Finding("CSF Unlock", State.NOTE, "not knowable: MP gives no key")
    fuses = _read_fuse_state(desk)
    if fuses is LifeCycle.OPEN:
        return Finding("CSF Unlock", State.NOTE, "not knowable on an open part: OP-TEE makes a test key there")
    if fuses is None:
        return Finding("CSF Unlock", State.NOTE, "there is an MP key; whether the part is closed is not knowable")
    return Finding("CSF Unlock", State.OK, "the MP key outlived the boot")


def _tell_key(desk: Desk, public_key: bytes) -> Finding:
    """Its id and whether it can be the product's. The key itself is never printed: it may be a secret."""
    if desk.choice.mp_secret:
        return _tell_secret_key(desk, public_key)
    key_id = mp.key_id(public_key)
    pinned = () if desk.device is None else desk.device.image.mp_key_ids
    text = f"id {key_id.hex()}, on its curve"
    if key_id in _PUBLISHED_IDS:
        return Finding("MP key", State.BROKEN, f"{text}, of a published example", "keep this board apart", EX_OPERATOR)
    if key_id in pinned:
        return Finding("MP key", State.OK, f"{text}, pinned by this image")
    if _read_fuse_state(desk) is LifeCycle.OPEN:
        return Finding("MP key", State.NOTE, f"{text}; the part is open, so this is a test key", "close the part")
    if pinned:
        return Finding(
            "MP key",
            State.BROKEN,
            f"{text}, and none of the {len(pinned)} that this image pins",
            "check part type and SRK fuses against the product's; reboot if the part was just closed",
            EX_OPERATOR if _is_asked(desk) else 0,
        )
    return Finding(
        "MP key", State.NOTE, f"{text}; this image pins none", "put it into mp_key_ids, if it is the product's"
    )


def _tell_secret_key(desk: Desk, public_key: bytes) -> Finding:
    """Its name in the OEM's vault, which is no digest of it: SHA-256 of such a key has been a key itself."""
    prk = HiddenMpKey(public_key[1:]).extract()
    name = f"mpk-{make_mpk_id(lambda info: hkdf.expand(prk, info)).hex()}"
    if _read_fuse_state(desk) is LifeCycle.OPEN:
        return Finding("MP key", State.NOTE, f"{name}; the part is open, so this is a test key", "close the part")
    return Finding("MP key", State.OK, f"{name}, a secret; the OEM's vault has one of this name, or no bundle opens")


def _read_fuse_state(desk: Desk) -> LifeCycle | None:
    """What the fuses say; None where nothing tells."""
    try:
        return desk.open_imx().read_facts().life_cycle
    except HardwareGone:
        return None


def _is_shut(cause: Cause) -> bool:
    return cause.is_absent or cause in (causes.ACCESS_CONTROLLED, causes.RELAY_MISSING)


def _judge_silence(error: MpError) -> Finding:
    """Only where there is no OP-TEE does no answer mean no way in."""
    if isinstance(error, HardwareAbsent):
        return Finding("MP is shut", State.OK, "no OP-TEE, so nobody on this image can ask the engine")
    advice = error.advice if isinstance(error, HardwareGone) else "ask again"
    return Finding("MP is shut", State.BROKEN, f"not knowable: {error}", advice, EX_OPERATOR)


def judge_production(found: Examination, *, signing_tried: bool = True, is_installed: bool = False) -> Finding:
    """On a production image nobody asks the engine any more, and who knows the public key may forge bundles for it.

    Where signing was not tried, an engine without a key to give may sign all the same. `is_installed` is of xtest's TA.
    """
    following = "build OP-TEE without CFG_NXP_CAAM_MP_NO_ACCESS_CTRL, and leave NXP's mp_sign and relay TAs out"
    why = None
    if found.xtest_ta is not TaState.ANSWERS and is_installed:
        why = "xtest's mp_sign TA is installed, and signs for anybody once tee-supplicant runs"
    elif found.xtest_ta is TaState.ANSWERS:
        why = "xtest's mp_sign TA signs for anybody"
    elif found.key_readable:
        why = "the MP public key can be read"
    elif found.door is not None and not (signing_tried and found.cause in _UNLOCK_CAUSES):
        given = "what it gives is not knowable now" if signing_tried else "have it sign; nobody tried"
        why = f"Linux may open the engine, and {given}"
    elif found.door is None and found.cause is not None and not _is_shut(found.cause):
        why = f"not knowable: {found.cause.text}"
    if why is not None:
        return Finding("MP is shut", State.BROKEN, why, following, EX_OPERATOR)
    if found.xtest_ta is TaState.UNKNOWN:
        return Finding(
            "MP is shut",
            State.NOTE,
            "the key is out of reach; whether xtest's mp_sign TA is installed, only tee-supplicant could tell",
            "start tee-supplicant and ask again",
        )
    return Finding("MP is shut", State.OK, "neither the key nor a signature can be had on this image")
