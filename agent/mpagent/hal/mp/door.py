"""The way to the MP engine: OP-TEE's pseudo-TA, or a relay TA in front of it; what each answers, checked.

Commands and shapes: optee_os lib/libutee/include/pta_imx_manufacturing_protection.h; the relay's are those of NXP's
imx-optee-test ta/mp_sign, whose public-key command gives a text beside the key.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

from mpagent.errors import HardwareBusy, HardwareGone
from mpagent.hal.mp import causes
from mpagent.hal.mp.causes import Cause, Part, fail
from mpagent.hal.optee import calls, faults
from mpagent.hal.optee.calls import Command
from mpagent.hal.optee.faults import NobodyAnswered, TeeFailed
from mpagent.hal.optee.records import MemoryIn, MemoryInOut, MemoryOut
from mpwire import mp
from mpwire.errors import Malformed

PTA: Final = UUID("83268b7c-85e3-11e8-adc0-fa7ae01bbebc")
SIGN: Final = 0
GET_PUBLIC_KEY: Final = 1

PAIR_BYTES: Final = 64
"""X || Y or r || s on P-256."""
PAIR_P521_BYTES: Final = 132
PEM_MAX_BYTES: Final = 512
"""Room for the relay's text, which nobody reads; a P-256 key takes 178 bytes."""
ROOM_MAX_BYTES: Final = 1024
"""More than this nothing of ours can need: a second call is not made."""
PROBE_MESSAGE: Final = b"mpagent asks itself whether this chip signs; no issuer takes this text for a statement"
"""Never a Sig_structure, which begins with the byte of a CBOR array. Its signature stays in this process."""

_INVOKE: Final = {
    faults.GENERIC: causes.JOB_FAILED,
    faults.EXCESS_DATA: causes.TOO_LONG,
    faults.TARGET_DEAD: causes.CRASHED,
    faults.COMMUNICATION: causes.SUPPLICANT_LOST,
}
_BUSY: Final = (faults.BUSY, faults.OUT_OF_MEMORY)


class Door(NamedTuple):
    """A session's worth of settings; every call opens a session of its own and leaves nothing behind."""

    node: Path
    uuid: UUID
    part: Part
    deadline_s: float
    """For each call, all of it."""
    may_sign: bool = True
    """False under mp_use `secret`: the signing command is never sent, not even to find out why something failed."""

    @property
    def is_relay(self) -> bool:
        """Whether a TA stands in front of the pseudo-TA."""
        return self.uuid != PTA

    def open(self) -> None:
        """Open and close a session. Raises what calls.ask raises."""
        calls.ask(self.node, self.uuid, (), self.deadline_s)

    def read_key(self) -> bytes:
        """The 65-byte point of the running boot. Raises MpAbsent, MpBroken, HardwareBusy."""
        try:
            raw = self._fetch_key()
        except TeeFailed as failed:
            raise self._explain_key(failed) from failed
        if len(raw) == PAIR_P521_BYTES and not any(raw[PAIR_BYTES:]) and any(raw):
            # The interface of 2019 tells no sizes, so a P-256 key lies at the start of what we offered.
            cause = self._explain_shape() if self.may_sign else causes.OLD_ABI
            raise fail(cause, f"a key of {PAIR_BYTES} bytes in a buffer said to be full")
        self._check_pair(raw, "public key")
        try:
            return mp.read_key(raw)
        except Malformed:
            raise fail(causes.KEY_OFF_CURVE) from None

    def sign(self, message: bytes) -> tuple[bytes, bytes]:
        """Signature, 64 bytes, and MPMR, 32 bytes. Raises MpAbsent, MpBroken, HardwareBusy.

        OP-TEE finds an MPMR buffer too small only after it signed; there is at most one second call.
        """
        if not self.may_sign:
            raise fail(causes.SIGNING_FORBIDDEN)
        try:
            signature, mpmr = self._fetch_signature(message)
        except TeeFailed as failed:
            raise self._explain(failed) from failed
        self._check_pair(signature, "signature")
        if len(mpmr) != mp.MPMR_BYTES:
            raise fail(causes.MPMR_SIZE, f"an MPMR of {len(mpmr)} bytes")
        return signature, mpmr

    def _fetch_key(self) -> bytes:
        outputs = [PAIR_P521_BYTES, PEM_MAX_BYTES] if self.is_relay else [PAIR_P521_BYTES]
        return self._fetch(GET_PUBLIC_KEY, (), outputs)[0]

    def _fetch_signature(self, message: bytes) -> tuple[bytes, bytes]:
        signature, mpmr = self._fetch(SIGN, (MemoryIn(message),), [PAIR_P521_BYTES, mp.MPMR_BYTES])
        return signature, mpmr

    def _fetch(self, func: int, inputs: tuple[MemoryIn, ...], rooms: Sequence[int]) -> list[bytes]:
        """The outputs of one command; a second call, no more, when a buffer was too short."""
        try:
            return self._call(func, inputs, rooms)
        except TeeFailed as failed:
            if failed.result != faults.SHORT_BUFFER or failed.at_open:
                raise
            wanted = widen(rooms, failed.sizes[len(inputs) :])
        return self._call(func, inputs, wanted)

    def _call(self, func: int, inputs: tuple[MemoryIn, ...], rooms: Sequence[int]) -> list[bytes]:
        command = Command(func, (*inputs, *map(MemoryOut, rooms)))
        try:
            (answers,) = calls.ask(self.node, self.uuid, [command], self.deadline_s)
        except NobodyAnswered as waited:
            cause = causes.CALL_WAITS if waited.opened else self._explain_waiting()
            raise fail(cause, str(waited)) from waited
        return [answer for answer in answers if isinstance(answer, bytes)]

    def _check_pair(self, pair: bytes, what: str) -> None:
        """Sizes are the TEE's word alone until they are checked."""
        if not any(pair):
            raise fail(causes.MPMR_LOCKED, f"a {what} of {len(pair)} zero bytes")
        if len(pair) == PAIR_P521_BYTES:
            raise fail(causes.CURVE_P521, f"a {what} of {len(pair)} bytes")
        if len(pair) != PAIR_BYTES:
            raise fail(causes.SIZE_UNKNOWN, f"a {what} of {len(pair)} bytes")

    def _explain_waiting(self) -> Cause:
        return causes.RELAY_WAITS if self.is_relay else causes.explain_missing(self.part)

    def _explain(self, failed: TeeFailed) -> HardwareGone | HardwareBusy:
        """What a refused call means."""
        if failed.result in _BUSY:
            return HardwareBusy("OP-TEE is busy", detail=str(failed))
        return fail(self._find_cause(failed), str(failed))

    def _find_cause(self, failed: TeeFailed) -> Cause:
        if failed.at_open:
            return explain_opening(self, failed)
        if failed.result == faults.NOT_SUPPORTED:
            return causes.explain_not_supported(self.part)
        if failed.result == faults.BAD_PARAMETERS:
            return self._explain_shape()
        if failed.result == faults.SHORT_BUFFER:
            return causes.WANTS_MORE_ROOM
        return _INVOKE.get(failed.result, causes.UNEXPECTED)

    def _explain_key(self, failed: TeeFailed) -> HardwareGone | HardwareBusy:
        """A key that is refused, once it is known whether the chip at least signs."""
        if failed.at_open or not self.may_sign or failed.result not in (faults.NOT_SUPPORTED, faults.GENERIC):
            return self._explain(failed)
        try:
            self._fetch_signature(PROBE_MESSAGE)
        except HardwareGone:
            return self._explain(failed)
        return fail(causes.KEY_HIDDEN, str(failed))

    def _explain_shape(self) -> Cause:
        """Try the two-parameter shape of 2019: whoever gets past the types there has it, whatever comes of it.

        Upstream and later NXP versions check types first and refuse it as they refuse a CAAM format error, so these
        two cannot be told apart from outside.
        """
        if self.is_relay:
            return causes.RELAY_SHAPE
        if not self.may_sign:
            return causes.FORMAT_ERROR
        shape = (MemoryInOut(PROBE_MESSAGE.ljust(2 * PAIR_BYTES)), MemoryOut(mp.MPMR_BYTES))
        try:
            calls.ask(self.node, self.uuid, [Command(SIGN, shape)], self.deadline_s)
        except TeeFailed as failed:
            if failed.at_open or failed.result == faults.BAD_PARAMETERS:
                return causes.FORMAT_ERROR
        return causes.OLD_ABI


