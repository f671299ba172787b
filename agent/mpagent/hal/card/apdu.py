"""Commands to a card (ISO/IEC 7816-4): chaining, GET RESPONSE, a corrected Le, and nothing longer than we asked for."""

from collections.abc import Callable
from typing import Final, NamedTuple

from mpagent.errors import HardwareGone

Transmit = Callable[[list[int]], tuple[list[int], int, int]]
"""One APDU to the card: (data, SW1, SW2). Raises HardwareGone, HardwareBusy."""

DATA_MAX_BYTES: Final = 255
"""Of one short command; more is chained (ISO/IEC 7816-4 section 5.1)."""
ANSWER_MAX_BYTES: Final = 4_352
"""A certificate of 4096 bytes, the most that Hello carries (wire.md 4.1), its framing and some room."""
SUCCESS: Final = 0x9000
_CHAINED: Final = 0x10
_GET_RESPONSE: Final = 0xC0
_MORE_FOLLOWS: Final = 0x61
_WRONG_LE: Final = 0x6C


class Command(NamedTuple):
    """One command of class 00, of any length."""

    instruction: int
    p1: int
    p2: int
    body: bytes = b""
    answers: bool = True
    """Whether an answer beside the status word is asked for (Le = 00)."""


class Answer(NamedTuple):
    """All that the card said to one command."""

    body: bytes
    status: int
    """SW1 SW2."""


def exchange(transmit: Transmit, command: Command) -> Answer:
    """Say a whole command and collect the whole answer.

    Raises HardwareGone when the card says more than ANSWER_MAX_BYTES or promises more and says nothing, and what
    `transmit` raises. A refusal is no error here: its status word is in the Answer.
    """
    links = [command.body[at : at + DATA_MAX_BYTES] for at in range(0, len(command.body), DATA_MAX_BYTES)] or [b""]
    for link in links[:-1]:
        refused = _say(transmit, _write(command, link, _CHAINED, le=None))
        if refused.status != SUCCESS:
            return refused
    last = links[-1]
    answer = _say(transmit, _write(command, last, 0, le=0 if command.answers else None))
    if answer.status >> 8 == _WRONG_LE:
        answer = _say(transmit, _write(command, last, 0, le=answer.status & 0xFF))
    return _collect(transmit, answer)


def _collect(transmit: Transmit, answer: Answer) -> Answer:
    body = answer.body
    while answer.status >> 8 == _MORE_FOLLOWS:
        answer = _say(transmit, [0x00, _GET_RESPONSE, 0x00, 0x00, answer.status & 0xFF])
        body += answer.body
        if not answer.body:
            raise HardwareGone("the card promises more of its answer and then says nothing")
        if len(body) > ANSWER_MAX_BYTES:
            raise HardwareGone(f"the card answers with more than {ANSWER_MAX_BYTES} bytes")
    return Answer(body, answer.status)


def _write(command: Command, link: bytes, chained: int, le: int | None) -> list[int]:
    head = [chained, command.instruction, command.p1, command.p2]
    body = [len(link), *link] if link else []
    return head + body + ([] if le is None else [le])


def _say(transmit: Transmit, apdu: list[int]) -> Answer:
    body, sw1, sw2 = transmit(apdu)
    if len(body) > ANSWER_MAX_BYTES:
        raise HardwareGone(f"the card answers with more than {ANSWER_MAX_BYTES} bytes")
    return Answer(bytes(body), sw1 << 8 | sw2)
