"""Writing a bundle: every value is sealed as it goes by, then the manifest is signed into the room kept before them.

The same draft (with its salt), values and keys give the same bytes but for the signature (docs/wire.md 11).
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mpserver.bundleplan import Handed, Piece
from mpserver.errors import Usage
from mpserver.outfile import cannot_write
from mpserver.store.bundles import BundleSlot
from mpwire import bundlekeys
from mpwire.bundle import HEAD_BYTES, POLICY, write_envelope
from mpwire.messages.bundle import Bundle
from mpwire.messages.grant import RunningCheck
from mpwire.p256 import SIGNATURE_BYTES
from mpwire.secret import Secret
from mpwire.stream import count_ciphertext, read_plain, seal_chunks


class Making(NamedTuple):
    """All that a bundle is made with, beside its values."""

    draft: Bundle
    """Without digests and key check."""
    expand: bundlekeys.Expand
    job_secret: Secret | None
    headers: Mapping[int, object]
    sign: Callable[[bytes], bytes]


class Made(NamedTuple):
    """What was written."""

    digest: bytes
    """SHA-256 of the envelope."""
    slots: tuple[BundleSlot, ...]
    size: int


def write_bundle(
    out: BinaryIO, making: Making, pieces: Sequence[Piece], progress: Callable[[int, int], None], name: Path
) -> Made:
    """The whole file. Raises StateBroke naming `name`, Usage where a handed file changed, Malformed."""
    kek = bundlekeys.make_kek(making.draft, making.expand, making.job_secret)
    blank = making.draft._replace(digests=(bytes(32),) * len(pieces), key_check=bundlekeys.make_key_check(kek))
    room = len(write_envelope(blank, dict(making.headers), lambda _: bytes(SIGNATURE_BYTES)))
    try:
        out.seek(room)
        digests, slots, size = _seal_all(out, kek, pieces, progress, room)
        head = write_envelope(blank._replace(digests=digests), dict(making.headers), making.sign)
        if len(head) != room:
            raise ValueError("an envelope of another length than it has room for")
        out.seek(0)
        _write_all(out, head)
    except OSError as error:
        raise cannot_write(name, error) from error
    return Made(hashlib.sha256(head[HEAD_BYTES:]).digest(), slots, size)


def _seal_all(
    out: BinaryIO, kek: Secret, pieces: Sequence[Piece], progress: Callable[[int, int], None], start: int
) -> tuple[tuple[bytes, ...], tuple[BundleSlot, ...], int]:
    check_key = bundlekeys.make_check_key(kek)
    total = start + sum(count_ciphertext(one.component.size) for one in pieces)
    digests, slots, done = [], [], start
    for number, piece in enumerate(pieces):
        component = piece.component
        check = RunningCheck(check_key, component.name, component.version, component.size)
        running = hashlib.sha256()
        for sealed in _seal(piece, bundlekeys.make_content_key(kek, number, component.uid), check):
            running.update(sealed)
            _write_all(out, sealed)
            done += len(sealed)
            progress(done, total)
        digests.append(running.digest())
        if component.kind != POLICY:
            made = check.finish()
            slots.append(BundleSlot(component.name, component.version, component.action, component.uid, made))
    return tuple(digests), tuple(slots), done


def _seal(piece: Piece, key: Secret, check: RunningCheck) -> Iterator[bytes]:
    try:
        yield from seal_chunks(key, _tee(_read(piece.value), check), piece.component.size)
    except ValueError:
        if not isinstance(piece.value, Handed):
            raise
        raise _changed(piece.value) from None


def _tee(chunks: Iterator[bytes], check: RunningCheck) -> Iterator[bytes]:
    for chunk in chunks:
        check.update(chunk)
        yield chunk


def _read(value: Secret | Handed) -> Iterator[bytes]:
    """In chunks as they are sealed. Raises Usage where a file is not as it was a moment ago."""
    if isinstance(value, Secret):
        yield value.reveal()
        return
    with open_plain(value.path) as file:
        if os.fstat(file.fileno()).st_size != value.size:
            raise _changed(value)
        try:
            yield from read_plain(file)
        except OSError as error:
            raise Usage(f"cannot read {value.path}: {error.strerror}") from error


def _changed(value: Handed) -> Usage:
    return Usage(f"{value.path} changed while the bundle was made; nothing was written")


def hand_over(option: str, path: Path) -> Handed:
    """A value in a plain file. Raises Usage: a folder, a FIFO, a device, nothing."""
    with open_plain(path, option) as file:
        return Handed(path, os.fstat(file.fileno()).st_size)


def open_plain(path: Path, option: str = "") -> BinaryIO:
    """A FIFO that nobody writes into would wait for ever, so it is opened without waiting and turned away."""
    before = f"{option}: " if option else ""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise Usage(f"{before}cannot read {path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Usage(f"{before}{path} is no plain file")
    return os.fdopen(descriptor, "rb", buffering=0)


def _write_all(out: BinaryIO, raw: bytes) -> None:
    """A disk that is nearly full takes a part and says so only the next time."""
    rest = memoryview(raw)
    while rest:
        rest = rest[out.write(rest) :]
