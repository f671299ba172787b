"""From one message to one reply: ask the issuer, let the ledger make it durable, turn every no into a status.

Status codes carry no meaning to a device beyond 200 (an answer), 4xx (a Refusal, or a proxy's page) and 503 (later).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from mpissuer.errors import NotNow, Refused
from mpserver.log import Log
from mpserver.store.sequencer import Outcome, Work
from mpserver.store.writer import Writer
from mpwire import limits
from mpwire.errors import Malformed, MpError, PeerBroke
from mpwire.messages.plain import HELLO, PROOF, Hello

Answer: TypeAlias = "Callable[[bytes], bytes | Work]"
"""The issuer: what it says at once, or what the ledger has to do first. Raises PeerBroke, Refused, NotNow."""

Ticket: TypeAlias = "asyncio.Future[bytes]"

OK, BAD, FORBIDDEN, BUG, LATER = 200, 400, 403, 500, 503
BUG_RETRY_S: Final = 60


class Reply(NamedTuple):
    """What goes back. `retry_after_s` is 0 where it is not said."""

    status: int
    body: bytes = b""
    retry_after_s: int = 0


class Service:
    """Lives on the loop's thread; the writer has its own."""

    def __init__(self, answer: Answer, refuse: Callable[[MpError], bytes], writer: Writer, log: Log) -> None:
        self._answer, self._refuse, self._writer, self._log = answer, refuse, writer, log

    async def handle(self, raw: bytes) -> Reply:
        """Never raises; nothing that can be told to nobody is lost: it is in the log."""
        try:
            said = self._answer(raw)
            if isinstance(said, Work):
                ticket: Ticket = asyncio.get_running_loop().create_future()
                self._writer.submit(said, ticket)
                said = await ticket
            return Reply(OK, said)
        except Refused as error:
            self._note("refused", raw, error, error.check)
            return Reply(FORBIDDEN, self._refuse(error), error.retry_after_s)
        except PeerBroke as error:
            self._note("peer-broke", raw, error, str(error))
            return Reply(BAD, self._refuse(error))
        except NotNow as error:
            self._note("not-now", raw, error, str(error))
            return Reply(LATER, retry_after_s=error.retry_after_s)
        except MpError as error:
            self._note("broke", raw, error, str(error))
            return Reply(LATER, retry_after_s=BUG_RETRY_S)
        except Exception as error:
            self._log.say_bounded("bug", kind=type(error).__name__, **name_run(raw))
            return Reply(BUG)

    def _note(self, event: str, raw: bytes, error: MpError, check: str) -> None:
        self._log.say_bounded(event, check=check, detail=error.detail, **name_run(raw))


def deliver(settled: Sequence[tuple[Ticket, Outcome]]) -> None:
    """mpserver.store.writer.Deliver: wakes the loop once for a whole batch."""
    loop = settled[0][0].get_loop()
    if not loop.is_closed():  # else the server was told to stop and nobody waits any more
        loop.call_soon_threadsafe(_resolve, settled)


def _resolve(settled: Sequence[tuple[Ticket, Outcome]]) -> None:
    for ticket, outcome in settled:
        if ticket.done():  # its connection is gone
            continue
        if isinstance(outcome, Exception):
            ticket.set_exception(outcome)
        else:
            ticket.set_result(outcome)


def name_run(raw: bytes) -> dict[str, str]:
    """ueid and run id, where the message says them, to find one run in both logs. Unauthenticated: for people only."""
    try:
        hello = _find_hello(raw)
    except Malformed:
        return {}
    return {"ueid": hello.ueid.hex(), "run_id": hello.run_id.hex(), "product": hello.product}


def _find_hello(raw: bytes) -> Hello:
    try:
        return HELLO.decode(raw, limits.HELLO_MAX_BYTES)
    except Malformed:
        proof = PROOF.decode(raw, limits.PROOF_MAX_BYTES)
        return HELLO.decode(proof.hello, limits.HELLO_MAX_BYTES)
