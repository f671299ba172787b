"""A client of OP-TEE by ioctl on its device node: no library, one shared area, sessions one at a time.

These calls may wait in the kernel for as long as they like. Whoever needs a deadline uses calls.ask, which runs them
in a child.
"""

import fcntl
import mmap
import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import UUID

from mpagent.hal.optee import faults, records
from mpagent.hal.optee.records import Answer, Param

SUCCESS: Final = 0


class Tee:
    """One open device node that is OP-TEE's, with one shared area. Close it: sessions end with it in any case."""

    def __init__(self, node: Path) -> None:
        """Raises NoNode, NoPermission, OtherTee, KernelRefused. Whether there is a node, open() alone decides."""
        self._node = str(node)
        try:
            self._descriptor = os.open(node, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise faults.explain_open(self._node, error.errno or 0) from None
        self._shared: mmap.mmap | None = None
        self._shared_id = 0
        try:
            self._check_version()
        except BaseException:
            self.close()
            raise

    def open_session(self, uuid: UUID) -> "Session":
        """A session with a TA or PTA, login public. Raises TeeFailed: there is no session then, whatever its number.

        Blocks without end when OP-TEE has no such PTA built in and no tee-supplicant runs.
        """
        record = records.write_open(uuid)
        result = records.read_open(self._call(records.OPEN_SESSION, record, f"opening {uuid}"))
        if result.ret != SUCCESS:
            raise faults.TeeFailed(f"opening {uuid}", result.ret, result.origin)
        return Session(self, result.session)

    def invoke(self, session: int, func: int, params: Sequence[Param]) -> tuple[Answer, ...]:
        """One command; an answer for each of `params`.

        Raises TeeFailed for any result but success, KernelRefused when an output is said to be larger than its room.
        """
        shared = self._share()
        slots = records.lay_out(params, self._shared_id)
        for slot in slots:
            shared[slot.offset : slot.offset + len(slot.content)] = slot.content
        doing = f"invoking command {func}"
        result = records.read_invoke(self._call(records.INVOKE, records.write_invoke(session, func, slots), doing))
        if result.ret != SUCCESS:
            raise faults.TeeFailed(doing, result.ret, result.origin, tuple(size for _, size in result.numbers))
        answered = zip(params, slots, result.numbers, strict=False)
        return tuple(self._answer(param, slot, numbers, shared, doing) for param, slot, numbers in answered)

    def close_session(self, session: int) -> None:
        """Raises KernelRefused for a session that is not ours."""
        self._ioctl(records.CLOSE_SESSION, bytearray(records.write_close(session)), "closing a session")

    def close(self) -> None:
        """Give everything back; the kernel ends the sessions. Only once."""
        if self._shared is not None:
            self._shared.close()
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_version(self) -> None:
        argument = records.blank_version()
        self._ioctl(records.VERSION, argument, f"asking {self._node} for its version")
        implementation, _, _ = records.read_version(bytes(argument))
        if implementation != records.IMPL_OPTEE:
            raise faults.OtherTee(self._node, implementation)

    def _share(self) -> mmap.mmap:
        """The one area, made at the first call that needs it."""
        if self._shared is None:
            argument, doing = records.write_shared(records.SHARED_BYTES), "sharing memory"
            descriptor = self._ioctl(records.SHM_ALLOC, argument, doing)
            try:
                _, self._shared_id = records.read_shared(bytes(argument))
                self._shared = mmap.mmap(descriptor, records.SHARED_BYTES)
            except OSError as error:  # not here: no address space for two pages
                raise faults.KernelRefused(doing, error.errno or 0) from None
            finally:
                os.close(descriptor)
        return self._shared

    def _call(self, request: int, record: bytearray, doing: str) -> bytes:
        """Hand a record to the kernel by address; the record as it came back."""
        memory = array("B", record)
        self._ioctl(request, bytearray(records.write_pointer(*memory.buffer_info())), doing)
        return memory.tobytes()

    def _ioctl(self, request: int, argument: bytearray, doing: str) -> int:
        try:
            return int(fcntl.ioctl(self._descriptor, request, argument, True))
        except OSError as error:
            raise faults.KernelRefused(doing, error.errno or 0) from None

    @staticmethod
    def _answer(param: Param, slot: records.Slot, numbers: tuple[int, int], shared: mmap.mmap, doing: str) -> Answer:
        if isinstance(param, records.ValueOut | records.ValueInOut):
            return numbers
        if not isinstance(param, records.MemoryOut | records.MemoryInOut):
            return None
        size = numbers[1]
        if size > records.size_of(param):
            raise faults.TeeFailed(f"{doing}, with an output larger than its room", SUCCESS, faults.TRUSTED_APP, ())
        return shared[slot.offset : slot.offset + size]


class Session:
    """An open session; closed with the block."""

    def __init__(self, tee: Tee, number: int) -> None:
        self._tee = tee
        self._number = number

    def invoke(self, func: int, params: Sequence[Param]) -> tuple[Answer, ...]:
        """See Tee.invoke."""
        return self._tee.invoke(self._number, func, params)

    def close(self) -> None:
        """End the session. Raises KernelRefused when it is closed already."""
        self._tee.close_session(self._number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
