"""Every backend the image names, each opened alone; then the board that an enrollment would make of them."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mpagent.checkup.desk import Desk
from mpagent.checkup.finding import Finding, State, explain
from mpagent.checkup.question import Question
from mpagent.errors import HardwareGone
from mpwire.errors import MpError
from mpwire.secret import Secret

if TYPE_CHECKING:
    from mpagent.hal.ports import Attester, Board, Sealer, Soc

_KEEPS_ITS_KEY: Final = ("pkcs11", "optee")
"""Sealers whose token keeps the key that the first seal makes: they are opened, and not tried."""


def ask_parts(desk: Desk) -> Iterator[Question]:
    """Candidates in the image's order, then what it comes to."""
    for sort in ("soc", "attest", "seal", "keys"):
        for name in desk.names(sort):
            if (sort, name) not in (("soc", "imx"), ("soc", "none")):  # the one is `part`, the other says nothing
                yield _question(desk, sort, name)
    if desk.device is not None:
        yield Question("choice", lambda: _compose(desk))


def _question(desk: Desk, sort: str, name: str) -> Question:
    ability = f"{sort} {name}"
    # One that is missing is passed over; whether anything is left, `choice` says.
    return Question(ability, lambda: Finding(ability, State.OK, _try(desk, sort, name)), needed=False)


def _try(desk: Desk, sort: str, name: str) -> str:
    from mpagent.hal.choose import open_part

    with desk.open_bench() as bench:
        part = open_part(bench, sort, name)
        if sort == "soc":
            return _describe_soc(part)
        if sort == "attest":
            return _describe_attester(part, desk)
        if sort == "seal" and name not in _KEEPS_ITS_KEY:
            return _try_sealer(part)
        return "opens; its keys are made when the board enrolls"


def _describe_soc(soc: "Soc") -> str:
    facts = soc.read_facts()
    return f"{facts.family}, uid {facts.uid.hex() if facts.uid is not None else 'not readable'}"


def _describe_attester(attester: "Attester", desk: Desk) -> str:
    material = attester.describe()
    made = "; its key is made when the board enrolls" if desk.disk.drafts else ""
    return f"{material.kind}" + (made or f", id {material.attester_id.hex()}")


def _try_sealer(sealer: "Sealer") -> str:
    key = Secret(os.urandom(32))
    if sealer.unseal(sealer.seal(key)) != key:
        raise HardwareGone("the sealer gives back another key than it sealed")
    return "sealed and unsealed a key"


def _compose(desk: Desk) -> Iterator[Finding]:
    """An enrollment's view: what it would use, whether it would believe the part closed, what it would count with."""
    with desk.open_board() as board:
        chosen = ", ".join(f"{sort} {name}" for sort, name in board.chosen.items())
        yield Finding("choice", State.OK, chosen)
        yield _look_at_life_cycle(desk, board)
        yield _look_at_counter(board)


def _look_at_life_cycle(desk: Desk, board: "Board") -> Finding:
    """What an enrollment would accept before it seals (step 4.10): the fuse bit alone is no proof."""
    from mpagent.enrollment import prove_closed

    assert desk.device is not None
    try:
        proof = prove_closed(board, desk.device.image, os.urandom)
        known = board.soc.read_facts().life_cycle
    except MpError as error:
        return explain("life cycle", error)
    words = "not knowable on this board" if known is None else known.name.lower().replace("_", " ")
    if proof == "none":
        return Finding("life cycle", State.NOTE, f"{words}; this product takes open parts")
    return Finding("life cycle", State.OK, f"{words}, shown in this boot by {proof}")


def _look_at_counter(board: "Board") -> Finding:
    if board.counter is None:
        return Finding("anti-rollback", State.NOTE, "none: a restored old disk is not noticed")
    try:
        return Finding("anti-rollback", State.OK, f"{board.counter.kind}, at {board.counter.read()}")
    except MpError as error:
        return explain("anti-rollback", error)
