"""Power fails between any two steps of the ledger: one count, one Grant, the same answer (promises P2, P3, P7)."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpissuer.orders import GrantOrder
from mpserver.answering import grant_work
from mpserver.store.books import SqlBooks
from mpserver.store.lasthead import LastHead, LastHeadFile
from mpserver.store.sequencer import Outcome, Work
from mpwire.messages.plain import CLOSED
from tests.mpserver.shop import JOB, Shop, answer_of, make_shop


class Cut(BaseException):
    """The power is gone. Not an Exception: nothing may catch it and go on."""


class Fuse:
    """Counts touches of the disk and blows before or after the chosen one."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at, self.after, self.touched = at, after, 0

    def touch(self, act: Any, *arguments: Any) -> Any:
        self.touched += 1
        if self.touched == self.at and not self.after:
            raise Cut
        done = act(*arguments)
        if self.touched == self.at:
            raise Cut
        return done


class CutConnection:
    """mpserver.store.database.Connection with a fuse."""

    def __init__(self, connection: sqlite3.Connection, fuse: Fuse) -> None:
        self._connection, self._fuse = connection, fuse

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self._fuse.touch(self._connection.execute, sql, parameters)
        return cursor

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self._fuse.touch(self._connection.executemany, sql, parameters)
        return cursor

    def close(self) -> None:
        self._connection.close()


class CutLastHead(LastHeadFile):
    """The last head's file with the same fuse: it is written after COMMIT."""

    def __init__(self, path: Path, fuse: Fuse) -> None:
        super().__init__(path)
        self._fuse = fuse

    def raise_to(self, head: LastHead) -> None:
        self._fuse.touch(super().raise_to, head)


def _start(shop: Shop, folder: Path, fuse: Fuse) -> Shop:
    """A server process on this state, with a fuse in its mains."""
    last_head = CutLastHead(folder / "keys" / "last-head", fuse)
    return Shop(folder, shop.authority, lambda connection: CutConnection(connection, fuse), last_head)


def _heard(shop: Shop, orders: list[GrantOrder], step: str) -> list[bytes]:
    """What the devices hear; nothing when the power went."""
    try:
        outcomes = shop.close_units(*orders) if step == "receipt" else _grant_beside(shop, orders, step == "spoiled")
    except Cut:
        return []
    finally:
        shop.close()
    return [answer_of(one) for one in outcomes]


def _grant_beside(shop: Shop, orders: list[GrantOrder], is_spoiled: bool) -> list[Outcome]:
    """Grants in one batch; a spoiled one holds an order too that fails halfway, so that it is done twice."""

    def fail(books: SqlBooks) -> bytes:
        books.set_job_state(JOB, "exhausted")
        raise TypeError("a bug")

    works = [grant_work(one, shop.issuer) for one in orders]
    return shop.settle([works[0], Work(fail), *works[1:]])[::2] if is_spoiled else shop.settle(works)


def _touches(shop: Shop, base: Path, orders: list[GrantOrder], step: str, folder: Path) -> int:
    fuse = Fuse(0, after=False)
    shutil.copytree(base, folder)
    assert _heard(_start(shop, folder, fuse), orders, step)
    return fuse.touched


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["grant", "spoiled", "receipt"])
def test_a_cut_at_any_step_of_the_ledger_is_finished_by_saying_the_same_again(
    shop: Shop, tmp_path: Path, step: str, after: bool
) -> None:
    orders = [shop.order(), shop.order()]
    if step == "receipt":
        shop.grant(*orders)
    shop.raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    base = shop.copy(tmp_path / "base")
    touches = _touches(shop, base, orders, step, tmp_path / "count")
    assert touches >= 12

    for at in range(1, touches + 1):
        folder = tmp_path / f"cut{at}"
        shutil.copytree(base, folder)
        assert _heard(_start(shop, folder, Fuse(at, after=after)), orders, step) == []

        later = Shop(folder, shop.authority)
        stored = [row[0] for row in later.raw.execute("SELECT answer FROM grants")] if step != "receipt" else []
        answers = _heard(later, orders, step)

        _check_once(Shop(folder, shop.authority), answers, stored, step, at)
        shutil.rmtree(folder)


