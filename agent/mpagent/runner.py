"""Lives one enrollment through power cuts: load, ask, step, save; and waits where waiting helps."""

from collections.abc import Callable
from typing import Final, NamedTuple

from mpagent.belonging import check_chip, check_flow
from mpagent.enrollment import STORY, Tools, is_over
from mpagent.errors import Pending, RefusedForNow, Tampered
from mpagent.ports import Journal, Latch, Link
from mpagent.record import HOLDS_SECRETS, Record, Stage
from mpwire.errors import MpError, Retry

BACKOFF_FIRST_S: Final = 1.0
BACKOFF_MAX_S: Final = 60.0
"""A line of boards that lost its server finds it again within a minute, and spread over that minute."""
ASK_ANEW_MAX: Final = 1
"""Fresh Challenges in one run: whoever refuses on the line cannot make a board write its flash without a pause."""


class Parts(NamedTuple):
    """All one enrollment needs."""

    journal: Journal
    link: Link
    latch: Latch
    tools: Tools
    discard_others: Callable[[int], None]
    """Of the vault: every generation but this one."""


def run(parts: Parts) -> Record:
    """From wherever the record stands to the end of its story. Whatever it raises, the next call goes on from there.

    Tampered is latched on disk before it leaves here; every later run raises it again.
    """
    parts.latch.check()
    try:
        return _run(parts)
    except Tampered as why:
        parts.latch.close(why)
        raise


def _run(parts: Parts) -> Record:
    record, tools = parts.journal.load(), parts.tools
    check_flow(record, tools.image)
    check_chip(record, tools.board)
    _discard(parts, record)  # a cut may have come between the record and this
    unsealed_now, asked_anew = record.stage not in HOLDS_SECRETS, 0
    while not is_over(record, tools.image):
        heard = parts.link.ask(record.outbox) if record.outbox is not None else None
        before, record = record.stage, STORY[record.stage](record, heard, tools)
        parts.journal.save(record)  # durable before anyone can hear it
        asked_anew += before is Stage.PROVEN and record.stage is Stage.GREETED
        if asked_anew > ASK_ANEW_MAX:
            raise RefusedForNow("challenge-expired", "the server takes no answer to its own challenges")
        _discard(parts, record)
    if not unsealed_now:
        confirm(record, tools)
    return record


def confirm(record: Record, tools: Tools) -> None:
    """A finished board shows in this boot that its secrets unseal. Raises Tampered, NotMine, StorageBroke."""
    assert record.ueid is not None  # a record that is done names its chip
    slots = tools.vault.read(record.ueid, record.generation)
    tools.progress(f"provisioned; {len(slots)} slots unsealed just now")


def _discard(parts: Parts, record: Record) -> None:
    if record.generation:
        parts.discard_others(record.generation)


class Patience(NamedTuple):
    """How to wait. Sleep, clock and randomness are ports."""

    sleep: Callable[[float], None]
    clock: Callable[[], float]
    """Seconds, never going back."""
    random: Callable[[int], bytes]
    report: Callable[[str], None]
    limit_s: float | None = None
    """Give up when the next try would begin later than this after the first; None: never."""


def run_patiently(attempt: Callable[[], Record], patience: Patience) -> Record:
    """Try again after every failure that time can cure: exponential backoff with full jitter.

    A Pending is waited out first, then the jitter, so that boards told the same second do not come together.
    """
    start, tries = patience.clock(), 0
    while True:
        try:
            return attempt()
        except MpError as error:
            if error.retry is not Retry.LATER:
                raise
            pause = draw_pause(tries, patience.random)
            if isinstance(error, Pending):
                pause += error.retry_after_s
            if patience.limit_s is not None and patience.clock() - start + pause > patience.limit_s:
                raise
            patience.report(f"{error}; trying again in {pause:.0f} s")
        patience.sleep(pause)
        tries += 1


def draw_pause(tries: int, random: Callable[[int], bytes]) -> float:
    """Seconds before the next try: even between 0 and min(60, 2^tries)."""
    high = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(tries, 16))
    return high * int.from_bytes(random(8), "big") / 2**64