def widen(rooms: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Room for what OP-TEE wants, where that is more. Raises MpBroken when no key, signature or MPMR needs so much."""
    wider = [max(pair) for pair in zip(rooms, wanted, strict=False)]
    if max(wider) > ROOM_MAX_BYTES:
        raise fail(causes.WANTS_MORE_ROOM, f"room for {wider} bytes")
    return wider


def explain_opening(door: Door, failed: TeeFailed) -> Cause:
    """Why this door does not open."""
    if door.is_relay:
        return causes.RELAY_MISSING if failed.result == faults.ITEM_NOT_FOUND else causes.RELAY_REFUSES
    if failed.result == faults.ITEM_NOT_FOUND:
        return causes.explain_missing(door.part)
    if failed.result == faults.ACCESS_DENIED and failed.origin == faults.TRUSTED_APP:
        return causes.ACCESS_CONTROLLED
    return causes.UNEXPECTED


def find_door(node: Path, relay_tas: Sequence[UUID], deadline_s: float, part: Part, *, may_sign: bool = True) -> Door:
    """The first door that opens: the pseudo-TA, then the relay TAs in their order.

    A relay is tried where the pseudo-TA is missing or refuses Linux; any other failure is that of a broken part. Raises
    NoNode, NoPermission, OtherTee, KernelRefused, MpAbsent, MpBroken, HardwareBusy, Hanging.
    """
    calls.check_node(node)
    if causes.is_b0(part):
        raise fail(causes.SILICON_B0)
    pta = Door(node, PTA, part, deadline_s, may_sign)
    refused = try_door(pta)
    if refused is None:
        return pta
    cause, detail = refused
    if not (cause.is_absent or cause is causes.ACCESS_CONTROLLED):
        raise fail(cause, detail)
    for uuid in relay_tas:
        relay = Door(node, uuid, part, deadline_s, may_sign)
        shut = try_door(relay)
        if shut is None:
            return relay
        if shut[0] is not causes.RELAY_MISSING:
            raise fail(*shut)
    raise fail(causes.RELAY_MISSING if relay_tas and not cause.is_absent else cause, detail)


def try_door(door: Door) -> tuple[Cause, str] | None:
    """Why this door stays shut, and the words of OP-TEE; None when it opens. Raises what is no matter of MP."""
    try:
        door.open()
    except TeeFailed as failed:
        if failed.result in _BUSY:
            raise HardwareBusy("OP-TEE is busy", detail=str(failed)) from failed
        return explain_opening(door, failed), str(failed)
    except NobodyAnswered as waited:
        return (causes.RELAY_WAITS if door.is_relay else causes.explain_missing(door.part)), str(waited)
    return None
