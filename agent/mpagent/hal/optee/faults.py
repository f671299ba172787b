"""Why a call to OP-TEE failed: each kind is a class of its own, with one line of advice.

Numbers: GlobalPlatform TEE Client API 1.0, section 4.4, and optee_client tee_client_api.h. Each failure can be told in
plain values (`plain`) and made again from them, because the calls run in a child process.
"""

import errno
import os
from collections.abc import Mapping
from typing import Any, Final

from mpagent.errors import HardwareAbsent, HardwareBusy, HardwareGone

GENERIC: Final = 0xFFFF0000
ACCESS_DENIED: Final = 0xFFFF0001
EXCESS_DATA: Final = 0xFFFF0004
BAD_PARAMETERS: Final = 0xFFFF0006
ITEM_NOT_FOUND: Final = 0xFFFF0008
NOT_SUPPORTED: Final = 0xFFFF000A
OUT_OF_MEMORY: Final = 0xFFFF000C
BUSY: Final = 0xFFFF000D
COMMUNICATION: Final = 0xFFFF000E
SHORT_BUFFER: Final = 0xFFFF0010
TARGET_DEAD: Final = 0xFFFF3024

RESULTS: Final[Mapping[int, str]] = {
    0x00000000: "SUCCESS",
    0xF0100003: "STORAGE_NOT_AVAILABLE",
    GENERIC: "GENERIC",
    ACCESS_DENIED: "ACCESS_DENIED",
    0xFFFF0002: "CANCEL",
    0xFFFF0003: "ACCESS_CONFLICT",
    EXCESS_DATA: "EXCESS_DATA",
    0xFFFF0005: "BAD_FORMAT",
    BAD_PARAMETERS: "BAD_PARAMETERS",
    0xFFFF0007: "BAD_STATE",
    ITEM_NOT_FOUND: "ITEM_NOT_FOUND",
    0xFFFF0009: "NOT_IMPLEMENTED",
    NOT_SUPPORTED: "NOT_SUPPORTED",
    0xFFFF000B: "NO_DATA",
    OUT_OF_MEMORY: "OUT_OF_MEMORY",
    BUSY: "BUSY",
    COMMUNICATION: "COMMUNICATION",
    0xFFFF000F: "SECURITY",
    SHORT_BUFFER: "SHORT_BUFFER",
    0xFFFF0011: "EXTERNAL_CANCEL",
    0xFFFF300F: "OVERFLOW",
    TARGET_DEAD: "TARGET_DEAD",
    0xFFFF3041: "STORAGE_NO_SPACE",
    0xFFFF3071: "MAC_INVALID",
    0xFFFF3072: "SIGNATURE_INVALID",
}
TRUSTED_APP: Final = 4
ORIGINS: Final[Mapping[int, str]] = {1: "API", 2: "COMMS", 3: "TEE", TRUSTED_APP: "TRUSTED_APP"}
_NOT_THERE: Final = (errno.ENOENT, errno.ENXIO, errno.ENODEV)
_NOT_ALLOWED: Final = (errno.EACCES, errno.EPERM)


def name_result(result: int) -> str:
    """The name GlobalPlatform gives this result, or its number in hexadecimal."""
    return RESULTS.get(result, f"0x{result:08x}")


def name_origin(origin: int) -> str:
    """Which layer gave a result, or its number in hexadecimal."""
    return ORIGINS.get(origin, f"0x{origin:08x}")


class TeeFailed(HardwareGone):
    """The TEE answered a call with something other than success."""

    def __init__(self, doing: str, result: int, origin: int, sizes: tuple[int, ...] | None = None) -> None:
        super().__init__(f"OP-TEE answered {name_result(result)} (from {name_origin(origin)}) while {doing}")
        self.plain = (doing, result, origin, sizes)
        self.result = result
        self.origin = origin
        self.at_open = sizes is None
        """Whether there was no session yet."""
        self.sizes = sizes or ()
        """Per parameter the size that came back: with SHORT_BUFFER what the TEE wants."""


class NoNode(HardwareAbsent):
    """There is no such device node, or no driver behind it."""

    def __init__(self, node: str, number: int) -> None:
        super().__init__(
            f"no OP-TEE here: {node}: {os.strerror(number)}",
            advice="boot OP-TEE, and a kernel with CONFIG_OPTEE and the device tree's firmware/optee node",
        )
        self.plain = (node, number)


