"""One enrollment, as the device lives it, top to bottom (docs/wire.md section 4, same step numbers).

Each step takes what survives, what was heard, and the board; it returns what survives next. The runner makes that
durable before anybody can hear the new outbox. A step that raises has changed nothing that is kept.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from mpagent.acceptance import Accepted, Pending, accept_closed, accept_grant, check_slots
from mpagent.belief import keep_update, make_trust
from mpagent.belonging import note_choice
from mpagent.closed import say_why_not, signs_with_pinned_key
from mpagent.errors import NotClosed, Refused, RefusedForNow
from mpagent.hal.ports import Board, LifeCycle
from mpagent.image import Image
from mpagent.keptgrant import reopen
from mpagent.proof import write_hello, write_proof
from mpagent.record import Record, Stage
from mpagent.slots import VaultSlot
from mpwire import hpke, labels, registry
from mpwire.cose import write_sign1
from mpwire.errors import PeerBroke
from mpwire.limits import CHALLENGE_MAX_BYTES, PROOF_MAX_BYTES, REFUSAL_MAX_BYTES
from mpwire.messages.grant import (
    RECEIPT,
    Contents,
    Receipt,
    SlotGrant,
    SlotReceipt,
    make_check_value,
    make_escrow_info,
)
from mpwire.messages.plain import CHALLENGE, PROOF, REFUSAL, RETRY, Refusal, read_number
from mpwire.secret import Secret


class Vault(Protocol):
    """Where slots lie sealed (mpagent/vault.py). Each verb may raise StorageFull, StorageBroke, Tampered, NotMine."""

    rollback: str
    """Anti-rollback kind, as receipts print it."""

    def write(self, ueid: bytes, slots: Sequence[VaultSlot], above: int) -> int:
        """A new generation, read back and unsealed slot by slot before it returns its number."""

    def read(self, ueid: bytes, generation: int) -> tuple[VaultSlot, ...]:
        """Every slot, unsealed live."""

    def find_latest(self) -> int:
        """Number of the newest whole generation, 0 for none."""


class Tools(NamedTuple):
    """All a step may touch."""

    board: Board
    vault: Vault
    image: Image
    random: Callable[[int], bytes]
    agent_version: str
    progress: Callable[[str], None]


Step = Callable[[Record, bytes | None, Tools], Record]

ASK_ANEW: Final = frozenset({"challenge-expired", "challenge", "nonce-used"})
"""Refusals of a Proof that a fresh Challenge cures: a week without power, or a Challenge that a stranger on the line
forged or said again. The device keys stay, so the issuer counts nothing twice (promise P3)."""


def greet(record: Record, heard: bytes | None, tools: Tools) -> Record:
    """1. Say who we are; nothing protects it, the Proof will carry its hash."""
    tools.progress("greeting the server")
    hello, ueid = write_hello(tools.board, tools.image, tools.random(16), tools.random(8))
    chosen = note_choice(tools.board)
    return record._replace(stage=Stage.GREETED, outbox=hello, hello=hello, ueid=ueid, chosen=chosen)


def prove(record: Record, heard: bytes | None, tools: Tools) -> Record:
    """3. Sign the issuer's nonce: by the device keys, and by the attester over that (docs/wire.md 4.3)."""
    raw = _hear(heard)
    challenge = CHALLENGE.decode(raw, CHALLENGE_MAX_BYTES)  # 2.10
    assert record.hello is not None  # greet made it
    if challenge.hello_hash != hashlib.sha256(record.hello).digest():  # 2.11
        raise PeerBroke("challenge-hello: the challenge answers another hello")
    tools.progress("proving what this board is")
    proof = write_proof(tools.board, tools.image, tools.agent_version, record.hello, raw, challenge)
    return record._replace(stage=Stage.PROVEN, outbox=proof, challenge=raw, proof=proof)


