"""ports.Shelf: what every shelf promises, the state partition's and the one tests hand from board to board."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mpagent.durable import Disk
from mpagent.hal.ports import Shelf
from mpagent.shelf import DiskShelf
from mpsim.shelf import MemoryShelf

Reopen = Callable[[], Shelf]
LABELS = ("sign", "certificate-a", "certificate-a/b", "../sign", ".", "ä", "x" * 64, "x" * 65, "SIGN")


@pytest.fixture(params=["disk", "memory"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """The shelf under contract as each start of a process finds it."""
    if request.param == "disk":
        return lambda: DiskShelf(Disk(tmp_path / "state"))
    kept = MemoryShelf()
    return lambda: kept


def test_empty_shelf_holds_nothing(reopen: Reopen) -> None:
    assert [reopen().find(label) for label in LABELS] == [None] * len(LABELS)


def test_blob_is_there_after_a_restart_and_the_last_one_counts(reopen: Reopen) -> None:
    reopen().put("sign", b"first")
    reopen().put("sign", b"second")
    assert reopen().find("sign") == b"second"


def test_each_label_has_a_place_of_its_own(reopen: Reopen) -> None:
    """Slot names become labels, and a slot may be named like a path."""
    for label in LABELS:
        reopen().put(label, label.encode())
    assert [reopen().find(label) for label in LABELS] == [label.encode() for label in LABELS]


@pytest.mark.parametrize("size", [0, 1, 8_192])
def test_blob_comes_back_byte_for_byte(reopen: Reopen, size: int) -> None:
    blob = bytes(index % 251 for index in range(size))
    reopen().put("sign", blob)
    assert reopen().find("sign") == blob
