"""P2, P3, P7 on the server: the power fails before and after every statement, and inside the commit itself."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mpissuer.errors import NotNow
from mpserver.answering import make_answer
from mpserver.keystore import LAST_HEAD
from mpserver.store.lasthead import RECORD_BYTES, LastHead, LastHeadFile
from mpserver.store.reading import SqlCatalogue
from mpserver.store.sequencer import Sequencer, Work
from tests.line import Factory, Oem, ask_all
from tests.power.aftermath import check_ledger
from tests.power.plug import Cut, Plug

FILES = ("ledger.db", "ledger.db-wal", f"keys/{LAST_HEAD}")
"""What a server writes while it serves. The -shm file is memory: no power cut leaves it."""
WAL_HEADER_BYTES = 32
FRAME_BYTES = 24 + 4_096
"""SQLite's file format, section 4.1: a frame header and a page."""

SLICES = 2
PAIRS = 25

State = dict[str, bytes]


class PluggedConnection:
    """mpserver.store.database.Connection on a plug."""

    def __init__(self, connection: Any, plug: Plug) -> None:
        self._connection, self._plug = connection, plug

    @property
    def in_transaction(self) -> bool:
        return bool(self._connection.in_transaction)

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        return self._run(self._connection.execute, sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> Any:
        return self._run(self._connection.executemany, sql, parameters)

    def close(self) -> None:
        self._connection.close()

    def _run(self, verb: Callable[[str, Any], Any], sql: str, parameters: Any) -> Any:
        name = " ".join(sql.split()[:3])
        self._plug.touch(f"{name}:before")
        made = verb(sql, parameters)
        self._plug.touch(f"{name}:after")
        return made


class PluggedLastHead(LastHeadFile):
    """The head outside: also dies with a record half-written."""

    def __init__(self, path: Path, plug: Plug) -> None:
        super().__init__(path)
        self._file, self._plug = path, plug

    def raise_to(self, head: LastHead) -> None:
        self._plug.touch("last head:before")
        before = self._file.read_bytes()
        super().raise_to(head)
        after = self._file.read_bytes()
        if self._plug.is_next:
            self._file.write_bytes(_tear(before, after))
        self._plug.touch("last head:torn")
        self._file.write_bytes(after)
        self._plug.touch("last head:after")


def _tear(before: bytes, after: bytes) -> bytes:
    """The record that changed, with only its first bytes new."""
    at = next((one for one in (0, RECORD_BYTES) if before[one:][:RECORD_BYTES] != after[one:][:RECORD_BYTES]), 0)
    return after[: at + 40] + before[at + 40 : at + RECORD_BYTES] + after[at + RECORD_BYTES :]


class PluggedOem(Oem):
    """A server on a plug. What its power cut leaves is taken at the very touch, before anything is closed."""

    plug = Plug()
    sequencer_kind: type[Sequencer] = Sequencer
    left: State

    def start(self) -> None:
        super().start()
        writing: Any = PluggedConnection(self.writing, self.plug)
        last_head = PluggedLastHead(self.folder / "keys" / LAST_HEAD, self.plug)
        self.sequencer = self.sequencer_kind(writing, self.authority, self.clock, last_head)
        self.answer = make_answer(self.asking, self._make_issuer(SqlCatalogue(writing, self.authority)))

    def begin(self, state: State, pull_at: int | None = None) -> None:
        """A process starts on this disk."""
        self.stop()
        write_state(self.folder, state)
        self.plug = Plug(pull_at, self._take)
        self.start()

    def settle(self, words: Sequence[bytes]) -> list[Any] | None:
        """One batch of messages; None when the power was cut. What is left then is in `left`."""
        said = [self.answer(word) for word in words]
        works = [one for one in said if isinstance(one, Work)]
        try:
            settled = iter(self.sequencer.settle(works))
        except Cut:
            return None
        return [next(settled) if isinstance(one, Work) else one for one in said]

    def _take(self) -> None:
        self.left = read_state(self.folder)


def read_state(folder: Path) -> State:
    """The server's files as they lie on disk now."""
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}


def write_state(folder: Path, state: State) -> None:
    """As it was; -shm and whatever else came since is gone."""
    for name in (*FILES, "ledger.db-shm"):
        (folder / name).unlink(missing_ok=True)
    for name, content in state.items():
        (folder / name).write_bytes(content)


@dataclass
class Batch:
    """Four orders in one transaction, and what was answered before it."""

    oem: PluggedOem
    state: State
    words: list[bytes]
    grants_left: set[bytes]
    closed_left: tuple[bytes, bytes]
    """Receipt and Closed of a board that was finished before."""

    def run(self, pull_at: int | None) -> bool:
        """On the disk as it was before the batch; False when the power was cut. Then what was left is the disk."""
        self.oem.begin(self.state, pull_at)
        outcomes = self.oem.settle(self.words)
        left = self.oem.left if outcomes is None else read_state(self.oem.folder)
        self.oem.begin(left)
        if outcomes is not None:
            assert [self.oem.hear(word) for word in self.words] == outcomes, "another answer than the one that left"
        return outcomes is not None

    def check(self) -> None:
        """Every device says everything again, before and after one more restart: the same answers, counted once."""
        first = self._ask_all()
        self.oem.begin(read_state(self.oem.folder))
        assert self._ask_all() == first

    def _ask_all(self) -> list[bytes]:
        oem = self.oem
        said = [oem.hear(word) for word in self.words]
        assert said[0] == said[3], "the same Proof got two Grants"
        assert oem.hear(self.closed_left[0]) == self.closed_left[1], "a Closed that had left was forgotten"
        grants = {row[0] for row in oem.rows("SELECT answer FROM grants")}
        assert grants == self.grants_left | {said[0], said[2]}, (
            "a Grant that had left was forgotten, or one was doubled"
        )
        assert oem.granted() == oem.count("units") == UNITS
        assert oem.log == [] and oem.count("alarms") == 0
        findings = check_ledger(oem)
        assert (findings.grants, findings.closed, findings.entries) == (UNITS, 2, UNITS + 2)
        return said


