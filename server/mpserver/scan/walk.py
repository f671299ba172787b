"""From an image to everything in it: each stretch of bytes is swept once, each container opened once, by its content.

First a space is swept, then its containers are walked, which gives what was found the path that leads there. Starts of
containers that no other container led to (behind a boot loader, in a deleted file, after a kernel) are opened last.
"""

import lzma
import struct
import zipfile
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import lz4.block
import zstandard

from mpserver.scan.budget import Budget, Exhausted
from mpserver.scan.containers.member import Broken, Covered, Member, show_name
from mpserver.scan.containers.recognition import Reader, recognise, recognise_shut
from mpserver.scan.filters import Sought
from mpserver.scan.findings import Finding, Notebook
from mpserver.scan.marks import Mark, make_automaton
from mpserver.scan.names import judge_name
from mpserver.scan.regions import Pieces, Region, Slice, Space, Stretches
from mpserver.scan.spool import Spooled
from mpserver.scan.sweep import sweep
from mpserver.scan.verdicts import judge

FAULTS: Final = (
    Broken,
    struct.error,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    EOFError,
    OSError,
    MemoryError,
    RecursionError,
    NotImplementedError,
    RuntimeError,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    lz4.block.LZ4BlockError,
    zipfile.BadZipFile,
)
"""What hostile bytes make readers and libraries raise. It ends one container, by name."""
CHANCE_BYTES: Final = 65_536
"""A start met by chance that unpacks to less before it fails was none."""
PATH_MAX: Final = 2_048


@dataclass(slots=True)
class Ground:
    """Bytes that were swept in one pass, and what the pass met."""

    region: Region
    hits: list[tuple[int, Finding]] = field(default_factory=list)
    starts: "array[int]" = field(default_factory=lambda: array("Q"))
    """Where containers may begin, rising."""
    opened: set[int] = field(default_factory=set)
    covered: Stretches = field(default_factory=Stretches)

    def place(self, region: Region) -> int | None:
        """Offset of a region in this ground; None if it is no slice of it."""
        at = 0
        while region is not self.region:
            step = region.inside()
            if step is None:
                return None
            region, start = step
            at += start
        return at

    def pass_over(self, region: Pieces) -> None:
        """What begins here goes on elsewhere, and is looked at as a whole."""
        first = region.first()
        at = None if first is None else self.place(first[0])
        if first is not None and at is not None:
            self.opened.add(at + first[1])


