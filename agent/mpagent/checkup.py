"""The questions of `mpagent doctor`, each answered on one line with its cause and the next step."""

import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from mpagent import lock
from mpagent.advice import say
from mpagent.compose import Device
from mpagent.hal.ports import Board
from mpwire.errors import MpError
from mpwire.guard import Guarded
from mpwire.secret import Secret

if TYPE_CHECKING:
    from mpagent.link import Route
    from mpagent.record import Record

FREE_MIN_BYTES: Final = 8_388_608
"""Two vault generations at their largest, the record twice and the file system's own needs."""


class Finding(NamedTuple):
    """One answer."""

    ability: str
    state: str
    """ok, note (works, but somebody should know) or FAIL."""
    text: str
    exit_code: int = 0


def examine(device: Device, guarded: Guarded) -> Iterator[Finding]:
    """Every ability in the order an enrollment needs them. Changes nothing; the chip seals one throw-away key."""
    image = device.image
    yield Finding("image", "ok", f"{image.product}, realm {image.realm}, {len(image.slots)} slots wanted")
    yield _ask("state folder", lambda: _look_at_state(device))
    yield _ask("latch", lambda: _look_at_latch(device))
    yield _ask("vault", lambda: _look_at_vault(device))
    yield _note("memory lock", guarded.memory_lock, "secrets stay out of swap")
    yield _note("core dump", guarded.core_dump, "none will be written")
    try:
        with device.open_board() as board:
            yield from _examine_board(device, board)
    except MpError as error:
        yield _failed("board", error)
    yield _ask("server", lambda: _look_at_server(device))


def _examine_board(device: Device, board: Board) -> Iterator[Finding]:
    yield _ask("chip", lambda: _describe_chip(board))
    yield _ask("attester", lambda: _describe_attester(board))
    yield _ask("sealer", lambda: _try_sealer(board))
    yield _look_at_life_cycle(device, board)
    if board.counter is None:
        yield Finding("anti-rollback", "note", "none: this board has no counter, a restored old disk is not noticed")
    else:
        counter = board.counter
        yield _ask("anti-rollback", lambda: f"{counter.kind}, at {counter.read()}")


def _ask(ability: str, question: Callable[[], str]) -> Finding:
    try:
        return Finding(ability, "ok", question())
    except MpError as error:
        return _failed(ability, error)


def _failed(ability: str, error: MpError) -> Finding:
    return Finding(ability, "FAIL", say(error), error.exit_code)


def _note(ability: str, trouble: str | None, fine: str) -> Finding:
    return Finding(ability, "ok", fine) if trouble is None else Finding(ability, "note", trouble)


def _look_at_state(device: Device) -> str:
    from mpagent.errors import StorageBroke, StorageFull
    from mpagent.record import Stage

    folder = device.places.state
    there = next(one for one in (folder, *folder.parents) if one.exists())
    space = os.statvfs(there)
    free = space.f_bavail * space.f_frsize
    if not there.is_dir():
        raise StorageBroke(f"{there} is not a folder")
    if space.f_flag & os.ST_RDONLY and _read_record(device).stage is Stage.DONE:
        return "read-only, which is enough for a finished board"
    if space.f_flag & os.ST_RDONLY or not os.access(there, os.W_OK):
        raise StorageFull(f"{there} cannot be written")
    if free < FREE_MIN_BYTES:
        raise StorageFull(f"{there} has {free // 1024} KiB left, an enrollment may need {FREE_MIN_BYTES // 1024}")
    holder = lock.read_holder(folder)
    return f"{free // 1_048_576} MiB free" + (f"; {holder} runs now" if holder else "")


def _look_at_latch(device: Device) -> str:
    device.latch.check()
    return "not latched"


def _look_at_vault(device: Device) -> str:
    """Whole on disk; whether this chip opens it, `enroll` shows."""
    from mpagent.report import list_slots

    record = _read_record(device)
    if not record.generation:
        return "empty: this board has no secrets yet"
    return f"generation {record.generation}, {len(list_slots(device.disk, record.generation))} slots"


def _read_record(device: Device) -> "Record":
    return device.journal(lambda _text: None).peek()[0]


def _describe_chip(board: Board) -> str:
    facts = board.soc.read_facts()
    return f"{facts.family}, uid {facts.uid.hex() if facts.uid is not None else 'not readable'}"


def _describe_attester(board: Board) -> str:
    material = board.attester.describe()
    return f"{material.kind}, id {material.attester_id.hex()}"


def _try_sealer(board: Board) -> str:
    from mpagent.errors import HardwareGone

    key = Secret(os.urandom(32))
    if board.sealer.unseal(board.sealer.seal(key)) != key:
        raise HardwareGone("the sealer gives back another key than it sealed")
    return f"{board.sealer.name}, sealed and unsealed a key"


def _look_at_life_cycle(device: Device, board: Board) -> Finding:
    """What an enrollment would accept before it seals (step 4.10): the fuse bit alone is no proof."""
    from mpagent.enrollment import prove_closed

    try:
        proof = prove_closed(board, device.image, os.urandom)
        known = board.soc.read_facts().life_cycle
    except MpError as error:
        return _failed("life cycle", error)
    words = "not knowable on this board" if known is None else known.name.lower().replace("_", " ")
    if proof == "none":
        return Finding("life cycle", "note", f"{words}; this product takes open parts")
    return Finding("life cycle", "ok", f"{words}, shown in this boot by {proof}")


def _look_at_server(device: Device) -> str:
    """A TLS handshake with every check of the link; not one byte of a message."""
    route = device.route(_read_record(device))
    start = time.monotonic()
    return f"{route.server}, {_probe(route)}, {(time.monotonic() - start) * 1000:.0f} ms"


def _probe(route: "Route") -> str:
    from mpagent import transport

    return transport.probe(route, time.monotonic)
