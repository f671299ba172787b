"""Receipts files as they come back from a line: which there are, and whole ones out of each."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mpserver.errors import ReceiptsWrong, Usage
from mpserver.handed import open_plain, spell_path
from mpwire.bundlereceipt import LENGTH_BYTES, SUFFIX, HeardReceipt, read_receipt, split_receipts
from mpwire.errors import PeerBroke

FILE_MAX_BYTES: Final = 8_388_608
"""8 MiB, some 20,000 boards: held in memory at once, and one transaction of the ledger, for which a server at work
waits no longer than it waits for any (store/database.py)."""


def find_files(places: list[Path]) -> Iterator[Path]:
    """Each file that was named, and of each folder all that end in SUFFIX, in the order of their names.

    Links are followed where they were named, and nowhere below: so no folder is walked twice, nor for ever.
    Raises Usage for a place that is not there, before the first file comes, and where nothing was found at all.
    """
    for place in places:
        if not place.exists():
            raise Usage(f"there is no {spell_path(place)}")
        if not place.is_dir() and not place.is_file():
            raise Usage(f"{spell_path(place)} is neither a file nor a folder")
    found = False
    for place in places:
        for path in _walk(place) if place.is_dir() else (place,):
            found = True
            yield path
    if not found:
        raise Usage(f"no file that ends in {SUFFIX} lies in {spell_path(places[0])}")


def _walk(folder: Path) -> Iterator[Path]:
    try:
        found = sorted(os.scandir(folder), key=lambda one: one.name)
    except OSError as error:
        raise Usage(f"cannot read {spell_path(folder)}: {error.strerror}") from error
    for one in found:
        if one.is_dir(follow_symlinks=False):
            yield from _walk(Path(one.path))
        elif one.name.endswith(SUFFIX) and not one.is_symlink():
            yield Path(one.path)


def read_receipts(path: Path) -> Iterator[HeardReceipt]:
    """Every receipt of a file, each signed by the key it names. Raises ReceiptsWrong at the first that is wrong.

    Until the last one came it is not known that the file is whole: nothing may be kept before.
    """
    number = place = 0
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > FILE_MAX_BYTES:
                raise ReceiptsWrong(
                    f"{spell_path(path)} has {size} bytes, and {FILE_MAX_BYTES} are taken at once: split it"
                )
            for row in split_receipts(file):
                yield read_receipt(row)
                number, place = number + 1, place + LENGTH_BYTES + len(row)
    except Usage as error:
        raise ReceiptsWrong(str(error)) from error
    except (PeerBroke, OSError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise ReceiptsWrong(f"{spell_path(path)}, byte {place}, behind receipt {number}: {said}") from error
    if not number:
        raise ReceiptsWrong(f"{spell_path(path)} is empty")
