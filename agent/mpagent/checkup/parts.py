"""Every backend the image names, each opened alone; then the board that an enrollment would make of them."""

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mpagent.checkup.desk import Desk
from mpagent.checkup.finding import EX_OPERATOR, Finding, State, explain
from mpagent.checkup.question import DEADLINE_S, Question
from mpagent.errors import HardwareGone
from mpagent.hal.choose import open_part
from mpagent.registration import find_origin, make_record, read_measurement, tell_key
from mpwire import hkdf
from mpwire.bundlekeys import make_mpk_id
from mpwire.errors import MpError
from mpwire.secret import Secret

if TYPE_CHECKING:
    from mpagent.hal.ports import Attester, Board, ClassKey, LifeCycle, Sealer, Soc
    from mpagent.image import Image

_KEY_MAKING_S: Final = 200.0
"""OP-TEE's attestation key may have to be made: see hal/attestation."""
_CLOSE: Final = "close the part and reboot"
_LATER: Final = "opens; its keys are made when the board enrolls"


def ask_parts(desk: Desk) -> Iterator[Question]:
    """Candidates in the image's order, then what it comes to."""
    for sort in ("soc", "attest", "seal", "keys", "counter"):
        for name in desk.names(sort):
            if (sort, name) not in (("soc", "imx"), ("soc", "none")):  # the one is `part`, the other says nothing
                yield _question(desk, sort, name)
    if desk.device is not None:
        slow = "optee" in desk.names("attest")
        yield Question("choice", lambda: _compose(desk), deadline_s=_KEY_MAKING_S if slow else DEADLINE_S)


def _question(desk: Desk, sort: str, name: str) -> Question:
    deadline_s = _KEY_MAKING_S if (sort, name) == ("attest", "optee") else DEADLINE_S
    # One that is missing is passed over; whether anything is left, `choice` says.
    return Question(f"{sort} {name}", lambda: _try(desk, sort, name), deadline_s=deadline_s, needed=False)


def _try(desk: Desk, sort: str, name: str) -> Iterator[Finding]:
    ability = f"{sort} {name}"
    is_secret = sort == "attest" and desk.choice.mp_secret
    with desk.open_bench() as bench:
        part = open_part(bench, "class-key" if is_secret else sort, name)
        if sort == "soc":
            yield Finding(ability, State.OK, _describe_soc(part))
        elif is_secret:
            yield _try_class_key(ability, part, desk)
        elif sort == "attest":
            yield from _describe_attester(name, part, desk)
        elif sort == "seal":
            yield _try_sealer(ability, name, part)
        elif sort == "counter":
            yield Finding(ability, State.OK, "opens; `anti-rollback` says how it stands")
        else:
            yield Finding(ability, State.OK, _LATER)


def _describe_soc(soc: "Soc") -> str:
    facts = soc.read_facts()
    return f"{facts.family}, uid {facts.uid.hex() if facts.uid is not None else 'not readable'}"


def _try_class_key(ability: str, key: "ClassKey", desk: Desk) -> Finding:
    """By its name in the OEM's vault; what is printed of a board that signs, SHA-256 of the key, is never made here.

    Whichever way it was read, a production image must not have that way.
    """
    prk = key.extract()
    name = make_mpk_id(lambda info: hkdf.expand(prk, info)).hex()
    text = f"the class key can be read, mpk-{name}"
    if desk.production:
        return Finding(ability, State.BROKEN, text, "a production image has no way to the MP engine", EX_OPERATOR)
    return Finding(ability, State.OK, f"{text}; it signs nothing (mp_use = secret)")


def _describe_attester(name: str, attester: "Attester", desk: Desk) -> Iterator[Finding]:
    """Who it is, and what its OEM registers of it. Of an MP key its id alone."""
    material = attester.describe()
    made = "; its key is made when the board enrolls" if desk.disk.drafts else ""
    text = material.kind + (made or f", id {material.attester_id.hex()}")
    measurement = read_measurement(attester, material)
    if measurement is not None:
        text = f"{text}, OP-TEE's memory {measurement}"
    for known, value in tell_key(material).items():
        text = f"{text}, {known.replace('_', ' ')} {value}"
    yield Finding(f"attest {name}", State.OK, text)
    record = make_record(material, find_origin(name, desk.choice.tpm_tcti))
    if record is not None:
        yield Finding(f"record {name}", State.OK, json.dumps(record))