UNITS = 4


@pytest.fixture
def oem(tmp_path: Path) -> Iterator[PluggedOem]:
    """A server whose job has room for just the boards of the batch."""
    made = PluggedOem(tmp_path / "oem", quota=UNITS)
    yield made
    made.stop()


@pytest.fixture
def batch(oem: PluggedOem, factory: Factory) -> Batch:
    """One board is finished, one has its Receipt to say, two have their Proofs, one of them says it twice."""
    done, kept, one, two = (factory.board() for _ in range(UNITS))
    done.enroll()
    receipt = ask_all(kept, "kept").outbox
    proofs = [ask_all(device, "proven").outbox for device in (one, two)]
    assert receipt is not None and proofs[0] is not None and proofs[1] is not None
    oem.stop()
    state = read_state(oem.folder)
    oem.start()
    grants = {done.line.said[1], kept.line.said[1]}
    closed = (done.line.heard[2], done.line.said[2])
    return Batch(oem, state, [proofs[0], receipt, proofs[1], proofs[0]], grants, closed)


@pytest.mark.parametrize("first", range(1, SLICES + 1))
def test_power_cut_between_any_two_statements_of_a_batch(batch: Batch, first: int) -> None:
    """Nothing of the batch stands, or all of it; every board is answered the same, and none is counted twice."""
    for pull_at in count(first, SLICES):
        finished = batch.run(pull_at)
        batch.check()
        if finished:
            break
    assert pull_at > 60  # a batch has some 70 touches: fewer would mean that the plug stands beside the wire


def test_power_cut_within_the_commit(batch: Batch) -> None:
    """The write-ahead log ends anywhere in the last transaction: torn frames, lost frames, a torn commit frame."""
    batch.run(None)
    touches = list_touches(batch)
    batch.run(touches.index("COMMIT:before") + 1)
    before = len(batch.oem.left.get("ledger.db-wal", b""))
    batch.run(touches.index("COMMIT:after") + 1)
    whole = batch.oem.left
    log = whole["ledger.db-wal"]
    frames = range(max(before, WAL_HEADER_BYTES), len(log) + 1, FRAME_BYTES)
    assert len(frames) > 5
    for end in [before, *frames, *(at + FRAME_BYTES // 2 for at in frames)]:
        batch.oem.begin({**whole, "ledger.db-wal": log[:end]})
        batch.check()


def list_touches(batch: Batch) -> list[str]:
    """Of the batch when nothing is cut."""
    batch.oem.begin(batch.state)
    assert batch.oem.settle(batch.words) is not None
    return batch.oem.plug.touches


@pytest.mark.parametrize("seed", range(2))
def test_power_cut_again_while_boards_come_back(batch: Batch, seed: int) -> None:
    """A second cut while the server answers what is said again, one order a batch; a seeded sample."""
    draw = random.Random(seed)
    touches, cut_again = len(list_touches(batch)), 0
    for _ in range(PAIRS):
        batch.run(draw.randint(1, touches))
        oem = batch.oem
        oem.begin(read_state(oem.folder), draw.randint(1, touches))
        cut = any(oem.settle([word]) is None for word in batch.words)
        cut_again += cut
        oem.begin(oem.left if cut else read_state(oem.folder))
        batch.check()
    assert cut_again > PAIRS // 3


class HastySequencer(Sequencer):
    """Keeps the head outside before the batch is durable."""

    def _close(self, done: Any, growth: Any) -> Any:
        outcomes = super()._close(done, growth)
        self._last_head.raise_to(LastHead(growth.edge.size, growth.edge.root()))
        return outcomes


def test_this_harness_catches_a_head_that_is_kept_too_early(batch: Batch) -> None:
    """Without a cut it looks right; after one an honest server would be locked out as a restored one."""
    batch.oem.sequencer_kind = HastySequencer
    assert batch.run(None)
    batch.check()
    touches = list_touches(batch)

    assert not batch.run(touches.index("COMMIT:before") + 1)

    with pytest.raises(NotNow, match="recovery"):
        batch.check()


class TalkativeSequencer(Sequencer):
    """Answers, and forgets to make the batch durable."""

    def _close(self, done: Any, growth: Any) -> Any:
        outcomes = super()._close(done, growth)
        self._connection.execute("ROLLBACK")
        self._connection.execute("BEGIN")
        return outcomes

    def _pay_owed(self) -> None:
        """And so does its head outside."""


def test_this_harness_catches_answers_that_were_never_durable(batch: Batch) -> None:
    batch.oem.sequencer_kind = TalkativeSequencer

    with pytest.raises(AssertionError, match="another answer"):
        batch.run(None)
