"""A factory-flashed board on a real Linux: systemd, a TPM, our package, and a line to a real server."""

import hashlib
from pathlib import Path

import pytest

from tests.qemu.board import Board, flash
from tests.qemu.factory import (
    BANNER,
    CREDENTIALS,
    END_MAX_S,
    FILES,
    FINISH,
    LATE_CLOCK,
    PASS_MAX_S,
    Line,
    find_secrets,
    hashes,
    provision,
    status,
    told,
)
from tests.qemu.guest import Outcome
from tests.qemu.office import Office


@pytest.fixture(scope="module")
def provisioned(line: Line) -> tuple[Board, Outcome, str]:
    board = line.make_board()
    outcome, console = provision(board)
    return board, outcome, console


def test_first_boot_enrolls_through_the_line_and_shows_pass(
    line: Line, provisioned: tuple[Board, Outcome, str]
) -> None:
    """Our package, started by systemd, over TLS to a real server; every secret is the one that the server gave."""
    board, outcome, console = provisioned
    said = told(outcome)
    assert (said["target"], said["lockout"]) == ("active", "0x0"), outcome.output
    assert BANNER in console and "4 slots unsealed in this boot" in console
    found = status(outcome)
    assert (found["stage"], found["realm"]) == ("done", "lab")
    (unit,) = [one for one in line.office.ask("device", "list") if one["ueid"] == found["ueid"]]
    assert unit["attester"] == "tpm" and line.office.counted() >= 1
    given = {hashlib.sha256(value).hexdigest() for value in line.office.secrets()["cloud"]}
    assert hashes(outcome)["cloud"] in given
    assert board.volume.read_bytes()[:6] == b"LUKS\xba\xbe", "the finisher made the data volume"


def test_second_boot_serves_a_unit_and_opens_the_volume(line: Line, provisioned: tuple[Board, Outcome, str]) -> None:
    """By LoadCredential= and crypttab, out of the socket; the line is unplugged. Nothing in the clear is kept."""
    board, first, _ = provisioned
    board.plug_line(0)
    with board.boot("depend") as guest:
        app = guest.wait_for("BENCH-APP", PASS_MAX_S)
        outcome = guest.finish(END_MAX_S)
    assert app.split()[-1] == hashes(first)["cloud"], app
    assert app.split()[2] == "65534", "the unit's own user, who may ask nobody for anything"
    said = told(outcome)
    assert (said["target"], said["volume"].split()[0], said["lockout"]) == ("active", "active", "0x0"), outcome.output
    assert "crypt" in said["volume"] and status(outcome)["ueid"] == status(first)["ueid"]
    with board.boot("depend") as guest:
        again = guest.finish(PASS_MAX_S)
    assert told(again)["note"] == "on the volume: BENCH-PLAIN-TEXT"
    assert b"BENCH-PLAIN-TEXT" not in board.volume.read_bytes()
    assert find_secrets(line, board) == []


def test_trusted_keys_of_the_kernel_seal_and_serve_inside_the_sandboxes_of_the_units(line: Line) -> None:
    """AF_ALG, keyrings and locked memory are the units' own here: no root shell, and no test of ours beside it."""
    anchors = line.office.print_anchors(seal="caam").replace("[board]\n", '[board]\nkernel_key_sources = ["tpm"]\n')
    board = line.make_board(flash(line.folder / "kernel.raw", anchors + CREDENTIALS + FINISH, FILES))
    first, console = provision(board)
    assert BANNER in console and told(first)["target"] == "active"
    assert board.volume.read_bytes()[:6] == b"LUKS\xba\xbe", "the finisher unsealed as well"
    receipt = line.folder / "receipt"
    line.office.command("device", "show", status(first)["ueid"], "--receipt", str(receipt))
    assert b"kernel-tpm" in receipt.read_bytes()
    board.plug_line(0)
    with board.boot("depend") as guest:
        app = guest.wait_for("BENCH-APP", PASS_MAX_S)
        again = told(guest.finish(END_MAX_S))
    assert app.split()[-1] == hashes(first)["cloud"] and again["lockout"] == "0x0"
    assert find_secrets(line, board) == []


def test_disks_of_a_finished_board_beside_another_tpm_pass_nothing(
    line: Line, provisioned: tuple[Board, Outcome, str]
) -> None:
    """T-580 Clone: every disk of a board with PASS in a machine whose TPM is not its own."""
    board, _, _ = provisioned
    clone = line.make_board(plugged=False)
    for disk in ("state", "volume"):
        getattr(clone, disk).write_bytes(getattr(board, disk).read_bytes())
    with clone.boot("watch") as guest:
        guest.wait_for("was made by another TPM", PASS_MAX_S)
        (clone.work / "go").touch()
        outcome = guest.finish(END_MAX_S)
        console = guest.console()
    assert BANNER not in console and "BENCH-APP" not in console
    assert told(outcome)["target"] == "inactive", outcome.output


def test_board_waits_for_a_server_that_comes_late_and_says_so(line: Line) -> None:
    """T-584 Accident: the line leads nowhere while the board starts. It says what it waits for, and goes on."""
    board = line.make_board(plugged=False)
    with board.boot("provision") as guest:
        guest.wait_for("trying again in", PASS_MAX_S)
        assert "10.0.2.101" in guest.console() and "(NoServer)" in guest.console() and BANNER not in guest.console()
        board.plug_line(line.server.port)
        guest.wait_for("BENCH-PROVISIONED", PASS_MAX_S)
        assert told(guest.finish(END_MAX_S))["target"] == "active"


def test_server_of_another_ca_is_told_nothing_and_nothing_is_kept(line: Line, tmp_path: Path) -> None:
    """T-585 Thief on the line: a server with the right name and another CA."""
    other = Office(tmp_path / "other", quota=1)
    image = flash(tmp_path / "image.raw", other.print_anchors())
    before = line.office.counted()
    board = line.make_board(image)
    with board.boot("watch") as guest:
        guest.wait_for("certificate", PASS_MAX_S)
        (board.work / "go").touch()
        outcome = guest.finish(END_MAX_S)
        console = guest.console()
    said = told(outcome)
    assert BANNER not in console and said["target"] == "inactive", outcome.output
    assert not [name for name in said["kept"].split() if name.startswith("./vault/")], said["kept"]
    assert (line.office.counted(), other.counted()) == (before, 0)


def test_clock_that_stands_at_1970_is_no_obstacle(line: Line) -> None:
    """T-586 Accident: a board whose clock was never set, a year before any certificate."""
    image = flash(line.folder / "late.raw", line.office.print_anchors(), LATE_CLOCK)
    outcome, console = provision(line.make_board(image))
    said = told(outcome)
    assert int(said["clock"]) < 3600 and said["target"] == "active", outcome.output
    assert BANNER in console
