"""Puts the image that the Grant names onto a medium, so that no cut leaves one that boots and is not that image.

The first MiB is zeroed and stays zero while the rest is written, from the second MiB on; offsets go into the notes
after each sync. When all is there, the rest is read back from the medium, the first MiB is fetched, and only if both
together have the manifest's SHA-256 is the first MiB written: its first sector last of all. A run that was cut goes on
from its notes; it hashes all of the medium again, so wrong notes cost time and nothing else.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from mpagent.errors import ImageWrong, NoServer, StorageBroke
from mpagent.finish.fetch import Range
from mpagent.finish.medium import CHUNK_BYTES, SECTOR_BYTES, Medium
from mpagent.finish.notes import Notebook
from mpwire.messages.grant import Manifest

HEAD_BYTES: Final = 1_048_576
"""Holds the boot sector, the partition table, an i.MX boot image at 32 KiB, and the superblock of every usual file
system: ext4, squashfs, EROFS, btrfs, XFS, F2FS, FAT."""
LAST_BYTES: Final = 4_096
"""Written last: one page of flash."""
SYNC_BYTES: Final = 16 * CHUNK_BYTES
"""What a cut costs at most, beside the time to hash."""
SAY_S: Final = 5.0
"""A line of progress at most this often, in seconds."""

Fetch = Callable[[Range], Iterator[bytes]]
"""Pieces of CHUNK_BYTES, the last one shorter. Raises NoServer."""


class Installing(NamedTuple):
    """One image on its way."""

    manifest: Manifest
    medium: Medium
    fetch: Fetch
    notebook: Notebook
    say: Callable[[str], None]
    head_bytes: int
    """HEAD_BYTES, or 0 for a file that another installer looks at once it is whole."""

    def fill(self) -> None:
        """The whole image, read back and true to its hash, and then its head. Raises NoServer, ImageWrong."""
        head = min(self.head_bytes, self.manifest.size)
        self._begin(head)
        self._write_body(head)
        self.say("reading the image back from the medium")
        hashed = hashlib.sha256()
        first = b"".join(self.fetch(self._range(0, head))) if head else b""
        hashed.update(first)
        self.medium.hash_back(head, self.manifest.size - head, hashed)
        if hashed.digest() != self.manifest.digest:
            self.medium.erase_head(head)
            self._note(head)
            raise ImageWrong("the image is not the one that the Grant names: its SHA-256 is another")
        if head:
            self._switch(first)

    def _begin(self, head: int) -> None:
        """Notes of another image, or of none, are a new beginning: what stood here stops booting first."""
        notes = self.notebook.notes
        if notes.digest != self.manifest.digest or not head <= notes.written <= self.manifest.size:
            self.medium.erase_head(head)
            self._note(head)
        self.medium.cut(self.notebook.notes.written)

    def _write_body(self, head: int) -> None:
        """Ask again for what is missing as long as each try brings something; the notes keep the rest."""
        while (start := self.notebook.notes.written) < self.manifest.size:
            try:
                self._write_from(start)
            except NoServer:
                if self.notebook.notes.written == start:
                    raise
        self.medium.sync()

    def _write_from(self, start: int) -> None:
        place, synced, told_at = start, start, time.monotonic()
        self._tell(place)
        try:
            for piece in self.fetch(self._range(start, self.manifest.size)):
                self.medium.write(place, piece)
                place += len(piece)
                if place - synced >= SYNC_BYTES:
                    synced = self._sync(place)
                if time.monotonic() - told_at >= SAY_S:
                    told_at = time.monotonic()
                    self._tell(place)
        finally:
            whole = place if place == self.manifest.size else place - place % CHUNK_BYTES
            if whole > synced:
                self._sync(whole)

    def _sync(self, place: int) -> int:
        """The medium first, then the note that says so."""
        self.medium.sync()
        self._note(place)
        return place

    def _switch(self, first: bytes) -> None:
        """From here on the medium may boot; a cut in between leaves the body verified and the first sector zero."""
        self.say("the image is the one that the Grant names; making it bootable")
        self.medium.write(SECTOR_BYTES, first[SECTOR_BYTES:])
        self.medium.sync()
        self.medium.write(0, first[:SECTOR_BYTES])
        self.medium.sync()
        if b"".join(self.medium.read_back(0, len(first))) != first:
            self.medium.erase_head(len(first))
            raise StorageBroke("the medium does not give back the first bytes of the image")

    def _note(self, place: int) -> None:
        notes = self.notebook.notes
        self.notebook.save(notes._replace(digest=self.manifest.digest, written=place, installed=False))

    def _range(self, start: int, end: int) -> Range:
        return Range(self.manifest.path, start, end, self.manifest.size)

    def _tell(self, place: int) -> None:
        size = self.manifest.size
        self.say(f"image {self.manifest.version}: {place * 100 // size} % of {size / 1_000_000:.0f} MB")
