"""Asking on a board that is half dead: each question in a child of its own, which cannot take the others with it."""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from mpagent.checkup.finding import Finding, State, explain, explain_bug
from mpagent.hal.optee import CallDied, Hanging, NobodyAnswered
from mpagent.hal.optee.calls import run
from mpwire.errors import MpError

DEADLINE_S: Final = 20.0
"""Ten times what a discrete TPM needs to make, seal and unseal a key."""
_EX_IO: Final = 74


class Question(NamedTuple):
    """Something to find out."""

    ability: str
    """The line that tells of a question that never ended."""
    ask: Callable[[], Iterable[Finding] | Finding]
    """Runs in a child without standard streams, and leaves nothing behind. May raise MpError."""
    deadline_s: float = DEADLINE_S
    needed: bool = True
    """Whether the image cannot do without the answer."""
    asked: bool = True
    """Whether the image names what this is about."""


def answer(question: Question) -> list[Finding]:
    """At least one finding, within the deadline and whatever the question does: hang, crash, or raise."""
    try:
        told = run(lambda _mark: _listen(question), question.ability, question.deadline_s)
    except NobodyAnswered:
        return [_broken(question, f"no answer within {question.deadline_s:g} s", "look at dmesg for its driver")]
    except Hanging as hanging:
        return [_broken(question, f"no answer, and process {hanging.plain[1]} cannot be killed", hanging.advice)]
    except CallDied as died:
        return [_broken(question, f"the process that asked died (wait status {died.plain[1]})", died.advice)]
    return [Finding(ability, State(state), *rest) for ability, state, *rest in told]


def _listen(question: Question) -> list[tuple[str, str, str, str, int]]:
    """The answer in plain values, which is all that leaves the child."""
    found: list[Finding] = []
    try:
        asked = question.ask()
        for one in [asked] if isinstance(asked, Finding) else asked:
            found.append(one)
    except MpError as error:
        found.append(explain(question.ability, error, needed=question.needed, asked=question.asked))
    except Exception as error:
        found.append(explain_bug(question.ability, error))
    return [(one.ability, one.state.value, one.cause, one.next, one.exit_code) for one in found]


def _broken(question: Question, cause: str, following: str) -> Finding:
    return Finding(question.ability, State.BROKEN, cause, following, _EX_IO if question.needed or question.asked else 0)
