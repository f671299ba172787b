"""The kernel's keyrings by system call. Every verb raises OSError with the kernel's errno and gives it no meaning.

Numbers: asm-generic/unistd.h and the tables of x86 and arm; commands and permissions: include/uapi/linux/keyctl.h and
include/linux/key.h.
"""

import ctypes
import errno
import os
import platform
import struct
from typing import Final, Protocol

SESSION: Final = -3
"""KEY_SPEC_SESSION_KEYRING, `@s`. Keys in `@u` are not possessed by a system service, which then cannot read them."""
USER: Final = -4
"""KEY_SPEC_USER_KEYRING, `@u`: of the user, in every session that links it."""
_POSSESSOR_ONLY: Final = 0x2B000000
"""View, read, search and set attributes for whoever holds the keyring; nothing for user, group and others."""
_READ_MAX_BYTES: Final = 4096
"""A trusted key's blob has at most 512 bytes, printed as 1024 digits; 1152 bytes on one foreign source."""
_JOIN_SESSION, _REVOKE, _SETPERM, _LINK, _UNLINK, _SEARCH, _READ = 1, 3, 5, 8, 9, 10, 11
_NO_KEY: Final = (errno.ENOKEY, errno.EKEYREVOKED, errno.EKEYEXPIRED)
_CALLS: Final = {
    ("x86_64", 8): (248, 250),
    ("aarch64", 8): (217, 219),
    ("riscv64", 8): (217, 219),
    ("arm", 4): (309, 311),
}
"""add_key and keyctl by machine and size of a pointer in bytes."""


class Keys(Protocol):
    """The kernel's keys, as the sealer uses them. Raises OSError."""

    def join_session(self) -> None:
        """A new anonymous session keyring for this thread and what it starts; the old one is left to its owners."""

    def add(self, kind: str, description: str, payload: bytes, ring: int) -> int:
        """A new key in `ring`, for its possessor only; its serial."""

    def add_ring(self, description: str) -> int:
        """A new keyring below the session's; its serial."""

    def read(self, serial: int) -> bytes:
        """What the key shows of itself: of a trusted key its blob in hexadecimal digits."""

    def drop(self, serial: int, ring: int) -> None:
        """Revoke the key and take it out of the ring; a key that is gone already is no failure."""


class KernelKeys:  # not here: a real kernel's, in the QEMU bench
    """The running kernel's. Raises OSError ENOSYS on a machine whose call numbers are not known."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long
        self._calls = find_calls(platform.machine(), struct.calcsize("P"))

    def join_session(self) -> None:
        self._keyctl(_JOIN_SESSION, None)

    def add(self, kind: str, description: str, payload: bytes, ring: int) -> int:
        call = None if self._calls is None else self._calls[0]
        size = ctypes.c_size_t(len(payload))
        serial = self._call(call, kind.encode(), description.encode(), payload or None, size, ctypes.c_int(ring))
        self._keyctl(_SETPERM, ctypes.c_int(serial), ctypes.c_uint(_POSSESSOR_ONLY))
        return serial

    def add_ring(self, description: str) -> int:
        call = None if self._calls is None else self._calls[0]
        return self._call(call, b"keyring", description.encode(), None, ctypes.c_size_t(0), ctypes.c_int(SESSION))

    def link(self, serial: int, ring: int) -> None:
        """Put a key or keyring into `ring` as well, for whoever holds that one."""
        self._keyctl(_LINK, ctypes.c_int(serial), ctypes.c_int(ring))

    def find(self, kind: str, description: str, ring: int) -> int | None:
        """The key of this type and description in `ring` or below; None where there is none that may be used."""
        try:
            return self._keyctl(_SEARCH, ctypes.c_int(ring), kind.encode(), description.encode(), ctypes.c_int(0))
        except OSError as error:
            if error.errno in _NO_KEY:
                return None
            raise

    def read(self, serial: int) -> bytes:
        shown = ctypes.create_string_buffer(_READ_MAX_BYTES)
        size = self._keyctl(_READ, ctypes.c_int(serial), shown, ctypes.c_size_t(_READ_MAX_BYTES))
        return shown.raw[: min(size, _READ_MAX_BYTES)]

    def drop(self, serial: int, ring: int) -> None:
        for arguments in ((_REVOKE, ctypes.c_int(serial)), (_UNLINK, ctypes.c_int(serial), ctypes.c_int(ring))):
            try:
                self._keyctl(*arguments)
            except OSError:
                continue  # revoked, collected or unlinked before: nothing is left of it either way

    def _keyctl(self, command: int, *arguments: object) -> int:
        return self._call(None if self._calls is None else self._calls[1], ctypes.c_int(command), *arguments)

    def _call(self, number: int | None, *arguments: object) -> int:
        if number is None:
            raise OSError(38, "no call numbers for this machine")
        answer: int = self._libc.syscall(ctypes.c_long(number), *arguments)
        if answer < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return answer


def find_calls(machine: str, pointer_bytes: int) -> tuple[int, int] | None:
    """Numbers of add_key and keyctl, or None. A 32-bit program on a 64-bit ARM kernel speaks ARM's numbers."""
    if pointer_bytes == 4 and machine.startswith(("arm", "aarch64")):
        machine = "arm"
    return _CALLS.get((machine, pointer_bytes))
