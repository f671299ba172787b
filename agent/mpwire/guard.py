"""Keeps secrets of this process, device or issuer, out of swap and core dumps (promise P8 of docs/threats.md).

Linux only, by prctl(2), mlockall(2) and setrlimit(2). What the interpreter copies inside its own memory stays a
residual risk, named in docs/threats.md.
"""

import ctypes
import os
import resource
from typing import Final, NamedTuple

_PR_SET_DUMPABLE: Final = 4
_MCL_CURRENT: Final = 1
_MCL_FUTURE: Final = 2
_MCL_ONFAULT: Final = 4
"""Lock pages when they are first touched: without it every mapped library becomes resident."""
_CAP_IPC_LOCK: Final = 14


class Guarded(NamedTuple):
    """What the kernel granted. None means done; otherwise the reason and what to do, for doctor."""

    memory_lock: str | None
    core_dump: str | None


def guard() -> Guarded:
    """Ask for all of it; a refusal is reported, not fatal, because a lab machine may have no right to lock."""
    libc = ctypes.CDLL(None, use_errno=True)
    return Guarded(memory_lock=_lock_memory(libc), core_dump=_forbid_core(libc))


def _lock_memory(libc: ctypes.CDLL) -> str | None:
    if not _may_lock():
        return "no right to lock memory: give the unit LimitMEMLOCK=infinity or CAP_IPC_LOCK"
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        return f"mlockall: {os.strerror(ctypes.get_errno())}; give the unit LimitMEMLOCK=infinity"
    return None


def _may_lock() -> bool:
    """A limit that lets mlockall through and stops a later allocation would kill an enrollment half-way."""
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            effective = next((line for line in file if line.startswith("CapEff:")), "CapEff:\t0")
    except OSError:
        return False
    return bool(int(effective.split()[1], 16) >> _CAP_IPC_LOCK & 1)


def _forbid_core(libc: ctypes.CDLL) -> str | None:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ValueError, OSError) as error:
        return f"setrlimit: {error}"
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        return f"prctl: {os.strerror(ctypes.get_errno())}"
    return None
