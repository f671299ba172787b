"""What drivers/tee keeps for each open file of /dev/tee0, and its checks before anything reaches the secure world.

Sources: the uapi header linux/tee.h; drivers/tee/tee_core.c (params_from_user, open_session, invoke) and
drivers/tee/optee/call.c. Lengths of records are checked in shim.c, where the caller's memory is.
"""

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final
from uuid import UUID

from mpsim.optee.gp import MEMREFS, Kind, Origin, Param, Result, TeeRefusal
from mpsim.optee.memory import Allocated, Area, Registered, is_held
from mpsim.optee.world import Gaze, World

VERSION: Final = 0x800CA400
SHM_ALLOC: Final = 0xC010A401
OPEN_SESSION: Final = 0x8010A402
INVOKE: Final = 0x8010A403
CANCEL: Final = 0x8008A404
CLOSE_SESSION: Final = 0x8004A405
SHM_REGISTER: Final = 0xC018A409

CAP_MEMREF_NULL: Final = 8
NULL_ID: Final = 0xFFFF_FFFF_FFFF_FFFF
"""TEE_MEMREF_NULL: no memory behind this reference."""
KERNEL_LOGINS: Final = range(0x8000_0000, 0xC000_0000)
KINDS: Final = frozenset(int(kind) for kind in Kind)
LOGINS: Final = frozenset({0, 1, 2, 4, 5, 6})
SHM_FLAGS: Final = 1
"""Some flag comes back; its meaning is the kernel's own."""

_OPEN_HEAD: Final = struct.Struct("<16s16sIIIIII")
_INVOKE_HEAD: Final = struct.Struct("<IIIIII")
_PARAM: Final = struct.Struct("<QQQQ")


