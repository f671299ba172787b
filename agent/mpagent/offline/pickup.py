"""One run of a board that is provisioned by bundles: find what it holds, take what is there, show that all opens.

The journal is the same as over a line: whatever counts is durable before anybody hears of it, and the next run goes on
from wherever this one was cut.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from mpagent.advice import say
from mpagent.belonging import check_flow
from mpagent.durable import Damaged
from mpagent.errors import BundleBroke, ConfigWrong, MediumBroke, NoBundle, NotClosed, StorageFull, Tampered
from mpagent.offline import files
from mpagent.offline.apply import Opened, Tools, open_all, store
from mpagent.offline.holdings import Holdings, find_holdings, make_record
from mpagent.offline.receipts import export_receipts, keep_receipt
from mpagent.offline.sources import Source, list_bundles, open_bundle
from mpagent.offline.wiping import wipe
from mpagent.ports import Journal, Latch
from mpagent.record import Record, Stage
from mpagent.slots import VaultSlot
from mpwire.errors import MpError
from mpwire.jobsecret import Mistyped
from mpwire.messages.bundle import AUTHORITIES

_PASSED_OVER: Final = (BundleBroke, NoBundle, NotClosed, MediumBroke, StorageFull, Mistyped)
"""Of a bundle that a provisioned board does not need: what a stranger's stick holds must not stop it."""


class Parts(NamedTuple):
    """All that one run needs."""

    journal: Journal
    latch: Latch
    tools: Tools
    places: tuple[Path, ...]
    receipts: Path | None


class Outcome(NamedTuple):
    """What became of one bundle."""

    path: Path
    authority: str
    version: int
    taken_before: bool
    opened: Opened | None
    trouble: str | None
    """Why it could not be wiped."""


class Result(NamedTuple):
    """How the board stands at the end."""

    record: Record
    held: Holdings
    outcomes: tuple[Outcome, ...] = ()
    not_exported: str | None = None
    """Why the receipts do not lie where the line collects them."""


class State(NamedTuple):
    """Where a run is."""

    record: Record
    held: Holdings


def pick_up(parts: Parts) -> Result:
    """`mpagent enroll`: take what lies in the configured places, then show that every slot opens in this boot.

    Raises NoBundle where the board holds nothing and nothing is there. Tampered is latched before it leaves here.
    """
    return _latching(parts, lambda: _pick_up(parts))


def apply_one(parts: Parts, path: Path) -> Result:
    """`mpagent offline apply`: this bundle, or the reason why not."""

    def run() -> Result:
        state = _begin(parts)
        state, outcome = _take(parts, state, path)
        return _end(parts, state, (outcome,))

    return _latching(parts, run)


def try_one(parts: Parts, record: Record, path: Path) -> Outcome:
    """`--dry-run`: every check, every component opened, and nothing stored."""
    tools = parts.tools
    parts.latch.check()
    check_flow(record, tools.image)
    held = _without_torn(find_holdings(record, tools.board, tools.vault, tools.disk), tools)
    with open_bundle(path) as source:
        opened = None if _is_taken(source, held) else open_all(source, record, held, tools, keep=False)
        return _tell(source, opened)


def _latching(parts: Parts, run: Callable[[], Result]) -> Result:
    parts.latch.check()
    try:
        return run()
    except Tampered as why:
        parts.latch.close(why)
        raise


def _pick_up(parts: Parts) -> Result:
    state = _begin(parts)
    outcomes, refused = list[Outcome](), list[tuple[Path, MpError]]()
    for path in _sort(parts.places):
        try:
            state, outcome = _take(parts, state, path)
            outcomes.append(outcome)
        except _PASSED_OVER as error:
            refused.append((path, error))
    is_wanting = state.held.generation == 0 or bool(state.held.torn)
    for path, why in refused[1:] if is_wanting else refused:
        parts.tools.progress(f"{path}: {say(why)}")
    if is_wanting:
        raise refused[0][1] if refused else _explain_nothing(state, parts)
    return _end(parts, state, tuple(outcomes))