class Walk:
    """One image. What it finds is in `notes`."""

    def __init__(
        self,
        sought: Sequence[Sought],
        budget: Budget,
        notes: Notebook,
        tell_path: Callable[[str], None] = lambda path: None,
        tell_bytes: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._sought, self._budget, self._notes = tuple(sought), budget, notes
        self._tell_path, self._tell_bytes = tell_path, tell_bytes
        self._automaton = make_automaton(self._sought)
        self._spaces = 0

    def look(self, space: Space, path: str) -> None:
        """The whole image; every failure is a finding."""
        try:
            self._visit(space, path, None)
        except (Exhausted, *FAULTS) as error:
            self._notes.note_unseen(path, f"{explain(error)}; what comes after is not looked into")

    def next_space(self) -> int:
        """Number for a new space."""
        self._spaces += 1
        return self._spaces

    def _visit(self, region: Region, path: str, ground: Ground | None, *, is_guess: bool = False) -> None:
        """One region: swept if it is not part of what was swept, then opened, then searched for what lies in it."""
        self._tell_path(path)
        at = None if ground is None else ground.place(region)
        if ground is None or at is None:
            if ground is not None and isinstance(region, Pieces):
                ground.pass_over(region)
            ground, at = Ground(region), 0
            self._sweep(ground, path)
        else:
            self._claim(ground, at, region.size, path)
        if at in ground.opened and region.size:
            return
        reader = recognise(region)
        if reader is not None:
            self._open(region, path, ground, at, reader, is_guess)
        elif (words := recognise_shut(region)) is not None:
            self._notes.note_unseen(path, words)
        self._look_between(region, path, ground, at)

    def _sweep(self, ground: Ground, path: str) -> None:
        region = ground.region

        def tell(at: int, length: int, mark: Mark) -> None:
            if mark.family == "magic":
                ground.starts.append(at)
                return
            try:
                verdicts = tuple(judge(region, at, length, mark, self._sought))
            except OSError:
                raise
            except FAULTS as error:
                self._notes.note_unseen(path, f"what looks like {mark.form} at {at:#x}: {explain(error)}")
                return
            for kind, form, severity, said, offset, key in verdicts:
                finding = Finding(kind, form, severity, said, path, offset, key)
                ground.hits.append((offset, self._notes.note(region.locate(offset), finding)))

        for family in sweep(region, self._automaton, self._budget, tell, self._tell_bytes):
            self._notes.note_unseen(path, f"too many places look like {family}; not all were judged")
        ground.hits.sort(key=lambda one: one[0])

    def _claim(self, ground: Ground, at: int, size: int, path: str) -> None:
        """What was found within this region gets its path."""
        number = bisect_left(ground.hits, at, key=lambda one: one[0])
        while number < len(ground.hits) and ground.hits[number][0] < at + size:
            offset, finding = ground.hits[number]
            finding.path, finding.offset = path, offset - at
            number += 1

    def _open(self, region: Region, path: str, ground: Ground, at: int, reader: Reader, is_guess: bool) -> None:
        ground.opened.add(at)
        told = len(self._notes.findings)
        try:
            with self._budget.container():
                for one in reader.open(region, self._budget):
                    if isinstance(one, Covered):
                        ground.covered.add(at, at + one.size)
                    else:
                        self._take(one, path, ground, reader, is_guess)
        except Exhausted as error:
            if error.everything:
                raise
            ground.covered.add(at, at + region.size)
            self._notes.note_unseen(path, f"{reader.form}: {error}")
        except FAULTS as error:
            if not is_guess or len(self._notes.findings) > told:
                self._notes.note_unseen(path, f"{reader.form}: {explain(error)}")

    def _take(self, one: Member, path: str, ground: Ground, reader: Reader, is_guess: bool) -> None:
        name = show_name(one.name.encode("utf-8", "backslashreplace"))
        where = f"{path}!{name}"[:PATH_MAX] if name else path
        self._judge_name(name, where)
        if one.reason:
            if not is_guess:
                self._notes.note_unseen(where, one.reason)
        elif one.region is not None:
            self._visit(one.region, where, ground)
        elif one.chunks is not None:
            self._unpack(one.chunks, where, is_guess)

    def _judge_name(self, name: str, where: str) -> None:
        for kind, severity, said in judge_name(name):
            self._notes.note(None, Finding(kind, "name", severity, said, where, 0))

    def _unpack(self, chunks: Iterator[bytes], path: str, is_guess: bool) -> None:
        """What came out before a failure is looked at all the same."""
        spooled = Spooled(self.next_space(), self._budget)
        failed: BaseException | None = None
        try:
            spooled.fill(chunks)
        except (Exhausted, *FAULTS) as error:
            failed = error
        if failed is not None and not (is_guess and spooled.size < CHANCE_BYTES):
            self._notes.note_unseen(path, explain(failed))
        space = spooled.finish()
        try:
            self._visit(space, path, None)
        finally:
            space.close()
            self._budget.keep(-spooled.kept)
        if isinstance(failed, Exhausted) and failed.everything:
            raise failed

    def _look_between(self, region: Region, path: str, ground: Ground, at: int) -> None:
        """Starts in this region that no container led to."""
        number = bisect_left(ground.starts, at)
        while number < len(ground.starts) and ground.starts[number] < at + region.size:
            start = ground.starts[number]
            number += 1
            if start in ground.opened or start in ground.covered:
                continue
            inner = Slice(region, start - at, region.size)
            reader = recognise(inner)
            if reader is not None:
                where = f"{path}!@{start - at:#x}"
                self._tell_path(where)
                self._open(inner, where, ground, start, reader, True)


def explain(error: BaseException) -> str:
    """A reason on one line, without the bytes that caused it."""
    if isinstance(error, Broken | Exhausted):
        return str(error)
    if isinstance(error, MemoryError):
        return "takes more memory than is allowed"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, lzma.LZMAError) and "limit" in str(error).lower():
        return "takes more memory to unpack than is allowed"
    return f"damaged ({type(error).__name__})"
