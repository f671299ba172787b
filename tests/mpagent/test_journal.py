"""The record through worn flash: one damaged file costs a step back, never the device."""

from pathlib import Path

import pytest

from mpagent.durable import Disk
from mpagent.journal import FILES, Journal
from mpagent.record import Record, Stage

UEID = b"\x01" + bytes(32)
GREETED = Record(stage=Stage.GREETED, outbox=b"hello", ueid=UEID, hello=b"hello")
PROVEN = GREETED._replace(stage=Stage.PROVEN, outbox=b"proof", proof=b"proof", challenge=b"challenge")
KEPT = PROVEN._replace(stage=Stage.KEPT, outbox=b"receipt", generation=1, job="j", grant_digest=bytes(32), epoch=3)


class Told(list[str]):
    def __call__(self, text: str) -> None:
        self.append(text)


def save_all(folder: Path) -> None:
    journal = Journal(Disk(folder), Told())
    assert journal.load() == Record()
    for record in (GREETED, PROVEN, KEPT):
        journal.save(record)


def newest(folder: Path) -> Path:
    """The file the last save went to."""
    return max((folder / name for name in FILES), key=lambda path: path.read_bytes()[:8])


def test_last_record_saved_comes_back(tmp_path: Path) -> None:
    save_all(tmp_path)
    told = Told()
    assert Journal(Disk(tmp_path), told).load() == KEPT
    assert told == []


@pytest.mark.parametrize("damage", [b"", b"garbage", bytes(5_000), None])
def test_damaged_record_is_set_aside_and_the_one_before_counts(tmp_path: Path, damage: bytes | None) -> None:
    save_all(tmp_path)
    path, told = newest(tmp_path), Told()
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]) if damage is None else damage)

    journal = Journal(Disk(tmp_path), told)
    assert journal.peek()[0] == PROVEN
    assert path.exists()  # a look changes nothing
    assert journal.load() == PROVEN
    assert len(told) == 1 and "set aside" in told[0]
    assert (tmp_path / f"{path.name}.damaged-1").exists()
    journal.save(KEPT)
    assert Journal(Disk(tmp_path), told).load() == KEPT


def test_both_records_damaged_start_from_blank_and_are_reported(tmp_path: Path) -> None:
    save_all(tmp_path)
    for name in FILES:
        (tmp_path / name).write_bytes(b"garbage")
    told = Told()
    journal = Journal(Disk(tmp_path), told)
    assert journal.load() == Record()
    assert len(told) == 2
    journal.save(GREETED)
    assert Journal(Disk(tmp_path), told).load() == GREETED


def test_whole_file_with_foreign_content_is_damage_too(tmp_path: Path) -> None:
    """A checksum is no proof of sense: another version, or a hand."""
    save_all(tmp_path)
    Disk(tmp_path).write(newest(tmp_path).name, b"\xff" * 100)
    told = Told()
    assert Journal(Disk(tmp_path), told).load() == PROVEN
    assert len(told) == 1


def test_every_save_leaves_the_record_before_it_whole(tmp_path: Path) -> None:
    journal = Journal(Disk(tmp_path), Told())
    journal.load()
    for number in range(1, 8):
        before = {name: (tmp_path / name).read_bytes() for name in FILES if (tmp_path / name).exists()}
        journal.save(KEPT._replace(epoch=number))
        unchanged = [name for name, raw in before.items() if (tmp_path / name).read_bytes() == raw]
        assert len(unchanged) == min(len(before), 1)
        assert Journal(Disk(tmp_path), Told()).load().epoch == number
