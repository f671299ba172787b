"""tar (POSIX.1-2017 pax, GNU), cpio (newc) and zip: members are slices where they are stored as they are."""

import zipfile
from collections.abc import Iterator
from io import RawIOBase
from struct import unpack_from
from typing import Final

from mpserver.scan.budget import Budget
from mpserver.scan.containers.member import Broken, Covered, Member, read_exactly, show_name
from mpserver.scan.regions import Region, Slice

CPIO_MAGICS: Final = (b"070701", b"070702")
_TAR_BLOCK: Final = 512
_TAR_NOTES: Final = frozenset(b"LKxg")
_TAR_EMPTY: Final = frozenset(b"123456")
"""Links, devices, folders and pipes: whatever size they tell, they have no content."""
_NOTE_MAX_BYTES: Final = 65_536
_CPIO_HEAD_BYTES: Final = 110
_CPIO_NAME_MAX_BYTES: Final = 4_096
_CPIO_FILE: Final = 0x8000
_TRAILER: Final = b"TRAILER!!!"
_CHUNK_BYTES: Final = 262_144
_ZIP_HEAD_BYTES: Final = 30


def is_tar(head: bytes) -> bool:
    """By its magic and its check sum, or by the check sum alone as the oldest tars have it."""
    return len(head) >= _TAR_BLOCK and head[257:262] == b"ustar" and _sums_up(head[:_TAR_BLOCK])


def _sums_up(header: bytes) -> bool:
    digits = header[148:156].strip(b" \0")
    try:
        return int(digits or b"-1", 8) == sum(header[:148]) + 8 * 32 + sum(header[156:])
    except ValueError:
        return False


def open_tar(region: Region, budget: Budget) -> Iterator[Member | Covered]:
    """Files in order; links and devices have no content, and names lead nowhere."""
    at, notes = 0, dict[str, bytes]()
    while at + _TAR_BLOCK <= region.size:
        budget.enter()
        header = read_exactly(region, at, _TAR_BLOCK)
        if not any(header):
            return
        if not _sums_up(header):
            raise Broken(f"its header at {at} has a wrong check sum")
        kind, size = header[156], _read_number(header[124:136])
        if "size" in notes and kind not in _TAR_NOTES:
            size = int(notes["size"])
        start = at + _TAR_BLOCK
        if kind in _TAR_NOTES:
            notes = {**notes, **_read_notes(region, kind, start, size)}
        else:
            if kind in _TAR_EMPTY:
                size = 0
            name = notes.get("path") or (header[345:500].rstrip(b"\0") + b"/" + header[:100].rstrip(b"\0")).lstrip(b"/")
            notes = {}
            yield from _give(region, show_name(name), start, size)
        at = start + -(-size // _TAR_BLOCK) * _TAR_BLOCK


def _give(region: Region, name: str, start: int, size: int) -> Iterator[Member]:
    if start + size > region.size:
        yield Member(name, reason="the archive ends within this file")
    if size:
        yield Member(name, Slice(region, start, size))


def _read_number(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << 88) - 1)
    return int(field.strip(b" \0") or b"0", 8)


def _read_notes(region: Region, kind: int, start: int, size: int) -> dict[str, bytes]:
    """Names too long for the header, and a size beyond 8 GiB."""
    if size > _NOTE_MAX_BYTES:
        raise Broken(f"a name of {size} bytes")
    raw = read_exactly(region, start, size)
    if kind == ord("L"):
        return {"path": raw.rstrip(b"\0")}
    found = {}
    while kind == ord("x") and raw:
        length, _, rest = raw.partition(b" ")
        record = rest[: max(0, int(length) - len(length) - 1)]
        key, _, value = record.partition(b"=")
        if key in (b"path", b"size"):
            found[key.decode()] = value.rstrip(b"\n")
        raw = raw[max(1, int(length)) :]
    return found


def open_cpio(region: Region, budget: Budget) -> Iterator[Member | Covered]:
    """Files in order, up to the trailer; what follows it is looked at on its own."""
    at = 0
    while at + _CPIO_HEAD_BYTES <= region.size:
        budget.enter()
        head = read_exactly(region, at, _CPIO_HEAD_BYTES)
        if head[:6] not in CPIO_MAGICS:
            raise Broken(f"no header at {at}")
        fields = [int(head[6 + 8 * one : 14 + 8 * one], 16) for one in range(13)]
        mode, size, name_bytes = fields[1], fields[6], fields[11]
        if not 1 <= name_bytes <= _CPIO_NAME_MAX_BYTES:
            raise Broken(f"a name of {name_bytes} bytes")
        name = read_exactly(region, at + _CPIO_HEAD_BYTES, name_bytes).rstrip(b"\0")
        start = at + (_CPIO_HEAD_BYTES + name_bytes + 3) // 4 * 4
        at = start + (size + 3) // 4 * 4
        yield Covered(start)
        if name == _TRAILER:
            return
        if mode & 0xF000 == _CPIO_FILE:
            yield from _give(region, show_name(name), start, size)
    raise Broken("it ends without its trailer")


class RegionFile(RawIOBase):
    """A region as a file, for libraries that want one."""

    def __init__(self, region: Region) -> None:
        self._region, self._at = region, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """As io.RawIOBase."""
        self._at = max(0, offset + (0, self._at, self._region.size)[whence])
        return self._at

    def tell(self) -> int:
        """As io.RawIOBase."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """As io.RawIOBase."""
        body = self._region.read(self._at, self._region.size if size < 0 else size)
        self._at += len(body)
        return body


def open_zip(region: Region, budget: Budget) -> Iterator[Member | Covered]:
    """Members by the directory at its end."""
    with zipfile.ZipFile(RegionFile(region)) as archive:
        for one in archive.infolist():
            budget.enter()
            if one.is_dir() or not one.file_size:
                continue
            name = show_name(one.filename.encode("utf-8", "backslashreplace"))
            if one.flag_bits & 1:
                yield Member(name, reason="encrypted in its archive")
            elif one.compress_type == zipfile.ZIP_STORED:
                head = read_exactly(region, one.header_offset, _ZIP_HEAD_BYTES)
                start = one.header_offset + _ZIP_HEAD_BYTES + sum(unpack_from("<HH", head, 26))
                yield from _give(region, name, start, one.file_size)
            else:
                yield Member(name, chunks=_unzip(archive, one))


def _unzip(archive: zipfile.ZipFile, one: zipfile.ZipInfo) -> Iterator[bytes]:
    with archive.open(one) as body:
        while chunk := body.read(_CHUNK_BYTES):
            yield chunk
