"""One run of the finisher, top to bottom: believe the order, look at every device, then write.

It is called again at every boot and after every cut; each verb finds out by itself how far it came.
"""

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Final, NamedTuple

from mpagent.belonging import check_chip
from mpagent.compose import Device
from mpagent.errors import InstallFailed, Refused, TargetRefused, Unordered
from mpagent.finish import install
from mpagent.finish.container import check_retired, check_successor, retire
from mpagent.finish.fetch import SOCKET, Range, check_range, fetch
from mpagent.finish.ground import Extent, Ground, check_target
from mpagent.finish.luks import Volume, name_volume
from mpagent.finish.medium import CHUNK_BYTES, open_device, open_spool
from mpagent.finish.notes import Notebook, open_notebook
from mpagent.finish.order import INSTALL, LUKS, RETIRE, check_order, read_boot_id, read_order
from mpagent.finish.program import RAUC, SWUPDATE, SYSTEMCTL, Programs
from mpagent.hal.ports import Board
from mpagent.image import FinishChoice
from mpagent.keptgrant import reopen
from mpagent.record import FINISHED, Record
from mpagent.vault import Unlocked
from mpwire.messages.grant import Manifest
from mpwire.secret import Secret

_INSTALLERS: Final = {"rauc": (RAUC, "install"), "swupdate": (SWUPDATE, "-i")}
"""What takes a verified file, and the one word before its path."""


class Plan(NamedTuple):
    """What this boot's order comes to: all of it verified, nothing written yet."""

    verbs: tuple[str, ...]
    choice: FinishChoice
    ueid: bytes
    manifest: Manifest | None
    key: Secret | None
    old_key: Secret | None


def make_plan(device: Device, board: Board) -> Plan:
    """Raises Unordered, Tampered, Refused, TargetRefused. Changes nothing, whoever is wrong."""
    choice, record = device.image.finish, device.journal(lambda _text: None).peek()[0]
    if choice is None or record.stage not in FINISHED or record.ueid is None:
        raise Unordered("this board is not provisioned, or its image asks for nothing after that")
    order = read_order(device.disk, read_boot_id(device.places.root))
    check_chip(record, board)
    unlocked = device.vault(board).unlock(record.ueid, record.generation)
    check_order(order, record, choice, unlocked)
    plan = Plan(
        order.verbs,
        choice,
        record.ueid,
        _find_manifest(device, board, record, choice),
        _find_key(unlocked, choice.luks_slot),
        _find_key(unlocked, choice.old_key_slot),
    )
    _check_targets(device, plan)
    return plan


def carry_out(device: Device, plan: Plan, say: Callable[[str], None]) -> tuple[str, ...]:
    """Every verb in its order; the names of those that had something to do."""
    programs, done = Programs(device.places.root), list[str]()
    with open_notebook(device.places.state) as notebook:
        if LUKS in plan.verbs and _encrypt(device, plan, programs, notebook, say):
            done.append(LUKS)
        if INSTALL in plan.verbs and _install(device, plan, programs, notebook, say):
            done.append(INSTALL)
        if RETIRE in plan.verbs and retire(Ground(device.places.root), plan.choice, say):
            done.append(RETIRE)
    last = plan.verbs[-1]
    if last == "stay":
        return tuple(done)
    if not done:
        say(f"all was finished in an earlier boot, and this image still runs: no {last}; look at the boot order")
        return ()
    say(f"finished; {last}")
    ended = programs.run(SYSTEMCTL, ("--no-block", last))
    if ended.code != 0:
        raise InstallFailed(f"systemctl {last} failed: {ended.error or ended.code}")
    return (*done, last)


def _find_manifest(device: Device, board: Board, record: Record, choice: FinishChoice) -> Manifest | None:
    """The next image, out of the Grant whose signature is checked here once more."""
    if choice.installer is None:
        return None
    accepted = reopen(record, device.image, board.keyring)
    manifest = None if accepted is None else accepted.contents.manifest
    if manifest is None:
        raise Refused("next-image", "this image installs another one, and the Grant of this board names none")
    check_range(Range(manifest.path, 0, manifest.size, manifest.size))
    return manifest


