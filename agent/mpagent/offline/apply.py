"""One bundle, as the board takes it, top to bottom (docs/wire.md 11.4, same step numbers).

Until 11.4.14 nothing that is kept has changed: what a large file was decrypted to lies beside its name, and is removed
by whoever fails, or by the next start. From there on a cut leaves the former generation or the new one, whole.
"""

import hmac
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple

from mpagent.belief import keep_update, make_trust
from mpagent.durable import Damaged, Disk
from mpagent.errors import StorageBroke
from mpagent.hal.ports import Board, LifeCycle, SocFacts
from mpagent.image import Image
from mpagent.offline import acceptance, files
from mpagent.offline.acceptance import FIRST, Piece, Plan
from mpagent.offline.facts import Facts, note_bundle, write_facts
from mpagent.offline.holdings import Holdings, make_record
from mpagent.offline.jobsecrets import JobSecrets
from mpagent.offline.sources import Source, reading
from mpagent.offline.words import refuse, told
from mpagent.proof import name_board
from mpagent.record import Record
from mpagent.slots import VaultSlot
from mpagent.vault import Vault, load_generation
from mpwire import bundlekeys, hkdf, labels, registry
from mpwire.bundle import check_payload
from mpwire.bundlekeys import Expand
from mpwire.bundlereceipt import write_receipt
from mpwire.messages.bundle import BundlePolicy, BundleReceipt
from mpwire.messages.grant import SlotReceipt, make_check_value, make_check_value_of_file
from mpwire.secret import Secret
from mpwire.stream import open_chunks
from mpwire.trust import Trust

LOCAL_VERSION: Final = 1
"""Of a value that the board made: it is made once."""
TICK_BYTES: Final = 8_388_608
"""A pass over less than this is not told of."""


class Tools(NamedTuple):
    """All that taking a bundle may touch."""

    board: Board
    vault: Vault
    disk: Disk
    image: Image
    secrets: JobSecrets
    random: Callable[[int], bytes]
    agent_version: str
    progress: Callable[[str], None]


class Keys(NamedTuple):
    """What the bundle is under."""

    expand: Expand
    kek: Secret


class Opened(NamedTuple):
    """A bundle that is ours, whole and open. Its files lie staged, unless nothing was to be kept."""

    plan: Plan
    trust: Trust
    update: bytes | None
    """The trust update it brought, verified."""
    keys: Keys
    values: dict[str, Secret]
    """By name of the component: its value; of a file that is kept, the note that the vault will hold."""
    staged: tuple[str, ...]
    policy: BundlePolicy | None
    closed_proof: str
    part: SocFacts


def open_all(source: Source, record: Record, held: Holdings, tools: Tools, *, keep: bool) -> Opened:
    """11.4.2 to 11.4.13. The first check that fails raises. Without `keep` large files are opened and not staged."""
    bundle, image, facts = source.frame.bundle, tools.image, held.facts
    trust, update = _believe(source, record, held, tools)  # 11.4.2, 11.4.3
    acceptance.check_subject(bundle, image)  # 11.4.4
    acceptance.check_time(bundle, max(trust.now, facts.of(bundle.authority).floor))  # 11.4.5
    part = tools.board.soc.read_facts()
    acceptance.check_conditions(bundle.conditions, part)  # 11.4.6
    acceptance.check_version(bundle, facts, image)  # 11.4.7
    plan = acceptance.plan_slots(bundle, part.uid, image, held)  # 11.4.8
    with reading(source.path), told("bundle-payload"):  # 11.4.9
        check_payload(source.file, source.frame, Ticker("checking the bundle", tools.progress))
    keys = _make_keys(source, held, tools)  # 11.4.10
    with _staging(tools.disk) as staged:
        values = _open_pieces(source, plan, keys, held, tools, staged if keep else None)  # 11.4.11
        policies = [acceptance.check_value(one.component, values[one.component.name]) for one in plan.valued]  # 11.4.12
        proof = _prove_closed(part, held, tools, opened=bundle.authority == FIRST)  # 11.4.13
        policy = next((one for one in policies if one is not None), None)
    return Opened(plan, trust, update, keys, values, tuple(staged), policy, proof, part)


def store(source: Source, opened: Opened, record: Record, held: Holdings, tools: Tools) -> tuple[Record, Holdings]:
    """11.4.14, and the receipt of 11.4.15; the record is the caller's to save before anybody hears of either."""
    number = tools.vault.find_next(held.generation)
    try:
        slots = _fill(opened, held, tools)
        for name in opened.staged:
            tools.disk.publish(f"{files.FOLDER}/{name}")
        facts = _note(source, opened, held)
        torn = {name: one for name, one in held.torn.items() if slots[name] is one}
        whole = {name: one for name, one in slots.items() if name not in torn}
        facts = facts._replace(receipt=_write_receipt(source, opened, whole, tools))
        tools.progress(f"sealing {len(slots)} slots")
        tools.vault.write(name_board(tools.board), list(slots.values()), held.generation, write_facts(facts))
    except Exception:
        _forget_files(number, opened, held, tools)
        raise
    now = Holdings(number, whole, facts, torn)
    updated = make_record(record, now, tools.board)
    return updated._replace(trust_updates=keep_update(record, tools.image, opened.update)), now