def _check_once(shop: Shop, answers: list[bytes], stored: list[bytes], step: str, at: int) -> None:
    assert len(set(answers)) == 2, at
    assert not stored or set(stored) == set(answers), at
    assert shop.granted() == shop.count("units") == shop.count("grants") == 2, at
    assert shop.count("slot_values") == 2, at
    found = shop.verify()
    assert found.grants == 2 and found.closed == (2 if step == "receipt" else 0), at
    if step == "receipt":
        assert {CLOSED.decode(one, 16_384).leaf_index for one in answers} == {2, 3}, at
    shop.close()


HAMMER = """
import sys
from pathlib import Path
from mpserver.authority import FileAuthority
from mpserver.keystore import Keystore
from mpsim.clock import SetClock
from tests.mpserver.shop import NOW, Shop

folder = Path(sys.argv[1])
shop = Shop(folder, FileAuthority(Keystore(folder / "keys"), "lab", SetClock(NOW)))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    orders = [shop.order() for _ in range(int(sys.argv[3]))]
    for order, outcome in zip(orders, shop.grant(*orders)):
        word = outcome.hex() if isinstance(outcome, bytes) else getattr(outcome, "check", repr(outcome))
        print(order.proof_digest.hex(), word, flush=True)
"""


@pytest.fixture
def hammers() -> Iterator[list["subprocess.Popen[str]"]]:
    """Other server processes; whatever a test leaves is ended."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for one in started:
        if one.poll() is None:
            one.kill()
        one.communicate()


def _hammer(folder: Path, rounds: int, size: int) -> "subprocess.Popen[str]":
    root = Path(__file__).parents[2]
    path = os.pathsep.join(str(root / room) for room in ("", "agent", "server", "sim"))
    process = subprocess.Popen(
        [sys.executable, "-c", HAMMER, str(folder), str(rounds), str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": path},
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def _go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_killed_server_keeps_every_grant_that_anybody_heard(
    tmp_path: Path, hammers: list["subprocess.Popen[str]"]
) -> None:
    shop = make_shop(tmp_path / "oem", quota=100_000)
    for wait_s in (0.05, 0.13, 0.21):
        process = _hammer(shop.folder, 10_000, 3)
        hammers.append(process)
        _go(process)
        time.sleep(wait_s)
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[0].split("\n")

        heard = [line.split() for line in said if line.count(" ") == 1]
        found = shop.verify()
        assert found.units == found.grants == shop.granted()
        for proof, answer in heard[:-1]:  # the last line may be cut in the pipe
            stored = shop.raw.execute(
                "SELECT answer FROM grants WHERE proof_digest = ?", (bytes.fromhex(proof),)
            ).fetchone()
            assert stored == (bytes.fromhex(answer),)
    assert shop.granted() > 0
    shop.close()


def test_two_servers_on_one_ledger_never_grant_more_than_the_quota(
    tmp_path: Path, hammers: list["subprocess.Popen[str]"]
) -> None:
    """P2 with replicas: each counts inside its transaction, so together they stop at the quota."""
    shop = make_shop(tmp_path / "oem", quota=60)
    hammers += [_hammer(shop.folder, 25, 2), _hammer(shop.folder, 50, 1)]
    for one in hammers:
        _go(one)
    words = [line.split()[1] for one in hammers for line in one.communicate()[0].splitlines()]

    assert len(words) == 100
    assert sum(word == "quota" for word in words) == 40
    assert len({word for word in words if word != "quota"}) == 60
    assert shop.granted() == shop.count("units") == 60
    found = shop.verify()
    assert found.grants == 60 and found.heads > 2
    shop.close()