class Errno(Exception):
    """The ioctl itself fails."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.number = number


@dataclass(frozen=True)
class Caller:
    """Who made this call."""

    process_id: int
    gone: Gaze


@dataclass
class Context:
    """One open file of the device."""

    areas: dict[int, Area] = field(default_factory=dict)
    sessions: set[int] = field(default_factory=set)


@dataclass
class Answer:
    """What an ioctl gives back."""

    body: bytes = b""
    descriptor: int | None = None


class Kernel:
    """The tee subsystem of one boot. Thread-safe as far as one context is used by one caller at a time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.contexts: dict[bytes, Context] = {}
        self._ids = count(1)
        self._calls: dict[int, Callable[[Context, bytes, Caller], Answer]] = {
            VERSION: self._version,
            SHM_ALLOC: self._allocate,
            SHM_REGISTER: self._register,
            OPEN_SESSION: self._open_session,
            INVOKE: self._invoke,
            CANCEL: self._cancel,
            CLOSE_SESSION: self._close_session,
        }

    def open(self, name: bytes) -> None:
        """open("/dev/tee0"). Raises Errno."""
        refused = self.world.read_scenario().open_errno
        if refused is not None:
            raise Errno(int(getattr(errno, refused)))
        self.contexts[name] = Context()

    def release(self, name: bytes) -> None:
        """The last descriptor of the file was closed: its sessions and memory go."""
        context = self.contexts.pop(name, None)
        if context is None:
            return
        for session in context.sessions:
            self.world.close(session)
        for area in context.areas.values():
            area.close()

    def call(self, number: int, name: bytes, body: bytes, caller: Caller) -> Answer:
        """One ioctl. Raises Errno, and Gone when the caller died while it waited."""
        context = self.contexts.get(name)
        if context is None:
            raise Errno(errno.ENODEV)
        return self._calls[number](context, body, caller)

    def _version(self, _context: Context, _body: bytes, _caller: Caller) -> Answer:
        scenario = self.world.read_scenario()
        return Answer(struct.pack("<III", scenario.impl_id, scenario.impl_caps, scenario.gen_caps))

    def _allocate(self, context: Context, body: bytes, _caller: Caller) -> Answer:
        size, flags, _ = struct.unpack("<QIi", body)
        if flags or not size:
            raise Errno(errno.EINVAL)
        try:
            area = Allocated(size)
        except (OSError, OverflowError) as error:
            raise Errno(errno.ENOMEM) from error
        number = self._lend(context, area)
        return Answer(struct.pack("<QIi", area.size, SHM_FLAGS, number), area.descriptor)

    def _register(self, context: Context, body: bytes, caller: Caller) -> Answer:
        address, length, flags, _ = struct.unpack("<QQIi", body)
        if flags or not length:
            raise Errno(errno.EINVAL)
        area = Registered(caller.process_id, address, length)
        try:
            area.read(0, 1), area.read(length - 1, 1)
        except (OSError, OverflowError, ValueError) as error:
            area.close()
            raise Errno(errno.EFAULT) from error
        number = self._lend(context, area)
        return Answer(struct.pack("<QQIi", address, length, SHM_FLAGS, number), area.descriptor)

    def _lend(self, context: Context, area: Area) -> int:
        number = next(self._ids)
        context.areas[number] = area
        return number

    def _open_session(self, context: Context, body: bytes, caller: Caller) -> Answer:
        head = list(_OPEN_HEAD.unpack_from(body))
        login = head[2]
        params = self._read_params(context, body[_OPEN_HEAD.size :], caller)
        if login in KERNEL_LOGINS:
            raise Errno(errno.EPERM)
        if login not in LOGINS:
            raise Errno(errno.EINVAL)
        head[4:7] = 0, int(Result.SUCCESS), int(Origin.TRUSTED_APP)
        try:
            head[4] = self.world.open(UUID(bytes=head[0]), params, caller.gone)
            context.sessions.add(head[4])
        except TeeRefusal as refusal:
            head[5:7] = refusal.result, int(refusal.origin)
        return Answer(_OPEN_HEAD.pack(*head) + _write_params(body[_OPEN_HEAD.size :], params))

    def _invoke(self, context: Context, body: bytes, caller: Caller) -> Answer:
        head = list(_INVOKE_HEAD.unpack_from(body))
        command, session = head[:2]
        params = self._read_params(context, body[_INVOKE_HEAD.size :], caller)
        if session not in context.sessions:
            raise Errno(errno.EINVAL)
        head[3:5] = int(Result.SUCCESS), int(Origin.TRUSTED_APP)
        try:
            self.world.invoke(session, command, params, caller.gone)
        except TeeRefusal as refusal:
            head[3:5] = refusal.result, int(refusal.origin)
        return Answer(_INVOKE_HEAD.pack(*head) + _write_params(body[_INVOKE_HEAD.size :], params))

    def _cancel(self, context: Context, body: bytes, _caller: Caller) -> Answer:
        """A request: no application here takes notice. An open that waits has no session that could be named."""
        _, session = struct.unpack("<II", body)
        if session not in context.sessions:
            raise Errno(errno.EINVAL)
        return Answer()

    def _close_session(self, context: Context, body: bytes, _caller: Caller) -> Answer:
        (session,) = struct.unpack("<I", body)
        if session not in context.sessions:
            raise Errno(errno.EINVAL)
        context.sessions.remove(session)
        self.world.close(session)
        return Answer()

    def _read_params(self, context: Context, raw: bytes, caller: Caller) -> list[Param]:
        """Raises Errno EINVAL: unknown type, any other bit (META is for the kernel), or memory that is not there."""
        params = []
        for attribute, a, b, c in _PARAM.iter_unpack(raw):
            if attribute not in KINDS:
                raise Errno(errno.EINVAL)
            kind = Kind(attribute)
            if kind in MEMREFS:
                area = self._find_area(context, a, b, c, caller)
                params.append(Param(kind, memory=area, offset=a, size=b))
            elif kind in (Kind.VALUE_INPUT, Kind.VALUE_INOUT):
                params.append(Param(kind, a, b, c))
            else:
                params.append(Param(kind))
        return params

    def _find_area(self, context: Context, offset: int, size: int, number: int, caller: Caller) -> Area | None:
        if number == NULL_ID:
            if not self.world.read_scenario().gen_caps & CAP_MEMREF_NULL:
                raise Errno(errno.EINVAL)
            return None
        # The kernel keeps ids in 32 bits, as an int.
        area = context.areas.get(number & 0xFFFF_FFFF)
        if area is not None and not is_held(area, caller.process_id):
            context.areas.pop(number & 0xFFFF_FFFF).close()
            area = None
        if area is None or offset + size > area.size:
            raise Errno(errno.EINVAL)
        return area


def _write_params(raw: bytes, params: list[Param]) -> bytes:
    """Values of outputs and sizes of output memrefs change; all else stays as the caller wrote it."""
    written = bytearray(raw)
    for place, param in enumerate(params):
        at = place * _PARAM.size
        if param.kind in (Kind.VALUE_OUTPUT, Kind.VALUE_INOUT):
            struct.pack_into("<QQQ", written, at + 8, param.a, param.b, param.c)
        elif param.kind in (Kind.MEMREF_OUTPUT, Kind.MEMREF_INOUT):
            struct.pack_into("<Q", written, at + 16, param.size)
    return bytes(written)
