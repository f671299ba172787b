"""Image, state partition, memory and clock: what the agent itself lives on."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Final

from mpagent import lock
from mpagent.checkup.desk import Desk
from mpagent.checkup.finding import Finding, State
from mpagent.checkup.question import Question
from mpagent.compose import Device
from mpagent.errors import StorageBroke, StorageFull
from mpagent.record import FINISHED, Record
from mpwire.guard import Guarded

FREE_MIN_BYTES: Final = 8_388_608
"""Two vault generations at their largest, the record twice and the file system's own needs."""
_TEN_YEARS_S: Final = 315_360_000


def ask_home(desk: Desk) -> Iterator[Question]:
    """Nothing here touches a chip."""
    device = desk.device
    if device is None:
        return
    yield _question("state folder", lambda: _look_at_state(device))
    yield _question("latch", lambda: _look_at_latch(device))
    yield _question("vault", lambda: _look_at_vault(device))
    yield Question("clock", lambda: _look_at_clock(device.image.build_time, time.time()))


def tell_image(device: Device) -> Finding:
    """What the image is; it was read before the first question."""
    image, slots = device.image, len(device.image.slots)
    return Finding("image", State.OK, f"{image.product}, realm {image.realm}, slots wanted: {slots}")


def tell_guard(guarded: Guarded) -> Iterator[Finding]:
    """What the kernel granted this process."""
    yield _note("memory lock", guarded.memory_lock, "secrets stay out of swap")
    yield _note("core dump", guarded.core_dump, "none will be written")


def _question(ability: str, look: Callable[[], str]) -> Question:
    return Question(ability, lambda: Finding(ability, State.OK, look()))


def _note(ability: str, trouble: str | None, fine: str) -> Finding:
    return Finding(ability, State.OK, fine) if trouble is None else Finding(ability, State.NOTE, trouble)


def _look_at_state(device: Device) -> str:
    folder = device.places.state
    there = next(one for one in (folder, *folder.parents) if one.exists())
    space = os.statvfs(there)
    free = space.f_bavail * space.f_frsize
    if not there.is_dir():
        raise StorageBroke(f"{there} is not a folder")
    if space.f_flag & os.ST_RDONLY and _read_record(device).stage in FINISHED:
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


def _look_at_clock(build_time: int, now: float) -> Finding:
    """The device's clock decides nothing: certificates are held against image and ledger. Its logs are dated by it."""
    day = time.strftime("%Y-%m-%d", time.gmtime(now))
    if now < build_time:
        built = time.strftime("%Y-%m-%d", time.gmtime(build_time))
        return Finding("clock", State.NOTE, f"{day}, before the image was built ({built}); only logs follow it")
    if now > build_time + _TEN_YEARS_S:
        return Finding("clock", State.NOTE, f"{day}, over ten years after the image was built; only logs follow it")
    return Finding("clock", State.OK, f"{day}; it decides nothing")


def _read_record(device: Device) -> Record:
    return device.journal(lambda _text: None).peek()[0]
