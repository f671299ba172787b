"""A factory line for boards in QEMU: one server, one image, and as many boards as a test wants."""

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.mpserver.server import Running
from tests.qemu.board import Board, Partition, flash
from tests.qemu.guest import Outcome
from tests.qemu.office import Office

PASS_MAX_S = 240.0
"""From the job's start to PASS; about 20 s on an idle machine."""
END_MAX_S = 120.0
"""From PASS to the end of the job, which asks for secrets: about 10 s on an idle machine."""
BANNER = "#######     ####     ######    ######"
"""The first line of the huge PASS."""
CREDENTIALS = """
[[credential]]
unit = "bench-app.service"
id = "cloud-key"
slot = "cloud"

[[credential]]
volume = "data"
slot = "disk"
"""
"""The image's part of who has which secret."""
FINISH = """
[finish]
luks = "/dev/vdc"
luks_slot = "disk"
state = "/dev/vdb"
after = "stay"
"""
"""And of what becomes of the data volume."""
APP = """\
[Unit]
Requires=mpagent-provisioned.target
After=mpagent-provisioned.target
[Service]
Type=oneshot
RemainAfterExit=yes
User=nobody
LoadCredential=cloud-key:/run/mpagent-credentials/socket
StandardOutput=journal+console
ExecStart=/bin/sh -ec 'echo "BENCH-APP uid $(id -u) hash $(sha256sum <$CREDENTIALS_DIRECTORY/cloud-key | cut -c1-64)"'
"""
LATE_CLOCK = {
    "/etc/systemd/system/mpagent.service.d/clock.conf": "[Service]\nExecStartPre=+/bin/date -s @60\n",
}
"""No battery: the clock begins in 1970. systemd itself would begin at its own build, so it is set once more."""
FILES = {
    "/etc/crypttab": "data /dev/vdc /run/mpagent-credentials/socket luks,headless=1,nofail\n",
    "/etc/systemd/system/bench-app.service": APP,
    "/etc/systemd/system/mpagent-provisioned.target.d/app.conf": "[Unit]\nWants=bench-app.service\n",
}


class Line:
    """A server that runs, an image for it, and a folder for boards."""

    def __init__(self, folder: Path, office: Office, server: Running) -> None:
        self.folder, self.office, self.server = folder, office, server
        self.image = flash(folder / "image.raw", office.print_anchors() + CREDENTIALS + FINISH, FILES)
        self._made = 0

    def make_board(
        self, image: Path | None = None, partition: Partition = Partition.FILE, *, plugged: bool = True
    ) -> Board:
        """A board that nobody has switched on yet."""
        self._made += 1
        board = Board(self.folder / f"board-{self._made}", image or self.image, self.office.maker, partition)
        if plugged:
            board.plug_line(self.server.port)
        return board


def told(outcome: Outcome) -> dict[str, str]:
    """What the job says of the board, by its first word."""
    assert outcome.status == 0, outcome.output
    return dict(
        one.split(" ", 1) for one in outcome.output.splitlines() if " " in one and not one.startswith(("[", "secret "))
    )


def hashes(outcome: Outcome) -> dict[str, str]:
    """SHA-256 of secrets, as the board unsealed them."""
    words = [one.split() for one in outcome.output.splitlines() if one.startswith("secret ")]
    return {slot: digest for _, slot, digest in words}


def status(outcome: Outcome) -> Any:
    """`mpagent status --json`."""
    return json.loads(told(outcome)["status"])


def provision(board: Board) -> tuple[Outcome, str]:
    """The first boot, to PASS and to power off; with the console."""
    with board.boot("provision") as guest:
        guest.wait_for("BENCH-PROVISIONED", PASS_MAX_S)
        outcome = guest.finish(END_MAX_S)
        return outcome, guest.console()


def find_secrets(line: Line, board: Board) -> list[str]:
    """Disks of the board on which a value that any board was given, or that it made, stands in the clear."""
    local = board.work / "secret-disk"
    return find_values(line.office, [local.read_bytes()] if local.exists() else [], board)


def find_values(office: Office, made: Iterable[bytes], board: Board) -> list[str]:
    """The same for the boards of one OEM; `made`: what the board gave itself."""
    values = [value for found in office.secrets().values() for value in found]
    return look_for([*values, *made], board.kept())


def look_for(values: Iterable[bytes], disks: Mapping[str, bytes]) -> list[str]:
    """Disks on which a value stands in the clear: as it is, as digits of either case, in base64 or its URL form."""
    forms = {form for value in values for form in spell(value)}
    return [name for name, raw in disks.items() if any(form in raw for form in forms)]


def spell(value: bytes) -> list[bytes]:
    """How somebody could have written it."""
    digits = value.hex().encode()
    return [value, digits, digits.upper(), b64encode(value).rstrip(b"="), urlsafe_b64encode(value).rstrip(b"=")]
