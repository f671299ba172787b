"""The boot container of the provisioning image: the last thing that goes, after the one that stays was read.

Beneath a provisioning image for manufacturing protection lies an OP-TEE that lets Linux sign. An installer that writes
a root leaves it there. Where the line has written the production's container beside it, zeroing the first one is the
switch: its first sector before the others, so that no cut leaves a board without a whole container that starts.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from mpagent.errors import StorageBroke, TargetRefused
from mpagent.finish.ground import Ground
from mpagent.finish.medium import open_device, read_device
from mpagent.image import BOOT_MAX_BYTES, FinishChoice


def check_successor(ground: Ground, choice: FinishChoice) -> None:
    """Raises TargetRefused while the container that has to boot the board from then on is not there, whole."""
    assert choice.boot_new is not None and choice.boot_new_bytes is not None  # anchors.py
    node, device = ground.locate(Path(choice.boot_new))
    size, hashed = choice.boot_new_bytes, hashlib.sha256()
    if ground.measure(device) >= size:
        for part in read_device(node, size):
            hashed.update(part)
    if hashed.digest() != choice.boot_new_digest:
        raise TargetRefused(
            f"{choice.boot_new} does not hold the boot container that this image names, and without it the board would"
            f" not boot once {choice.boot_old} is gone: write it there, or correct boot_new_digest"
        )


def check_retired(ground: Ground, choice: FinishChoice) -> None:
    """Raises TargetRefused for a device that is too large to be a place of a boot container."""
    assert choice.boot_old is not None
    size = ground.measure(ground.locate(Path(choice.boot_old))[1])
    if size > BOOT_MAX_BYTES:
        raise TargetRefused(f"{choice.boot_old} has {size} bytes: no place of a boot container, and it is not zeroed")


def retire(ground: Ground, choice: FinishChoice, say: Callable[[str], None]) -> bool:
    """Zeros all over `boot_old`; whether there was anything else. The container that stays is read once more first."""
    assert choice.boot_old is not None
    node, device = ground.locate(Path(choice.boot_old))
    size = ground.measure(device)
    if is_blank(node, size):
        return False
    check_successor(ground, choice)
    say(f"{choice.boot_new} holds the boot container that stays; zeroing the one on {choice.boot_old}")
    with open_device(node) as medium:
        medium.erase_head(size)
    if not is_blank(node, size):
        raise StorageBroke(f"{choice.boot_old} does not take the zeros over its boot container")
    return True


def is_blank(node: Path, size: int) -> bool:
    """What the medium has is zeros alone."""
    return not any(any(part) for part in read_device(node, size))