def keep(record: Record, heard: bytes | None, tools: Tools) -> Record:
    """4, 5. Take the Grant, seal it, read it back, and say so."""
    try:
        raw = _hear(heard)
    except Refused as refused:
        if refused.check in ASK_ANEW:
            return greet(record, None, tools)
        raise
    if read_number(raw) == registry.CLOSED:
        return adopt(record, raw, tools)
    pending, trust = _pending(record), make_trust(record, tools.image)
    kem = tools.board.keyring.find_or_make(labels.DEVICE_KEM)
    accepted = accept_grant(raw, pending, tools.image, trust, kem)  # 4.1 to 4.7
    check_slots(accepted.contents, tools.image.slots, _stored(record, tools), _certified(tools))  # 4.8, 4.9
    proof_of_closed = prove_closed(tools.board, tools.image, tools.random)  # 4.10
    tools.progress(f"sealing {len(accepted.contents.slots)} slots")
    slots = [_fill(slot, tools) for slot in accepted.contents.slots]  # 4.11
    generation = tools.vault.write(pending.ueid, slots, above=record.generation)
    sealed = tools.vault.read(pending.ueid, generation)
    receipt = _write_receipt("sealed", accepted, sealed, proof_of_closed, tools)  # 4.12
    return record._replace(
        stage=Stage.KEPT,
        outbox=receipt,
        job=accepted.grant.job,
        grant_digest=accepted.digest,
        generation=generation,
        epoch=accepted.trust.epoch,
        trust_updates=keep_update(record, tools.image, accepted.update),
        time_floor=max(record.time_floor, accepted.grant.issued_at),
        grant=None if accepted.contents.manifest is None else raw,  # 4.13
    )


def close(record: Record, heard: bytes | None, tools: Tools) -> Record:
    """6. The receipt stands in the ledger; keep the proof of that."""
    assert record.ueid is not None and record.outbox is not None  # greet and keep made them
    raw = _hear(heard)
    _, time = accept_closed(raw, record.ueid, record.outbox, make_trust(record, tools.image))
    done = record._replace(stage=Stage.DONE, outbox=None, closed=raw, time_floor=max(record.time_floor, time))
    return done if record.grant is not None else _forget_exchange(done)


def show(record: Record, heard: bytes | None, tools: Tools) -> Record:
    """7.1 to 7.4. The production image runs: unseal every slot, and say so under the same Grant."""
    assert record.ueid is not None  # a record that is done names its chip
    accepted = reopen(record, tools.image, tools.board.keyring)
    assert accepted is not None  # is_over looked
    tools.progress("showing that the production image has every secret")
    sealed = tools.vault.read(record.ueid, record.generation)
    proof_of_closed = prove_closed(tools.board, tools.image, tools.random)
    receipt = _write_receipt("final", accepted, sealed, proof_of_closed, tools)
    return record._replace(stage=Stage.SHOWN, outbox=receipt)


def end(record: Record, heard: bytes | None, tools: Tools) -> Record:
    """7.8. The final receipt stands in the ledger as well: no image is to come, so the Grant can go."""
    assert record.ueid is not None and record.outbox is not None  # show made it
    raw = _hear(heard)
    _, time = accept_closed(raw, record.ueid, record.outbox, make_trust(record, tools.image))
    ended = record._replace(stage=Stage.FINAL, outbox=None, closed=raw, time_floor=max(record.time_floor, time))
    return _forget_exchange(ended)


def is_over(record: Record, image: Image) -> bool:
    """Whether there is nothing left to say: a final receipt is for a production image, after a Grant that named one."""
    if record.stage is Stage.DONE:
        return image.phase != "final" or record.grant is None
    return record.stage is Stage.FINAL


def _forget_exchange(record: Record) -> Record:
    return record._replace(hello=None, challenge=None, proof=None, grant=None)


STORY: Mapping[Stage, Step] = {
    Stage.BLANK: greet,
    Stage.GREETED: prove,
    Stage.PROVEN: keep,
    Stage.KEPT: close,
    Stage.DONE: show,
    Stage.SHOWN: end,
}
"""What comes next, by what is known, until `is_over`."""


def adopt(record: Record, raw: bytes, tools: Tools) -> Record:
    """A Closed instead of a Grant: this board was finished before, and its journal was lost.

    An intact vault makes it whole again; without one only rework brings values back (promise P3).
    """
    assert record.ueid is not None  # greet made it
    _, time = accept_closed(raw, record.ueid, None, make_trust(record, tools.image))
    generation = tools.vault.find_latest()
    if generation == 0:
        raise Refused(
            "rework", "this board was provisioned before and its vault is gone; the OEM must approve a rework of it"
        )
    tools.vault.read(record.ueid, generation)
    return record._replace(stage=Stage.DONE, outbox=None, hello=None, challenge=None, proof=None, closed=raw,
                   generation=generation, time_floor=max(record.time_floor, time))  # fmt: skip


