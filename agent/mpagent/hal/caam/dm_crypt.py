"""AES blocks under a trusted key through a dm-crypt volume of one sector, on a loop device over memory.

All by ioctl, without dmsetup and losetup. What is written to the volume comes out encrypted in the memory below it,
and neither touches a disk or a page cache of plain text. Structures: include/uapi/linux/dm-ioctl.h and loop.h.
Needs CAP_SYS_ADMIN, /dev/mapper/control and /dev/loop-control.
"""

import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from mpagent.hal.caam.wrap import HeldKey, ccm_unwrap, ccm_wrap

KEY_BYTES: Final = 32
"""The payload of the trusted key; dm-crypt refuses a table that says another size."""
SECTOR_BYTES: Final = 512
_DEV: Final = Path("/dev")
_CONTROL: Final = _DEV / "mapper" / "control"
_LOOP_CONTROL: Final = _DEV / "loop-control"
_LOOP_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LOOP_CONFIG: Final = struct.Struct("=II52xI176x64x")
"""loop_config: fd, block size, loop_info64 with its flags, reserved."""
_LOOP_AUTOCLEAR: Final = 4
_LOOP_TRIES: Final = 8
"""Others take free loop devices too; each try asks for another one."""
_DM_HEAD: Final = struct.Struct("=3I7IQ128s129s7x")
"""dm_ioctl: version, sizes, counts, flags, event, padding, device, name, uuid."""
_DM_CREATE, _DM_REMOVE, _DM_RESUME, _DM_LOAD = 3, 4, 6, 9
_DM_TARGET: Final = struct.Struct("=QQiI16s")
_DM_DEFERRED_REMOVE: Final = 1 << 17
"""A program that watches new disks may hold the volume open for a moment."""
_DM_BYTES: Final = 1024


class DmCrypt:  # not here: a real kernel's, in the QEMU bench
    """One volume for each call, gone when it returns."""

    name: str = "dm-crypt"

    def wrap(self, key: HeldKey, nonce: bytes, aad: bytes, text: bytes) -> bytes:
        with open_volume(key.description) as encrypt:
            return ccm_wrap(encrypt, nonce, aad, text)

    def unwrap(self, key: HeldKey, nonce: bytes, aad: bytes, sealed: bytes) -> bytes | None:
        with open_volume(key.description) as encrypt:
            return ccm_unwrap(encrypt, nonce, aad, sealed)


def is_offered() -> bool:  # not here: a real kernel's, in the QEMU bench
    """Whether both control devices are there; whether dm-crypt takes a trusted key shows at the first call."""
    return _CONTROL.exists() and _LOOP_CONTROL.exists()


@contextmanager  # not here: a real kernel's, in the QEMU bench
def open_volume(description: str) -> Iterator[Callable[[bytes], bytes]]:
    """AES-256 in ECB mode under the trusted key of this description: at most 32 whole blocks in, as many out."""
    with ExitStack() as stack:
        below = os.memfd_create("mpagent-volume", os.MFD_CLOEXEC)
        stack.callback(os.close, below)
        os.ftruncate(below, SECTOR_BYTES)
        loop, number = _attach_loop(below)
        stack.callback(os.close, loop)
        name = description.encode()
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, control)
        minor = _create(control, name)
        stack.callback(_dm, control, _DM_REMOVE, name, _DM_DEFERRED_REMOVE)
        _dm(control, _DM_LOAD, name, targets=_table(description, number))
        _dm(control, _DM_RESUME, name)
        volume = os.open(_DEV / f"dm-{minor}", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        stack.callback(os.close, volume)
        sector = stack.enter_context(mmap.mmap(-1, mmap.PAGESIZE))
        yield lambda blocks: _encrypt(volume, below, sector, blocks)


def _encrypt(
    volume: int, below: int, sector: mmap.mmap, blocks: bytes
) -> bytes:  # not here: a real kernel's, in the QEMU bench
    """Direct writes want memory that is aligned, as a mapping of its own is."""
    sector[:SECTOR_BYTES] = blocks.ljust(SECTOR_BYTES, b"\0")
    with memoryview(sector)[:SECTOR_BYTES] as aligned:
        written = os.pwrite(volume, aligned, 0)
    sector[:SECTOR_BYTES] = bytes(SECTOR_BYTES)
    if written != SECTOR_BYTES:
        raise OSError(errno.EIO, "a sector was written in part")
    return os.pread(below, len(blocks), 0)


def _attach_loop(below: int) -> tuple[int, int]:  # not here: a real kernel's, in the QEMU bench
    """A loop device over this file, freed when its last user closes it: descriptor and number."""
    configuration = _LOOP_CONFIG.pack(below, SECTOR_BYTES, _LOOP_AUTOCLEAR)
    control = os.open(_LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_LOOP_TRIES):
            number = fcntl.ioctl(control, _LOOP_GET_FREE)
            device = os.open(_DEV / f"loop{number}", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, configuration)
                return device, number
            except OSError as refused:
                os.close(device)
                if refused.errno != errno.EBUSY:
                    raise
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no loop device stays free")


def _table(description: str, loop_number: int) -> bytes:
    """One crypt target of one sector (Documentation/admin-guide/device-mapper/dm-crypt.rst)."""
    parameters = f"aes-ecb :{KEY_BYTES}:trusted:{description} 0 7:{loop_number} 0".encode() + b"\0"
    parameters += bytes(-len(parameters) % 8)
    return _DM_TARGET.pack(0, 1, 0, _DM_TARGET.size + len(parameters), b"crypt") + parameters


def _create(control: int, name: bytes) -> int:  # not here: a real kernel's, in the QEMU bench
    """A mapped device without a table; its minor number."""
    answer = _dm(control, _DM_CREATE, name)
    return os.minor(int(_DM_HEAD.unpack_from(answer)[10]))


def _dm(
    control: int, command: int, name: bytes, flags: int = 0, targets: bytes = b""
) -> bytes:  # not here: a real kernel's, in the QEMU bench
    """One device-mapper ioctl; what the kernel left in its structure."""
    count = 1 if targets else 0
    head = _DM_HEAD.pack(4, 0, 0, _DM_BYTES, _DM_HEAD.size, count, 0, flags, 0, 0, 0, name, b"")
    request = bytearray((head + targets).ljust(_DM_BYTES, b"\0"))
    fcntl.ioctl(control, 3 << 30 | _DM_HEAD.size << 16 | 0xFD << 8 | command, request)
    return bytes(request)
