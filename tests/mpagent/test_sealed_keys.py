"""The keyring of boards without keys in hardware: what a thief of the disk finds, and what a wrong disk does."""

from pathlib import Path

import pytest

from mpagent.durable import Disk
from mpagent.errors import NotMine, Tampered
from mpagent.hal.software import SealedKeyring
from mpagent.shelf import DiskShelf
from mpsim.backend import open_sealer
from mpsim.board import BoardPlan, close_fuse, make_board, power_cycle
from mpsim.shelf import MemoryShelf


@pytest.fixture
def chip(tmp_path: Path) -> Path:
    make_board(tmp_path / "board", BoardPlan())
    return tmp_path / "board" / "chip"


def test_key_of_one_label_does_not_open_under_another(chip: Path) -> None:
    """A thief swaps files so that the key everybody sees signs becomes the one a Grant is encrypted to."""
    shelf = MemoryShelf()
    keys = SealedKeyring(open_sealer(chip), shelf)
    keys.find_or_make("sign"), keys.find_or_make("kem")
    shelf.blobs["sealed-key-sign"], shelf.blobs["sealed-key-kem"] = (
        shelf.blobs["sealed-key-kem"],
        shelf.blobs["sealed-key-sign"],
    )
    for label in ("sign", "kem"):
        with pytest.raises(Tampered):
            SealedKeyring(open_sealer(chip), shelf).find_or_make(label)


def test_lost_sealing_key_is_not_replaced_under_old_keys(chip: Path) -> None:
    shelf = MemoryShelf()
    SealedKeyring(open_sealer(chip), shelf).find_or_make("sign")
    del shelf.blobs["sealed-keyring-dek"]
    before = dict(shelf.blobs)
    with pytest.raises(Tampered, match="sealed-keyring-dek"):
        SealedKeyring(open_sealer(chip), shelf).find_or_make("sign")
    assert shelf.blobs == before


def test_cut_between_sealing_key_and_first_key_costs_nothing(chip: Path) -> None:
    shelf = MemoryShelf()
    SealedKeyring(open_sealer(chip), shelf).find_or_make("sign")
    del shelf.blobs["sealed-key-sign"]
    dek = shelf.blobs["sealed-keyring-dek"]
    public = SealedKeyring(open_sealer(chip), shelf).find_or_make("sign").public_key()
    assert shelf.blobs["sealed-keyring-dek"] == dek
    assert SealedKeyring(open_sealer(chip), shelf).find_or_make("sign").public_key() == public


def test_keys_made_before_the_part_was_closed_are_not_mine_after(chip: Path) -> None:
    """On an open part the sealing key is public: such a key must not survive into the closed life."""
    shelf = MemoryShelf()
    SealedKeyring(open_sealer(chip), shelf).find_or_make("sign")
    close_fuse(chip)
    power_cycle(chip)
    with pytest.raises(NotMine):
        SealedKeyring(open_sealer(chip), shelf).find_or_make("sign")


def test_disk_holds_neither_scalar_nor_sealing_key(chip: Path, tmp_path: Path) -> None:
    sealer, shelf = open_sealer(chip), DiskShelf(Disk(tmp_path))
    key = SealedKeyring(sealer, shelf).find_or_make("sign")
    stored = {path.name: path.read_bytes() for path in (tmp_path / "shelf").iterdir()}
    assert set(stored) == {"sealed-keyring-dek", "sealed-key-sign"}
    dek = sealer.unseal(shelf.find("sealed-keyring-dek") or b"").reveal()
    for content in stored.values():
        assert key.to_scalar().reveal() not in content
        assert dek not in content


class ForgetfulShelf(MemoryShelf):
    """A state partition that says a write was done and lost it."""

    def put(self, name: str, blob: bytes) -> None:
        self.blobs.pop(name, None)


def test_sealing_key_that_vanished_while_it_was_written_carries_no_key(chip: Path) -> None:
    """Read back before anything depends on it: a key under a lost sealing key would be lost at the next start."""
    shelf = ForgetfulShelf()
    with pytest.raises(Tampered, match="vanished"):
        SealedKeyring(open_sealer(chip), shelf).find_or_make("sign")
    assert shelf.blobs == {}
