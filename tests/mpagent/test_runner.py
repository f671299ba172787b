"""Going on after failures: when to wait, how long, when to stop, and what a latch outlives."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mpagent.errors import ForeignDisk, NoServer, Pending, Refused, Tampered
from mpagent.journal import Journal
from mpagent.record import Record, Stage
from mpagent.runner import Patience, draw_pause, run, run_patiently
from mpwire.errors import MpError, PeerBroke
from tests.line import Factory, Oem, ask_all


@dataclass
class Clock:
    """Time that passes only by sleeping, and dice that always show the same."""

    dice: bytes = b"\x80" + bytes(7)
    now: float = 0.0
    slept: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def patience(self, limit_s: float | None = None) -> Patience:
        return Patience(self.sleep, lambda: self.now, lambda size: self.dice[:size], self.told.append, limit_s)


class Attempt:
    """Fails in turn, then is done."""

    def __init__(self, *errors: MpError) -> None:
        self.left = list(errors)

    def __call__(self) -> Record:
        if self.left:
            raise self.left.pop(0)
        return Record(stage=Stage.DONE)


def test_failures_that_time_cures_are_waited_out_longer_each_time() -> None:
    clock = Clock()
    done = run_patiently(Attempt(*[NoServer("no line")] * 9), clock.patience())
    assert done.stage is Stage.DONE
    assert clock.slept == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]  # half of 2^n, because the dice show the middle
    assert clock.told[0] == "no line; trying again in 0 s"


def test_pending_is_waited_out_before_the_jitter() -> None:
    clock = Clock()
    run_patiently(Attempt(Pending("later", retry_after_s=100)), clock.patience())
    assert clock.slept == [100.5]


@pytest.mark.parametrize("error", [Refused("over-quota", "no"), Tampered("seal"), ForeignDisk("other chip")])
def test_failure_that_time_does_not_cure_is_raised_at_once(error: MpError) -> None:
    clock = Clock()
    with pytest.raises(type(error)):
        run_patiently(Attempt(error), clock.patience())
    assert clock.slept == []


def test_limit_ends_waiting_with_the_last_failure() -> None:
    clock = Clock()
    with pytest.raises(PeerBroke):
        run_patiently(Attempt(*[NoServer("x")] * 3, *[PeerBroke("y")] * 99), clock.patience(limit_s=10))
    assert clock.now <= 10


def test_pauses_spread_over_the_whole_interval() -> None:
    """Full jitter: a line of boards must not come back in step."""
    pauses = [draw_pause(5, os.urandom) for _ in range(2_000)]
    assert 0 <= min(pauses) < 1 and 31 < max(pauses) <= 32
    assert draw_pause(10_000, lambda size: b"\xff" * size) <= 60


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[Factory]:
    oem = Oem(tmp_path / "oem")
    with ExitStack() as stack:
        yield Factory(tmp_path, oem, stack)
    oem.stop()


def test_record_is_durable_before_the_outbox_is_said(factory: Factory) -> None:
    """Rule 4: whatever the issuer hears, the disk already knows."""
    device = factory.board()
    unknown: list[bytes] = []

    def look(asked: bytes, answer: bytes) -> bytes:
        if device.record().outbox != asked:
            unknown.append(asked)
        return answer

    device.line.thief = look
    assert device.enroll().stage is Stage.DONE
    assert len(device.line.heard) == 3
    assert unknown == []


def test_tampering_is_latched_before_it_is_raised_and_outlives_the_process(factory: Factory) -> None:
    device = factory.board()
    device.enroll()
    device.disk.write("vault/gen-000001", b"something else")
    with pytest.raises(Tampered, match="vault generation 1"):
        device.enroll()
    heard = len(device.line.heard)
    with pytest.raises(Tampered, match="latched by an earlier run"):
        device.enroll()
    assert len(device.line.heard) == heard


def test_board_cut_after_the_receipt_still_unseals_in_this_boot(factory: Factory) -> None:
    """P12: the run that hears Closed did not seal, so it has to unseal."""
    device = factory.board()
    ask_all(device, "kept")
    device.disk.write("vault/gen-000001", b"something else")
    with pytest.raises(Tampered):
        device.enroll()


def test_other_generations_go_only_after_the_record_that_names_one(factory: Factory) -> None:
    device = factory.board()
    ask_all(device, "proven")
    device.disk.write("vault/gen-000007", b"left by a run that was cut")
    assert device.enroll().generation == 1
    assert device.disk.names("vault") == ("gen-000001",)


def test_record_of_another_chip_says_nothing_and_changes_nothing(factory: Factory) -> None:
    one, other = factory.board(), factory.board()
    ask_all(one, "proven")
    with other.power() as board:
        for name in ("record-a", "record-b"):
            (other.disk.folder / name).write_bytes((one.disk.folder / name).read_bytes())
        before = other.kept()
        with pytest.raises(ForeignDisk):
            run(other.parts(board))
    assert other.kept() == before
    assert other.line.heard == []


def test_silent_journal_is_only_read_by_peek(factory: Factory) -> None:
    device = factory.board()
    ask_all(device, "greeted")
    before = device.kept()
    Journal(device.disk, lambda _text: None).peek()
    assert device.kept() == before
