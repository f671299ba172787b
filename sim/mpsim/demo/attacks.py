"""Seven attacks. Each returns what refused it, after making sure that it was this very check and no other.

A reason is the check's name as docs/wire.md has it, or the agent's own words where no check of the wire is meant.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mpsim.demo.boards import LineBoard
from mpsim.demo.expecting import expect
from mpsim.demo.office import JOB, QUOTA, Office
from mpsim.demo.tap import Oem, Tap
from mpwire import limits, registry
from mpwire.codec import decode
from mpwire.errors import Malformed
from mpwire.messages.plain import CHALLENGE, PROOF, REFUSAL

OPERATOR: Final = 77
DAMAGED: Final = 65
PEER_BROKE: Final = 76
"""Exit codes of mpagent (docs/operate.md)."""
UNKNOWN_AUTHORITY: Final = "certificate is not under the roots of this image"
FOREIGN_DISK: Final = "this disk belongs to another board"
Note = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Recording:
    """One whole enrollment as a proxy saw it: what the board said, and what it was told."""

    heard: list[bytes]
    said: list[bytes]
    log: Path

    @property
    def hello(self) -> bytes:
        """1."""
        return self.heard[0]

    @property
    def proof(self) -> bytes:
        """3."""
        return self.heard[1]

    @property
    def closed(self) -> bytes:
        """6."""
        return self.said[2]


def open_board(board: LineBoard, note: Note) -> str:
    """Genuine silicon whose fuses nobody has closed; its test key is registered, so that the life cycle decides."""
    return _refused_by_server(board, "life-cycle", note)


def clone(board: LineBoard, office: Office, original: str, note: Note) -> str:
    """The chip identity of a good board, under device keys of the cloner's own. The good one stays as it was."""
    reason = _refused_by_server(board, "clone", note)
    unit = office.ask("device", "show", original)
    alarms = [alarm["kind"] for alarm in unit["alarms"]]
    expect("clone: the good board", ("provisioned", ["clone"]), (unit["state"], alarms), office.log)
    return reason


def over_quota(board: LineBoard, office: Office, note: Note) -> str:
    """A fifth good board, on a job for four."""
    reason = _refused_by_server(board, "quota", note)
    job = office.ask("job", "show", JOB)
    expect("over-quota: boards counted", (QUOTA, QUOTA), (job["granted"], job["quota"]), office.log)
    return reason


def cloned_disk(board: LineBoard, note: Note) -> str:
    """The whole disk of a finished board, on another chip: it stops before it asks anybody."""
    before = board.snapshot()
    done, result = board.enroll(note)
    text = _error_of(result).get("text", "")
    came = (done.code, FOREIGN_DISK if FOREIGN_DISK in text else text)
    expect("cloned-disk", (DAMAGED, FOREIGN_DISK), came, board.log)
    expect("cloned-disk: what lies on it", before, board.snapshot(), board.log)
    return FOREIGN_DISK


def wrong_server_ca(board: LineBoard, stranger: Office, home: str, note: Note) -> str:
    """A server with a CA of its own on the line: TLS ends before the board has said a byte of the exchange."""
    board.connect(stranger.address)
    done, result = board.enroll(note)
    board.connect(home)
    text = _error_of(result).get("text", "")
    came = (done.code, UNKNOWN_AUTHORITY if UNKNOWN_AUTHORITY in text else text)
    expect("wrong-server-ca", (PEER_BROKE, UNKNOWN_AUTHORITY), came, board.log)
    expect("wrong-server-ca: slots on the board", [], board.read_status()["slots"], board.log)
    return UNKNOWN_AUTHORITY


def tampered_grant(board: LineBoard, office: Office, oem: Oem, note: Note) -> str:
    """A proxy under the OEM's own root flips one bit of the Grant. What the board keeps is as before."""
    before: list[dict[str, str]] = []

    def change(answer: bytes) -> bytes:
        if message_of(answer) != registry.GRANT:
            return answer
        before.append(board.snapshot())
        return answer[:-1] + bytes([answer[-1] ^ 1])

    with Tap(oem, office.identity, change) as tap:
        board.connect(tap.address)
        done, result = board.enroll(note)
    board.connect(oem.address)
    came = (done.code, _error_of(result).get("text"))
    expect("tampered-grant", (PEER_BROKE, "grant-signature"), came, board.log)
    expect("tampered-grant: record and vault", before, [board.snapshot()], board.log)
    expect("tampered-grant: slots on the board", [], board.read_status()["slots"], board.log)
    return "grant-signature"


def replayed_proof(recording: Recording, oem: Oem) -> str:
    """A finished board's Proof again: the stored Closed. Its signatures around a new challenge: refused."""
    again = replay(recording, oem)
    challenge = oem.ask(recording.hello)[1]
    expect("replayed-proof: a new challenge", registry.CHALLENGE, message_of(challenge), recording.log)
    CHALLENGE.decode(challenge, limits.CHALLENGE_MAX_BYTES)
    proof = PROOF.decode(recording.proof, limits.PROOF_MAX_BYTES)
    answer = oem.ask(PROOF.encode(proof._replace(challenge=challenge)))[1]
    expect("replayed-proof: the answer", registry.REFUSAL, message_of(answer), recording.log)
    check = REFUSAL.decode(answer, limits.REFUSAL_MAX_BYTES).check
    expect("replayed-proof: around a new challenge", "nonce", check, recording.log)
    return f"{again}; new challenge: {check}"


def replay(recording: Recording, oem: Oem) -> str:
    """The same Proof once more: the very Closed that the board got, and no Grant."""
    answer = oem.ask(recording.proof)[1]
    expect("replayed-proof: the answer", registry.CLOSED, message_of(answer), recording.log)
    expect("replayed-proof: the stored Closed", recording.closed.hex(), answer.hex(), recording.log)
    return "stored Closed, no Grant"


def message_of(raw: bytes) -> int:
    """Which message an issuer's answer is; 0 for none of wire version 1."""
    if raw[:1] == b"\xd2":  # a tagged COSE_Sign1: of what issuers say, only a Grant is one
        return registry.GRANT
    try:
        item = decode(raw)
    except Malformed:
        return 0
    number = item.get(0) if isinstance(item, dict) else None
    return number if isinstance(number, int) else 0


def _refused_by_server(board: LineBoard, check: str, note: Note) -> str:
    done, result = board.enroll(note)
    expect(board.name, (OPERATOR, check), (done.code, _error_of(result).get("check")), board.log)
    expect(f"{board.name}: slots on the board", [], board.read_status()["slots"], board.log)
    return check


def _error_of(result: dict[str, Any]) -> dict[str, Any]:
    found = result.get("error", {})
    return found if isinstance(found, dict) else {}