class NoPermission(HardwareGone):
    """The node is there, and this process may not open it."""

    def __init__(self, node: str, number: int) -> None:
        super().__init__(
            f"no permission to open {node}: {os.strerror(number)}",
            advice="run as root or add this user to the group of that node, as a rule `tee`",
        )
        self.plain = (node, number)


class OtherTee(HardwareAbsent):
    """A TEE answers there, and it is not OP-TEE."""

    def __init__(self, node: str, implementation: int) -> None:
        super().__init__(
            f"{node} belongs to another TEE: implementation {implementation}, and OP-TEE is 1",
            advice="name the node of OP-TEE, if this board has one",
        )
        self.plain = (node, implementation)


class KernelRefused(HardwareGone):
    """The kernel itself refused a call, before or instead of the TEE."""

    def __init__(self, doing: str, number: int) -> None:
        super().__init__(
            f"the kernel's TEE driver refused with {errno.errorcode.get(number, number)} while {doing}",
            advice="look at dmesg for lines of optee",
        )
        self.plain = (doing, number)
        self.number = number


class NobodyAnswered(HardwareGone):
    """The call waited for a tee-supplicant that does not answer, and was given up at its deadline.

    The kernel lets a process be killed out of no other wait of a call, and this one died at once. So where nothing was
    opened yet, OP-TEE looked for a trusted application, which means that what was opened is not built into it.
    """

    def __init__(self, doing: str, waited_ms: int, opened: bool) -> None:
        super().__init__(
            f"nobody answered within {waited_ms} ms while {doing}: OP-TEE waits for tee-supplicant",
            advice="start tee-supplicant and try again",
        )
        self.plain = (doing, waited_ms, opened)
        self.opened = opened


class Hanging(HardwareGone):
    """A call neither ends nor lets its process be killed."""

    def __init__(self, doing: str, process: int) -> None:
        super().__init__(
            f"process {process} hangs in the kernel while {doing} and cannot be killed: either tee-supplicant holds "
            "a request and does not answer, or OP-TEE does not return",
            advice="restart tee-supplicant; if the process stays, reboot and look at OP-TEE's console",
        )
        self.plain = (doing, process)


class CallDied(HardwareGone):
    """The child that made a call ended without an answer."""

    def __init__(self, doing: str, status: int) -> None:
        super().__init__(
            f"the process that was {doing} ended without an answer (wait status {status})",
            advice="look at dmesg: the out-of-memory killer or a fault of the driver",
        )
        self.plain = (doing, status)


Fault = TeeFailed | NoNode | NoPermission | OtherTee | KernelRefused | NobodyAnswered | Hanging | CallDied
_KINDS: Final[Mapping[str, Any]] = {
    kind.__name__: kind for kind in (TeeFailed, NoNode, NoPermission, OtherTee, KernelRefused)
}
"""What a child may tell of; Any, because each kind has arguments of its own."""


def explain_open(node: str, number: int) -> NoNode | NoPermission | KernelRefused:
    """What an errno of open() on the device node means."""
    if number in _NOT_THERE:
        return NoNode(node, number)
    if number in _NOT_ALLOWED:
        return NoPermission(node, number)
    return KernelRefused(f"opening {node}", number)


def explain_slow(doing: str, waited_ms: int) -> HardwareBusy:
    """A call that came back from OP-TEE, but after its deadline: it says nothing of what is built in."""
    return HardwareBusy(f"OP-TEE did not come back within {waited_ms} ms while {doing}", detail="it came back later")


def is_not_built_in(fault: TeeFailed | NobodyAnswered) -> bool:
    """Whether OP-TEE looked elsewhere for what was opened: in vain, or waiting for tee-supplicant to look."""
    if isinstance(fault, NobodyAnswered):
        return not fault.opened
    return fault.at_open and fault.result == ITEM_NOT_FOUND


def tell(fault: Fault) -> tuple[Any, ...]:
    """A failure in plain values, its kind first."""
    return (type(fault).__name__, *fault.plain)


def hear(told: tuple[Any, ...]) -> Fault:
    """The failure a child told of."""
    kind, *plain = told
    fault: Fault = _KINDS[kind](*plain)
    return fault