class Ticker:
    """Tells of every tenth of a long pass."""

    def __init__(self, text: str, say: Callable[[str], None]) -> None:
        self._text, self._say, self._told = text, say, 0

    def __call__(self, done: int, end: int) -> None:
        """`done` of `end` bytes."""
        tenth = 10 * done // end if end else 10
        if end >= TICK_BYTES and tenth > self._told:
            self._told = tenth
            self._say(f"{self._text}: {10 * tenth} % of {end >> 20} MiB")


def _believe(source: Source, record: Record, held: Holdings, tools: Tools) -> tuple[Trust, bytes | None]:
    """Who signed it, and whom this board believes from then on."""
    frame, facts = source.frame, held.facts
    trust = make_trust(record, tools.image)
    trust = trust._replace(epoch=max(trust.epoch, facts.epoch), now=max(trust.now, facts.of(FIRST).floor))
    if frame.bundle.authority != FIRST:
        acceptance.check_authority(frame, acceptance.find_update_key(frame.bundle.authority, held.slots))
        return trust, None
    update = frame.sign1.headers.get(registry.HEADER_TRUST_UPDATE)
    if update is not None and not isinstance(update, bytes):
        raise refuse("trust-update")
    return acceptance.check_issuer(frame, trust, update), update


def _make_keys(source: Source, held: Holdings, tools: Tools) -> Keys:
    bundle = source.frame.bundle
    expand = _find_expand(bundle.authority, held, tools)
    secret = None if bundle.secret_id is None else tools.secrets.find(bundle.secret_id)
    with told("bundle-key"):
        kek = bundlekeys.make_kek(bundle, expand, secret)
        bundlekeys.check_key(bundle, kek)
    return Keys(expand, kek)


def _find_expand(authority: str, held: Holdings, tools: Tools) -> Expand:
    if authority != FIRST:
        return partial(hkdf.expand, acceptance.find_update_key(authority, held.slots).key)
    if tools.board.class_key is None:
        raise refuse("bundle-key", "this image has shut the MP engine, so it takes no first loading")
    return partial(hkdf.expand, tools.board.class_key.extract())


@contextmanager
def _staging(disk: Disk) -> Iterator[list[str]]:
    """Names of staged files; whatever fails, none of them stays."""
    names = list[str]()
    try:
        yield names
    except Exception:
        for name in names:
            disk.unstage(f"{files.FOLDER}/{name}")
        raise


def _open_pieces(
    source: Source, plan: Plan, keys: Keys, held: Holdings, tools: Tools, staged: list[str] | None
) -> dict[str, Secret]:
    """Every component for this board, whether it is stored or not; `staged` takes the names of files that are."""
    values, kept = dict[str, Secret](), {one.number for one in plan.written if one.component.kind == files.KIND}
    number = tools.vault.find_next(held.generation)
    files.check_room(tools.disk, (one.component.size for one in plan.written if one.number in kept))
    total = sum(one.component.size for one in plan.pieces)
    told_of = Meter(total, Ticker("opening the bundle", tools.progress))
    for piece in plan.pieces:
        chunks = told_of.count(_open_piece(source, piece, keys))
        name = piece.component.name
        if piece.component.kind != files.KIND:
            values[name] = Secret(b"".join(chunks))
        elif staged is not None and piece.number in kept:
            note = files.Note(
                Secret(tools.random(files.KEY_BYTES)), piece.component.size, files.name_file(name, number)
            )
            staged.append(note.name)
            files.stage_file(tools.disk, note, chunks)
            values[name] = Secret(files.NOTE.encode(note))
        else:
            deque(chunks, maxlen=0)
    return values