def _try_sealer(ability: str, name: str, sealer: "Sealer") -> Finding:
    """A token keeps the key of its first seal, and so does a TPM behind the kernel's keys: these are only opened."""
    if name == "pkcs11":
        return Finding(ability, State.OK, _LATER)
    told = ""
    if name == "caam":
        from mpagent.hal.caam import KernelKeySealer
        from mpagent.hal.caam.source import Source

        assert isinstance(sealer, KernelKeySealer)
        told = f"source {sealer.source.word}, wraps by {sealer.wrapper_name}; "
        if sealer.test_key:
            return Finding(ability, State.NOTE, f"{told}seals under the public test key of an open part", _CLOSE)
        if sealer.source is Source.TPM:
            return Finding(ability, State.OK, f"{told}{_LATER}")
    key = Secret(os.urandom(32))
    if sealer.unseal(sealer.seal(key)) != key:
        raise HardwareGone("the sealer gives back another key than it sealed")
    return Finding(ability, State.OK, f"{told}sealed and unsealed a key")


def _compose(desk: Desk) -> Iterator[Finding]:
    """An enrollment's view: what it would use, whether it would believe the part closed, what it would count with."""
    with desk.open_board() as board:
        chosen = ", ".join(f"{sort} {name}" for sort, name in board.chosen.items())
        yield Finding("choice", State.OK, chosen)
        yield _look_at_life_cycle(desk, board)
        yield _look_at_counter(desk, board)


def _look_at_life_cycle(desk: Desk, board: "Board") -> Finding:
    """What an enrollment would accept before it seals (step 4.10): the fuse bit alone is no proof."""
    from mpagent.enrollment import prove_closed

    assert desk.device is not None
    if desk.device.image.mp_use == "secret":
        return _look_without_a_line(desk.device.image, board)
    try:
        proof = prove_closed(board, desk.device.image, os.urandom)
        known = board.soc.read_facts().life_cycle
    except MpError as error:
        return explain("life cycle", error)
    words = _name(known)
    if proof == "none":
        return Finding("life cycle", State.NOTE, f"{words}; this product takes open parts")
    return Finding("life cycle", State.OK, f"{words}, shown in this boot by {proof}")


def _name(life_cycle: "LifeCycle | None") -> str:
    return "not knowable on this board" if life_cycle is None else life_cycle.name.lower().replace("_", " ")


def _look_without_a_line(image: "Image", board: "Board") -> Finding:
    """As 11.4.13 of docs/wire.md: the first bundle that opens shows that this boot is closed."""
    from mpagent.errors import NotClosed
    from mpagent.hal.ports import LifeCycle

    facts = board.soc.read_facts()
    known = _name(facts.life_cycle)
    if facts.closed_by:
        return Finding("life cycle", State.OK, f"{known}, shown in this boot by {facts.closed_by}")
    if facts.life_cycle in (LifeCycle.CLOSED, LifeCycle.CLOSED_PENDING_REBOOT):
        return Finding("life cycle", State.OK, "the fuse says closed; that this boot is, a bundle that opens shows")
    if image.allow_open:
        return Finding("life cycle", State.NOTE, f"{known}; this product takes open parts")
    return Finding("life cycle", State.BROKEN, known, _CLOSE, NotClosed.exit_code)


def _look_at_counter(desk: Desk, board: "Board") -> Finding:
    """Reading a counter makes it where there is none, so on a board without a vault it is let alone."""
    if board.counter is None:
        return Finding("anti-rollback", State.NOTE, "none: a restored old disk is not noticed")
    assert desk.device is not None
    if not desk.device.journal(lambda _text: None).peek()[0].generation:
        return Finding("anti-rollback", State.OK, f"{board.counter.kind}, counts from the first enrollment on")
    try:
        return Finding("anti-rollback", State.OK, f"{board.counter.kind}, at {board.counter.read()}")
    except MpError as error:
        return explain("anti-rollback", error)