def prove_closed(board: Board, image: Image, random: Callable[[int], bytes]) -> str:
    """4.10: how closed was shown in this boot, "none" where the product takes open parts (design promise P6).

    Raises NotClosed. The fuse bit alone means "reboot needed": a blob sealed now would be under a public test key.
    """
    facts = board.soc.read_facts()
    if facts.life_cycle is LifeCycle.CLOSED:
        if signs_with_pinned_key(board.attester, image.mp_key_ids, random):
            return "mp-key"
        if facts.closed_by in ("secure-world", "open-blob"):
            return facts.closed_by
    if image.allow_open:
        return "none"
    raise NotClosed(say_why_not(facts.life_cycle, "pin the product's mp_key_ids or an open_blob in the image"))


def _hear(heard: bytes | None) -> bytes:
    """What the issuer said, unless it was a Refusal."""
    if heard is None:
        raise PeerBroke("no answer")
    refusal = _read_refusal(heard)
    if refusal is None:
        return heard
    text = f"the server refused: {refusal.check}"
    if refusal.retry == RETRY:
        raise RefusedForNow(refusal.check, text)
    raise Refused(refusal.check, text)


def _read_refusal(heard: bytes) -> Refusal | None:
    return REFUSAL.decode(heard, REFUSAL_MAX_BYTES) if read_number(heard) == registry.REFUSAL else None


def _pending(record: Record) -> Pending:
    assert record.hello and record.challenge and record.proof and record.ueid  # greet and prove made them
    challenge = CHALLENGE.decode(record.challenge, CHALLENGE_MAX_BYTES)
    proof = PROOF.decode(record.proof, PROOF_MAX_BYTES)
    return Pending(record.hello, challenge.nonce, record.proof, proof.evidence, record.ueid)


def _stored(record: Record, tools: Tools) -> dict[str, int]:
    if record.generation == 0 or record.ueid is None:
        return {}
    return {slot.name: slot.version for slot in tools.vault.read(record.ueid, record.generation)}


def _certified(tools: Tools) -> dict[str, bytes]:
    names = [slot.name for slot in tools.image.slots if slot.kind == "certificate"]
    return {name: tools.board.keyring.find_or_make(labels.certificate_key(name)).public_key() for name in names}


def _fill(slot: SlotGrant, tools: Tools) -> VaultSlot:
    """A granted slot with its value; a local one is made here and never sent in the clear."""
    value = slot.value
    if value is None:
        lengths = {want.name: want.length for want in tools.image.slots}
        value = Secret(tools.random(lengths[slot.name]))
    return VaultSlot(slot.name, slot.kind, slot.destination, slot.version, value)


def _write_receipt(
    phase: str, accepted: Accepted, sealed: Sequence[VaultSlot], closed_proof: str, tools: Tools
) -> bytes:
    """5. What was read back and unsealed just now, under the device key."""
    contents, facts = accepted.contents, tools.board.soc.read_facts()
    backend = tools.board.sealer.name
    receipt = Receipt(
        phase=phase,
        grant_digest=accepted.digest,
        ueid=accepted.grant.ueid,
        slots=tuple(
            SlotReceipt(
                slot.name,
                backend,
                slot.version,
                make_check_value(contents.check_key, slot.name, slot.version, slot.value),
            )
            for slot in sealed
        ),
        rollback=tools.vault.rollback,
        closed_proof=closed_proof,
        life_cycle=None if facts.life_cycle is None else int(facts.life_cycle),
        escrow=_escrow(contents, sealed, accepted.grant.ueid),
    )
    sign = tools.board.keyring.find_or_make(labels.DEVICE_SIGN)
    headers = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_RECEIPT}
    return write_sign1(headers, RECEIPT.encode(receipt), labels.AAD_RECEIPT, sign.sign)


def _escrow(contents: Contents, sealed: Sequence[VaultSlot], ueid: bytes) -> dict[str, tuple[bytes, bytes]] | None:
    """Local values that the product escrows, each encrypted to the key the Grant named."""
    keys = {slot.name: slot.escrow for slot in contents.slots if slot.escrow is not None}
    if not keys:
        return None
    values = {slot.name: slot for slot in sealed}
    return {
        name: hpke.seal_base(key, make_escrow_info(ueid, name, values[name].version), b"", values[name].value)
        for name, key in keys.items()
    }
