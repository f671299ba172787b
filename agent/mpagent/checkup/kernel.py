"""Options that the kernel-key sealer needs of the running kernel."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from mpagent.checkup.desk import Desk
from mpagent.checkup.finding import EX_OPERATOR, Finding, State
from mpagent.checkup.question import Question

if TYPE_CHECKING:
    from mpagent.hal.caam import Option

_ABILITY: Final = "kernel"
_WRAPS: Final = ("wrap af_alg", "wrap dm-crypt")
"""One of them is enough."""


def ask_kernel(desk: Desk) -> Iterator[Question]:
    """Only for an image that seals by a trusted key."""
    if "caam" in desk.names("seal"):
        yield Question(_ABILITY, lambda: _look(desk), needed=False)


def _look(desk: Desk) -> Iterator[Finding]:
    from mpagent.hal.caam import list_missing_options

    def missing(section: str) -> tuple["Option", ...]:
        return list_missing_options((section,), desk.root) or ()

    always = list_missing_options(("all",), desk.root)
    if always is None:
        cause = "the kernel does not show its configuration"
        yield Finding(_ABILITY, State.NOTE, cause, "build it with CONFIG_IKCONFIG_PROC=y to have its options checked")
        return
    sources = [f"source {word}" for word in desk.choice.kernel_key_sources]
    lacking = [*always, *_least(map(missing, sources)), *_least(map(missing, _WRAPS))]
    if not lacking:
        yield Finding(_ABILITY, State.OK, "has every option that sealing by a trusted key needs")
    exit_code = EX_OPERATOR if desk.wants("seal", "caam") else 0
    for option in lacking:
        text = f"{option.name} is off: {option.reason}"
        yield Finding(
            _ABILITY, State.MISSING, text, "build the kernel with mpagent's fragment kernel.config", exit_code
        )


def _least(choices: Iterable[tuple["Option", ...]]) -> tuple["Option", ...]:
    """Of alternatives, the one that lacks the least: empty when one is whole."""
    return min(choices, key=len)
