"""Boards that take no bundle. Each returns the check that refused it, after making sure that nothing was kept.

A check is named as in docs/wire.md 11.4; `--json` of both commands tells it.
"""

from pathlib import Path
from typing import Final

from mpsim.demo.expecting import expect
from mpsim.demo.offline.boards import Note, OfflineBoard, read_error

OPERATOR: Final = 77
PEER_BROKE: Final = 76
DAMAGED: Final = 65
"""Exit codes of mpagent (docs/operate.md)."""
FOREIGN_DISK: Final = "this disk belongs to another board"


def refuse_apply(board: OfflineBoard, bundle: Path, check: str, code: int, note: Note) -> str:
    """`mpagent offline apply` ends with this code and this check, and what the board keeps is as before."""
    before = board.snapshot()
    done, result = board.apply(bundle, note)
    expect(f"{board.name}: {check}", (code, check), (done.code, read_error(result).get("check")), board.log)
    expect(f"{board.name}: what it keeps", before, board.snapshot(), board.log)
    return check


def refuse_start(board: OfflineBoard, check: str, code: int, note: Note) -> str:
    """`mpagent enroll` finds a bundle that it does not take; the board holds nothing."""
    done, result = board.enroll(note)
    expect(f"{board.name}: {check}", (code, check), (done.code, read_error(result).get("check")), board.log)
    expect(f"{board.name}: slots on the board", [], board.read_status()["slots"], board.log)
    return check


def refuse_disk(thief: OfflineBoard, victim: OfflineBoard, note: Note) -> str:
    """The whole disk of a finished board, on another chip."""
    thief.copy_disk(victim)
    before = thief.snapshot()
    done, result = thief.enroll(note)
    text = str(read_error(result).get("text", ""))
    came = (done.code, FOREIGN_DISK if FOREIGN_DISK in text else text)
    expect("cloned-disk", (DAMAGED, FOREIGN_DISK), came, thief.log)
    expect("cloned-disk: what lies on it", before, thief.snapshot(), thief.log)
    return FOREIGN_DISK
