"""The card's PIN: how many tries are left, without giving it."""

from collections.abc import Iterator

from mpagent.checkup.desk import Desk
from mpagent.checkup.finding import EX_OPERATOR, Finding, State
from mpagent.checkup.question import Question


def ask_card(desk: Desk) -> Iterator[Question]:
    """Where the image names a card."""
    if "card" in (*desk.names("attest"), *desk.names("keys")):
        yield Question("card PIN", lambda: _look(desk), needed=False)  # who needs the card says so under its own name


def _look(desk: Desk) -> Finding:
    with desk.open_bench() as bench:
        return describe_tries(bench.card.token.count_tries())


def describe_tries(tries: int) -> Finding:
    """The agent never spends the last one."""
    if tries == 0:
        return Finding("card PIN", State.BROKEN, "blocked", "let its holder unblock it with the PUK", EX_OPERATOR)
    if tries == 1:
        cause = "one try left, which mpagent does not spend"
        return Finding("card PIN", State.BROKEN, cause, "let its holder give the PIN once by hand", EX_OPERATOR)
    return Finding("card PIN", State.OK, f"{tries} tries left; not given now")