def _explain_nothing(state: State, parts: Parts) -> MpError:
    if state.held.generation:
        return NoBundle(f"slot {next(iter(state.held.torn))!r} is not held whole any more: put its bundle there again")
    if not parts.places:
        return ConfigWrong('no place for bundles is set; write bundle = "/PATH" in mpagent.toml, or use offline apply')
    return NoBundle(f"no bundle yet at {', '.join(map(str, parts.places))}")


def _begin(parts: Parts) -> State:
    """From wherever the last run was cut: find what counts, and say so in the record before anything else."""
    tools, record = parts.tools, parts.journal.load()
    check_flow(record, tools.image)
    held = find_holdings(record, tools.board, tools.vault, tools.disk)
    if held.generation and (record.stage is not Stage.APPLIED or record.generation != held.generation):
        record = make_record(record, held, tools.board)
        parts.journal.save(record)
    _tidy(tools, held)
    return State(record, _without_torn(held, tools))


def _take(parts: Parts, state: State, path: Path) -> tuple[State, Outcome]:
    """One bundle, from its first byte to its last (docs/wire.md 11.4)."""
    tools = parts.tools
    with open_bundle(path) as source:
        opened = None
        if not _is_taken(source, state.held):
            tools.progress(f"{path}: {source.frame.bundle.authority} version {source.frame.bundle.version}")
            opened = open_all(source, state.record, state.held, tools, keep=True)
            record, held = store(source, opened, state.record, state.held, tools)
            parts.journal.save(record)  # durable before anyone can hear of it
            _tidy(tools, held)
            state = State(record, held)
        trouble = wipe(source) if tools.image.wipes else None
        if trouble is not None:
            tools.progress(f"{trouble}; the bundle is taken all the same")
        return state, _tell(source, opened)._replace(trouble=trouble)


def _end(parts: Parts, state: State, outcomes: tuple[Outcome, ...]) -> Result:
    """Every slot was unsealed in this run, when it began or when it was written."""
    tools = parts.tools
    trouble = "no folder is set for receipts"
    if parts.receipts is not None:
        trouble = export_receipts(tools.disk, parts.receipts) or ""
    if trouble:
        tools.progress(f"the receipt stays on the board: {trouble}")
    tools.progress(f"provisioned; {len(state.held.slots)} slots unsealed just now")
    return Result(state.record, state.held, outcomes, trouble or None)


def _tidy(tools: Tools, held: Holdings) -> None:
    """What the durable record does not name goes, and the receipt of what it names is kept as a file."""
    if held.generation:
        tools.vault.discard_others(held.generation)
        keep_receipt(tools.disk, held.facts.receipt)
    files.sweep(tools.disk, [*held.slots.values(), *held.torn.values()])


def _without_torn(held: Holdings, tools: Tools) -> Holdings:
    """A file that is torn counts as not held, so that the next bundle may bring it again."""
    slots, torn = dict(held.slots), dict[str, VaultSlot]()
    for one in held.slots.values():
        if one.kind == files.KIND:
            try:
                files.probe_file(tools.disk, files.read_note(one))
            except Damaged as damage:
                tools.progress(f"slot {one.name}: {damage}; a bundle has to bring it again")
                torn[one.name] = slots.pop(one.name)
    return held._replace(slots=slots, torn=torn)


def _is_taken(source: Source, held: Holdings) -> bool:
    """This very bundle counts already, and nothing that it could bring is missing."""
    before = held.facts.of(source.frame.bundle.authority)
    return before.version > 0 and before.digest == source.frame.digest and not held.torn


def _tell(source: Source, opened: Opened | None) -> Outcome:
    bundle = source.frame.bundle
    return Outcome(source.path, bundle.authority, bundle.version, opened is None, opened, None)


def _sort(places: Sequence[Path]) -> list[Path]:
    """First loadings before updates, and of one authority the newest first; what is none keeps its place at the end.

    Nothing here is authentic yet: whoever makes a version up is only looked at first.
    """
    found = list[tuple[int, int, int, Path]]()
    for number, path in enumerate(list_bundles(places)):
        try:
            with open_bundle(path) as source:
                bundle = source.frame.bundle
                found.append((AUTHORITIES.index(bundle.authority), -bundle.version, number, path))
        except _PASSED_OVER:
            found.append((len(AUTHORITIES), 0, number, path))
    return [path for *_, path in sorted(found)]
