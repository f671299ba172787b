"""A board installs its production image by the line; that image boots, has every secret, and reports it."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.mpserver.server import Running
from tests.qemu.board import Partition, flash
from tests.qemu.factory import (
    BANNER,
    CREDENTIALS,
    END_MAX_S,
    FILES,
    PASS_MAX_S,
    find_values,
    hashes,
    status,
    told,
)
from tests.qemu.guest import Guest, Outcome
from tests.qemu.office import Office
from tests.qemu.production import (
    CONTAINER_BYTES,
    PRODUCTION,
    PROVISIONING,
    PlainBoard,
    ProductionBoard,
    describe_containers,
    flash_production,
)

INSTALL_MAX_S = 600.0
"""From PASS to the reset: about 60 s on an idle machine, most of it for TLS and SHA-256 under emulation."""
FINISH = """
[finish]
luks = "/dev/vdc"
luks_slot = "disk"
installer = "raw"
target = "{target}"
state = "/dev/vdb3"
after = "reboot"
"""
VERSION = "2.0.0"
PROGRESS = re.compile(rf"image {re.escape(VERSION)}: (\d+) % of")


class Plant(NamedTuple):
    """An OEM whose product has a production image, and the provisioning images of its line."""

    folder: Path
    office: Office
    server: Running
    image: bytes

    def make_board(self, name: str, kind: type[ProductionBoard], finish: str, partition: Partition) -> ProductionBoard:
        """A board that nobody has switched on yet, with an image that finishes so."""
        anchors = self.office.print_anchors() + CREDENTIALS + finish
        image = flash(self.folder / f"{name}.raw", anchors, FILES)
        board = kind(self.folder / name, image, self.office.maker, partition)
        board.plug_line(self.server.port)
        return board

    def unit(self, ueid: str) -> Any:
        """What the OEM knows of it."""
        return self.office.ask("device", "show", ueid)


@pytest.fixture(scope="module")
def plant() -> Iterator[Plant]:
    with tempfile.TemporaryDirectory(prefix="mpplant-") as name:
        folder = Path(name)
        office = Office(folder / "office", quota=10)
        anchors = 'phase = "final"\n' + office.print_anchors("production", VERSION) + CREDENTIALS
        image = flash_production(folder / "production.raw", anchors, FILES)
        office.offer_image(image, VERSION)
        with office.serve() as server:
            yield Plant(folder, office, server, image.read_bytes())


def read_job(board: ProductionBoard) -> Outcome:
    """What the job of a boot said that it did not end itself."""
    return Outcome(0, (board.work / "output").read_text(errors="replace"))


def list_progress(guest: Guest) -> list[int]:
    """Percentages as the console has them."""
    return [int(found) for found in PROGRESS.findall(guest.console())]


def await_progress(guest: Guest, least: int) -> None:
    """Until so many percent are there; a line comes every five seconds."""
    guest.wait_until(
        lambda line: any(int(at) >= least for at in PROGRESS.findall(line)), f"{least} % of the image", INSTALL_MAX_S
    )


def check_production(plant: Plant, board: ProductionBoard, first: Outcome) -> None:
    """It boots what was installed; every secret is the one that was sealed; the OEM has its final receipt."""
    assert board.root_device() == "/dev/vdb4"
    with board.boot("production") as guest:
        outcome = guest.finish(PASS_MAX_S + END_MAX_S)
        console = guest.console()
    said, found = told(outcome), status(outcome)
    assert (said["target"], said["lockout"], said["root"]) == ("active", "0x0", "/dev/vdb4"), outcome.output
    assert BANNER in console and found["stage"] == "final" and found["ueid"] == status(first)["ueid"]
    assert hashes(outcome) == hashes(first) and len(hashes(first)) == 2
    assert said["volume"].startswith("active"), said["volume"]
    app = next(line for line in console.splitlines() if "BENCH-APP" in line)
    assert app.split()[-1] == hashes(first)["cloud"]
    unit = plant.unit(found["ueid"])
    assert unit["state"] == "provisioned" and isinstance(unit["final_index"], int), unit


def test_production_image_is_installed_booted_and_reports_with_every_secret(plant: Plant) -> None:
    """T-587 Open door: the provisioning build's boot container ships. The line breaks again and again, and no range of
    the image is lost."""
    before = plant.office.counted()
    finish = FINISH.format(target="/dev/vdb4") + describe_containers()
    board = plant.make_board("whole", ProductionBoard, finish, Partition.FILE)
    board.plug_line(plant.server.port, breaks_after=len(plant.image) * 2 // 5)
    with board.boot("finish") as guest:
        guest.wait_for("BENCH-PROVISIONED", PASS_MAX_S)
        assert board.root_device() == "/dev/vda"
        guest.await_reboot(INSTALL_MAX_S)
        console = guest.console()
        progress = list_progress(guest)
    first = read_job(board)
    assert BANNER in console and told(first)["target"] == "active"
    assert "reading the image back from the medium" in console and "zeroing the one on /dev/vdb1" in console
    assert progress == sorted(progress) and [at for at in progress if at >= 40], progress
    assert board.read(4, len(plant.image)) == plant.image
    assert board.read(1) == bytes(CONTAINER_BYTES) and board.read(2, len(PRODUCTION)) == PRODUCTION
    assert board.volume.read_bytes()[:6] == b"LUKS\xba\xbe"
    check_production(plant, board, first)
    assert plant.office.counted() == before + 1

    board.plug_line(0)
    calls = board.calls()
    with board.boot("production") as guest:
        again = guest.finish(PASS_MAX_S + END_MAX_S)
    assert (told(again)["target"], status(again)["stage"], board.calls()) == ("active", "final", calls)
    local = (board.work / "secret-disk").read_bytes()
    assert find_values(plant.office, [local], board) == []


def test_power_cut_in_the_middle_of_the_image_is_gone_on_from(plant: Plant) -> None:
    """T-588 Accident: the plug is pulled while the image is written, then while it is read back; the disk loses its
    cache each time. Each next boot goes on, the last one ends it."""
    finish = FINISH.format(target="/dev/vdb4")
    board = plant.make_board("cut", PlainBoard, finish, Partition.VOLATILE)
    before = plant.office.counted()
    with board.boot("finish") as guest:
        guest.wait_for("BENCH-PROVISIONED", PASS_MAX_S)
        await_progress(guest, 40)
        guest.cut_power()
    first = read_job(board)
    assert board.root_device() == "/dev/vda" and not any(board.read(4, 1 << 20))
    with board.boot("finish") as guest:
        guest.wait_for("reading the image back", PASS_MAX_S + INSTALL_MAX_S)
        guest.cut_power()
        progress = list_progress(guest)
    assert progress[0] > 0 and progress == sorted(progress), progress
    assert board.root_device() == "/dev/vda" and not any(board.read(4, 1 << 20))
    with board.boot("finish") as guest:
        guest.await_reboot(PASS_MAX_S + INSTALL_MAX_S)
        assert list_progress(guest) == [], "nothing of it is fetched again but its head"
    assert board.read(4, len(plant.image)) == plant.image and board.read(1, len(PROVISIONING)) == PROVISIONING
    check_production(plant, board, first)
    assert plant.office.counted() == before + 1


def test_image_over_the_state_partition_is_refused_and_nothing_is_written(plant: Plant) -> None:
    """T-589 Accident: the signed image names the whole disk. The volume, which is first in order, is not touched."""
    finish = FINISH.format(target="/dev/vdb") + describe_containers()
    board = plant.make_board("over", ProductionBoard, finish, Partition.FILE)
    table = board.state.read_bytes()[: 1 << 20]
    with board.boot("watch") as guest:
        guest.wait_for("writing /dev/vdb would overwrite the state partition /dev/vdb3", PASS_MAX_S)
        (board.work / "go").touch()
        outcome = guest.finish(END_MAX_S)
    said = told(outcome)
    assert said["target"] == "active" and "mpagent-finish.service" in outcome.output, outcome.output
    assert board.state.read_bytes()[: 1 << 20] == table
    assert board.read(1, len(PROVISIONING)) == PROVISIONING and board.read(2, len(PRODUCTION)) == PRODUCTION
    assert not any(board.read(4)) and not any(board.volume.read_bytes())
    with board.boot("provision") as guest:
        guest.wait_for("BENCH-PROVISIONED", PASS_MAX_S)
