"""The two ways to a fuse word: the kernel's nvmem file, and OP-TEE's OCOTP pseudo-TA.

The 8M nvmem file burns fuses when it is written, so it is opened O_RDONLY here and nowhere else.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from mpagent.errors import HardwareAbsent, HardwareGone
from mpagent.hal.ports import Provenance
from mpagent.hal.soc.parts import LOCKED_WORD, Layout, Span

NVMEM_FOLDER: Final = "sys/bus/nvmem/devices"
_WORD_BYTES: Final = 4
_WORDS_PER_BANK: Final = 4


class Ocotp(Protocol):
    """OP-TEE's OCOTP PTA (optee_os core/pta/imx/ocotp.c). Raises HardwareAbsent where this OP-TEE has none for us.

    Of its two commands READ_FUSE alone: on an 8MP its CHIP_UID reads other words than Linux and is not the UID.
    """

    def read_fuses(self, places: Sequence[tuple[int, int]]) -> Sequence[int]:
        """The 32-bit words at (bank, word)."""


class Fuses(Protocol):
    """A source of fuse words."""

    name: str
    provenance: Provenance

    def read(self, span: Span) -> bytes:
        """As the nvmem file spells them: words little-endian. Raises HardwareGone."""


class NvmemFuses:
    """The kernel's file, found at construction and opened for each read."""

    provenance = Provenance.KERNEL

    def __init__(self, path: Path, layout: Layout) -> None:
        self.name = str(path)
        self._path = path
        self._layout = layout

    def read(self, span: Span) -> bytes:
        """See Fuses. Only these words are asked for: on an 8Q each is one call to the SCU."""
        try:
            with open(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC), "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                content = os.pread(file.fileno(), span.length, span.offset)
        except OSError as error:
            raise self._explain(error) from error
        if size < self._layout.fuse_bytes or len(content) != span.length:
            raise HardwareGone(
                f"{self._path} has {size} bytes, not the {self._layout.fuse_bytes} of {self._layout.family}",
                advice="use the kernel and device tree of this part",
            )
        return content

    def _explain(self, error: OSError) -> HardwareGone:
        if isinstance(error, PermissionError):
            return HardwareGone(
                f"{self._path}: {error.strerror}: the kernel shows fuses to root alone",
                advice="give the agent's group read access by tmpfiles.d, or let OP-TEE have its OCOTP PTA",
            )
        return HardwareGone(
            f"{self._path}: cannot be read: {error.strerror}", advice="look at the kernel's log for the nvmem driver"
        )


class OcotpFuses:
    """The secure world's word for the same fuses, asked for once: each call is a session and a process."""

    name = "OP-TEE's OCOTP PTA"
    provenance = Provenance.SECURE_WORLD

    def __init__(self, ocotp: Ocotp, spans: Sequence[Span]) -> None:
        """Reads all that `read` will be asked for. Raises HardwareAbsent, HardwareGone."""
        indexes = [index for span in spans for index in _words(span)]
        places = [(index // _WORDS_PER_BANK, index % _WORDS_PER_BANK) for index in indexes]
        words = ocotp.read_fuses(places)
        if len(words) != len(places):
            raise HardwareGone(f"{self.name} gave {len(words)} fuse words when asked for {len(places)}")
        self._words = dict(zip(indexes, words, strict=True))

    def read(self, span: Span) -> bytes:
        """See Fuses."""
        return b"".join(self._words[index].to_bytes(_WORD_BYTES, "little") for index in _words(span))


def _words(span: Span) -> range:
    first = span.offset // _WORD_BYTES
    return range(first, first + span.length // _WORD_BYTES)


def find_nvmem(root: Path, layout: Layout) -> NvmemFuses:
    """The fuse file of this part. Raises HardwareAbsent where the kernel has none, HardwareGone where it has two."""
    folder = root / NVMEM_FOLDER
    found = sorted(path for pattern in layout.fuse_files for path in folder.glob(f"{pattern}/nvmem"))
    if not found:
        raise HardwareAbsent(
            f"{folder}: no {' or '.join(layout.fuse_files)}: the kernel offers no fuses of this {layout.family}",
            advice="build the kernel with CONFIG_NVMEM_SYSFS and the OCOTP driver of this part",
        )
    if len(found) > 1:
        raise HardwareGone(f"two fuse files, {found[0]} and {found[1]}: which is this part's is not knowable")
    return NvmemFuses(found[0], layout)


def refuse_locked(what: str, content: bytes, source: str) -> bytes:
    """The same bytes. Raises HardwareGone where a word reads as locked."""
    words = (content[at : at + _WORD_BYTES] for at in range(0, len(content), _WORD_BYTES))
    if any(int.from_bytes(word, "little") == LOCKED_WORD for word in words):
        raise HardwareGone(
            f"{what} reads 0x{LOCKED_WORD:X} from {source}: these fuses are locked against reading",
            advice="nothing brings them back; use a part whose fuses may be read",
        )
    return content