def _find_key(unlocked: Unlocked, slot: str | None) -> Secret | None:
    found = None if slot is None else unlocked.read(slot)
    if slot is not None and found is None:
        raise Refused("finish-slot", f"[finish] names slot {slot!r}, which this board does not hold")
    return None if found is None else found.value


def _check_targets(device: Device, plan: Plan) -> None:
    """Every device before any is written."""
    ground, choice, folder = Ground(device.places.root), plan.choice, device.places.state
    written = list(_list_written(plan))
    for _, path, size in written:
        assert choice.state is not None  # anchors.py
        check_target(ground, Path(path), size, Path(choice.state), folder)
    kept = [] if choice.boot_new is None else [Span("the boot container that stays, on", choice.boot_new, None)]
    for one, other in combinations([*written, *kept], 2):
        if _meet(ground, one, other):
            raise TargetRefused(f"{one.what} {one.path} would overwrite {other.what} {other.path}")
    if choice.boot_old is not None:
        check_retired(ground, choice)
        check_successor(ground, choice)


class Span(NamedTuple):
    """What is written, or has to stay: `size` bytes of a device, or all of it."""

    what: str
    path: str
    size: int | None


def _list_written(plan: Plan) -> Iterator[Span]:
    choice = plan.choice
    if plan.manifest is not None and choice.installer == "raw":
        assert choice.target is not None
        yield Span("the image on", choice.target, plan.manifest.size)
    if choice.luks is not None:
        yield Span("the encrypted partition", choice.luks, None)
    if choice.boot_old is not None:
        yield Span("the boot container that goes, on", choice.boot_old, None)


def _meet(ground: Ground, one: Span, other: Span) -> bool:
    return any(some.meets(more) for some in _find_bytes(ground, one) for more in _find_bytes(ground, other))


def _find_bytes(ground: Ground, span: Span) -> list[Extent]:
    """Of several extents below one device each may take all of the size."""
    below = ground.find_extents(ground.locate(Path(span.path))[1])
    return [one if span.size is None else one._replace(end=min(one.end, one.start + span.size)) for one in below]


def _encrypt(device: Device, plan: Plan, programs: Programs, notebook: Notebook, say: Callable[[str], None]) -> bool:
    choice = plan.choice
    assert choice.luks is not None and choice.luks_slot is not None and plan.key is not None
    node = Ground(device.places.root).locate(Path(choice.luks))[0]
    uuid = name_volume(plan.ueid, choice.luks_slot)
    volume = Volume(programs, node, plan.key, uuid, plan.old_key, notebook.notes.volume == uuid, say)
    changed = volume.make()
    if notebook.notes.volume != uuid:
        notebook.save(notebook.notes._replace(volume=uuid))
    return changed


def _install(device: Device, plan: Plan, programs: Programs, notebook: Notebook, say: Callable[[str], None]) -> bool:
    choice, manifest = plan.choice, plan.manifest
    assert choice.target is not None and manifest is not None
    if notebook.notes.installed and notebook.notes.digest == manifest.digest:
        return False
    root = device.places.root
    opened = root / Path(choice.target).relative_to("/")
    is_raw = choice.installer == "raw"
    medium = (
        open_device(Ground(root).locate(Path(choice.target))[0]) if is_raw else open_spool(root, opened, manifest.size)
    )
    head_bytes = install.HEAD_BYTES if is_raw else 0
    with medium as target:
        install.Installing(
            manifest, target, lambda one: fetch(root / SOCKET, one, CHUNK_BYTES), notebook, say, head_bytes
        ).fill()
    if not is_raw:
        assert choice.installer is not None
        program, word = _INSTALLERS[choice.installer]
        say(f"handing the verified image to {choice.installer}")
        ended = programs.run(program, (word, str(opened)))
        if ended.code != 0:
            raise InstallFailed(f"{choice.installer} failed: {ended.error or f'code {ended.code}'}")
    notebook.save(notebook.notes._replace(installed=True))
    if not is_raw:
        opened.unlink()
    return True