class Meter:
    """Counts plain text as it goes by."""

    def __init__(self, total: int, tick: Ticker) -> None:
        self._total, self._tick, self._done = total, tick, 0

    def count(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same chunks."""
        for chunk in chunks:
            self._done += len(chunk)
            self._tick(self._done, self._total)
            yield chunk


def _open_piece(source: Source, piece: Piece, keys: Keys) -> Iterator[bytes]:
    """11.4.11. What changed since it was checked, under our hands, does not open."""
    key = bundlekeys.make_content_key(keys.kek, piece.number, piece.component.uid)
    with reading(source.path), told("bundle-open"):
        source.file.seek(source.frame.places[piece.number].offset)
        yield from open_chunks(key, source.file.read, piece.component.size)


def _prove_closed(part: SocFacts, held: Holdings, tools: Tools, *, opened: bool) -> str:
    """11.4.13. An update is under a key that says nothing of this boot: then the class key itself is looked at."""
    holds = opened or (not part.closed_by and _has_class_key(held, tools))
    return acceptance.judge_closed(part, tools.image, class_key_holds=holds)


def _has_class_key(held: Holdings, tools: Tools) -> bool:
    """Whether the running boot has the class key that opened the first loading, by its name in the vault."""
    key = tools.board.class_key
    if key is None or held.facts.mpk_id is None:
        return False
    return hmac.compare_digest(bundlekeys.make_mpk_id(partial(hkdf.expand, key.extract())), held.facts.mpk_id)


def _fill(opened: Opened, held: Holdings, tools: Tools) -> dict[str, VaultSlot]:
    """Every slot of the board once the bundle counts, in the order of the image; torn ones stay so."""
    slots = {**held.slots, **held.torn}
    for _, one, _ in opened.plan.written:
        slots[one.name] = VaultSlot(one.name, one.kind, one.destination, one.version, opened.values[one.name])
    for want in tools.image.slots:
        if want.name in opened.plan.made:
            value = Secret(tools.random(want.length))
            slots[want.name] = VaultSlot(want.name, want.kind, want.destination, LOCAL_VERSION, value)
    order = [want.name for want in tools.image.slots]
    return dict(sorted(slots.items(), key=lambda one: order.index(one[0]) if one[0] in order else len(order)))


def _note(source: Source, opened: Opened, held: Holdings) -> Facts:
    bundle = source.frame.bundle
    facts = note_bundle(held.facts, bundle, source.frame.digest, opened.policy)
    facts = facts._replace(epoch=max(facts.epoch, opened.trust.epoch))
    if opened.plan.policy is not None:
        facts = facts._replace(policy_version=opened.plan.policy.component.version)
    if bundle.authority == FIRST:
        facts = facts._replace(mpk_id=bundlekeys.make_mpk_id(opened.keys.expand))
    return facts


def _write_receipt(source: Source, opened: Opened, slots: Mapping[str, VaultSlot], tools: Tools) -> bytes:
    """11.4.15. Files are read back for it; values come back when the vault is written, and only then it is heard."""
    bundle, part, backend = source.frame.bundle, opened.part, tools.board.sealer.name
    check_key = bundlekeys.make_check_key(opened.keys.kek)
    sign = tools.board.keyring.find_or_make(labels.DEVICE_SIGN)
    life_cycle = LifeCycle.CLOSED if opened.closed_proof == "mp-key" else part.life_cycle
    receipt = BundleReceipt(
        bundle_digest=source.frame.digest,
        ueid=name_board(tools.board),
        key=sign.public_key(),
        hardware_ids={} if part.uid is None else {"imx-uid": part.uid},
        product=bundle.product,
        job=bundle.job,
        authority=bundle.authority,
        version=bundle.version,
        slots=tuple(
            SlotReceipt(one.name, backend, one.version, _make_check(one, check_key, tools)) for one in slots.values()
        ),
        skipped=tuple(one.component.name for one in opened.plan.skipped),
        rollback=tools.vault.rollback,
        closed_proof=opened.closed_proof,
        agent_version=tools.agent_version,
        life_cycle=None if life_cycle is None else int(life_cycle),
    )
    return write_receipt(
        receipt, sign.sign, bundlekeys.make_receipt_key(opened.keys.expand, bundle.product, bundle.job)
    )


def _make_check(slot: VaultSlot, check_key: Secret, tools: Tools) -> bytes:
    if slot.kind != files.KIND:
        return make_check_value(check_key, slot.name, slot.version, slot.value)
    note = files.read_note(slot)
    meter = Meter(note.size, Ticker(f"reading back {slot.name}", tools.progress))
    chunks = meter.count(files.read_file(tools.disk, note))
    try:
        return make_check_value_of_file(check_key, slot.name, slot.version, note.size, chunks)
    except Damaged as damage:
        tools.disk.remove(f"{files.FOLDER}/{note.name}")  # the next start finds the slot empty, and fills it again
        raise StorageBroke(f"slot {slot.name}: {damage}; removed, so that its bundle brings it again") from damage


def _forget_files(number: int, opened: Opened, held: Holdings, tools: Tools) -> None:
    """After a failure: files that no generation names. One that was written may count by now, and keeps its own."""
    try:
        if load_generation(tools.disk, number) is not None:
            return
    except Damaged:
        return
    for name in opened.staged:
        tools.disk.unstage(f"{files.FOLDER}/{name}")
    files.sweep(tools.disk, [*held.slots.values(), *held.torn.values()])
