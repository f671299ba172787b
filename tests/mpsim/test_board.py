"""A board as a folder: what a copied disk, a cut and a full disk leave behind."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mpagent.errors import HardwareBusy, HardwareGone, NotMine
from mpsim import board, faults, storage
from mpsim.backend import open_attester, open_sealer, open_soc
from mpsim.board import BoardPlan, BoardRefused, make_board
from mpsim.faults import Fault
from mpsim.storage import BoardBroke
from mpwire.secret import Secret

MakeChip = Callable[..., Path]
DEK = Secret(bytes(range(32)))
ON_A_FULL_DISK = (
    "import resource, sys; from mpsim.cli import main\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)); sys.exit(main(sys.argv[1:]))"
)
"""Files end at 200 bytes: a fuse file does not fit, and the write fails half-way as on a full disk."""


def run_apart(program: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Another process, because a power cut ends the one it meets. -B: none of them may leave half a bytecode file."""
    return subprocess.run(
        [sys.executable, "-B", "-c", program, *map(str, arguments)],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_copied_disk_does_not_unseal_on_another_chip(make_chip: MakeChip, tmp_path: Path) -> None:
    one, two = make_chip("one", closed=True), make_chip("two", closed=True)
    kept = "disk/var/lib/mpagent/dek"
    (tmp_path / "one" / kept).write_bytes(open_sealer(one).seal(DEK))
    shutil.copytree(tmp_path / "one" / "disk", tmp_path / "two" / "disk", dirs_exist_ok=True)

    with pytest.raises(NotMine):
        open_sealer(two).unseal((tmp_path / "two" / kept).read_bytes())
    assert open_sealer(one).unseal((tmp_path / "one" / kept).read_bytes()) == DEK


def test_everything_of_a_closed_board_survives_a_power_cycle(make_chip: MakeChip) -> None:
    chip = make_chip(closed=True)
    facts, described, blob = open_soc(chip).read_facts(), open_attester(chip).describe(), open_sealer(chip).seal(DEK)
    for _ in range(3):
        board.power_cycle(chip)
    assert open_soc(chip).read_facts() == facts
    assert open_attester(chip).describe() == described
    assert open_sealer(chip).unseal(blob) == DEK


def test_new_boards_differ_in_uid_and_master_key(make_chip: MakeChip) -> None:
    one, two = make_chip("one"), make_chip("two")
    assert open_soc(one).read_facts().uid != open_soc(two).read_facts().uid
    assert (one / "otpmk").read_bytes() != (two / "otpmk").read_bytes()
    assert (one / "otpmk").stat().st_mode & 0o077 == 0
    assert one.stat().st_mode & 0o077 == 0


def test_disk_of_a_new_board_is_an_empty_root(make_chip: MakeChip) -> None:
    disk = make_chip().parent / "disk"
    assert {str(path.relative_to(disk)) for path in disk.rglob("*") if not list(path.iterdir())} == {
        "usr/lib/mpagent",
        "etc/mpagent",
        "var/lib/mpagent",
    }


def test_board_is_not_made_over_another(make_chip: MakeChip) -> None:
    folder = make_chip(closed=True).parent
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(BoardRefused, match="not empty"):
        make_board(folder, BoardPlan())
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_board_for_which_there_is_no_room_leaves_nothing(tmp_path: Path) -> None:
    ended = run_apart(ON_A_FULL_DISK, "board", "new", tmp_path / "board", "--part", "imx8mm")
    assert ended.returncode == 74
    assert len(ended.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_fuse_that_cannot_be_written_stays_whole(make_chip: MakeChip) -> None:
    chip = make_chip()
    before = {path.name: path.read_bytes() for path in chip.iterdir()}
    ended = run_apart(ON_A_FULL_DISK, "board", "close", chip.parent)
    assert ended.returncode == 74
    assert {path.name: path.read_bytes() for path in chip.iterdir()} == before


def test_reader_never_sees_a_half_written_file(tmp_path: Path) -> None:
    """Two contents of very different length are written in turn while this process reads."""
    path = tmp_path / "nvmem"
    storage.put(path, b"a" * 1536)
    program = (
        "import sys; from pathlib import Path; from mpsim import storage\n"
        "for turn in range(200): storage.put(Path(sys.argv[1]), (b'a' * 1536, b'b' * 300000)[turn % 2])"
    )
    seen = set()
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], env={"PYTHONPATH": os.pathsep.join(sys.path)}
    ) as writer:
        while writer.poll() is None:
            seen.add(storage.get(path))
    assert writer.returncode == 0
    assert seen == {b"a" * 1536, b"b" * 300000}
    assert [file.name for file in tmp_path.iterdir()] == ["nvmem"]


@pytest.mark.parametrize("name", ["nvmem", "make.json", "boot.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}"])
def test_damaged_chip_is_gone_and_not_guessed_at(make_chip: MakeChip, name: str, content: bytes) -> None:
    chip = make_chip(closed=True)
    soc = open_soc(chip)
    (chip / name).write_bytes(content)
    with pytest.raises(HardwareGone, match=name):
        soc.read_facts()


def test_damaged_master_key_is_gone_and_not_used(make_chip: MakeChip) -> None:
    chip = make_chip(closed=True)
    (chip / "otpmk").write_bytes(b"")
    with pytest.raises(HardwareGone, match="otpmk"):
        open_sealer(chip).seal(DEK)


@pytest.mark.parametrize("open_port", [open_soc, open_attester, open_sealer])
def test_folder_without_a_chip_is_no_board(tmp_path: Path, open_port: Callable[[Path], object]) -> None:
    with pytest.raises(HardwareGone, match="no simulated chip"):
        open_port(tmp_path)


def test_busy_chip_did_nothing_and_then_works(make_chip: MakeChip) -> None:
    chip = make_chip(closed=True)
    faults.script(chip, "attest", [Fault.BUSY, Fault.BUSY])
    heard: list[str] = []
    attester = open_attester(chip, touch=heard.append)
    for _ in range(2):
        with pytest.raises(HardwareBusy):
            attester.attest(b"x")
    assert heard == ["attest:before", "attest:before"]
    assert len(attester.attest(b"x").signature) == 64
    assert heard[2:] == ["attest:before", "attest:after"]


def test_zero_answer_of_a_locked_register_is_never_passed_on(make_chip: MakeChip) -> None:
    chip = make_chip(closed=True)
    faults.script(chip, "attest", [Fault.ZERO])
    faults.script(chip, "describe", [Fault.ZERO])
    attester = open_attester(chip)
    with pytest.raises(HardwareGone, match="zeros"):
        attester.attest(b"x")
    with pytest.raises(HardwareGone, match="zeros"):
        attester.describe()


def test_public_key_off_the_curve_is_never_passed_on(make_chip: MakeChip) -> None:
    chip = make_chip(closed=True)
    faults.script(chip, "describe", [Fault.FLIP])
    with pytest.raises(HardwareGone, match="not on the curve"):
        open_attester(chip).describe()


def test_blob_that_came_out_wrong_does_not_open(make_chip: MakeChip) -> None:
    chip = make_chip(closed=True)
    faults.script(chip, "seal", [Fault.FLIP])
    sealer = open_sealer(chip)
    with pytest.raises(NotMine):
        sealer.unseal(sealer.seal(DEK))
    assert sealer.unseal(sealer.seal(DEK)) == DEK


def test_chip_that_stopped_answering_says_so(make_chip: MakeChip) -> None:
    chip = make_chip(closed=True)
    faults.script(chip, "read_facts", [Fault.GONE])
    with pytest.raises(HardwareGone, match="stopped answering"):
        open_soc(chip).read_facts()


@pytest.mark.parametrize(
    ("fault", "heard"),
    [(Fault.LOSE_POWER_BEFORE, ["before"]), (Fault.LOSE_POWER_AFTER, ["before"]), (None, ["before", "after"])],
)
def test_scripted_power_cut_ends_the_process_once(make_chip: MakeChip, fault: Fault | None, heard: list[str]) -> None:
    chip = make_chip(closed=True)
    if fault is not None:
        faults.script(chip, "unseal", [fault])
    blob = chip.parent / "blob"
    blob.write_bytes(open_sealer(chip).seal(DEK))
    program = (
        "import sys; from pathlib import Path; from mpsim.backend import open_sealer\n"
        "sealer = open_sealer(Path(sys.argv[1]), touch=lambda where: print(where, flush=True))\n"
        "sealer.unseal(Path(sys.argv[2]).read_bytes())"
    )
    cut = run_apart(program, chip, blob)
    assert cut.returncode == (0 if fault is None else -9)
    assert cut.stdout.split() == [f"unseal:{where}" for where in heard]
    assert run_apart(program, chip, blob).returncode == 0


class PowerCut(BaseException):
    """What a harness raises in touch."""


def test_every_verb_touches_the_chip_before_and_after(make_chip: MakeChip) -> None:
    chip = make_chip(closed=True)
    heard: list[str] = []
    open_soc(chip, touch=heard.append).read_facts()
    open_attester(chip, touch=heard.append).describe()
    open_attester(chip, touch=heard.append).attest(b"x")
    sealer = open_sealer(chip, touch=heard.append)
    sealer.unseal(sealer.seal(DEK))
    assert heard == [f"{verb}:{at}" for verb in ("read_facts", "describe", "attest", "seal", "unseal")
                     for at in ("before", "after")]  # fmt: skip


@pytest.mark.parametrize("at", ["attest:before", "attest:after"])
def test_harness_can_cut_at_every_touch(make_chip: MakeChip, at: str) -> None:
    def touch(where: str) -> None:
        if where == at:
            raise PowerCut

    with pytest.raises(PowerCut):
        open_attester(make_chip(closed=True), touch=touch).attest(b"x")


def test_unknown_verb_in_a_script_is_no_silent_wish(make_chip: MakeChip) -> None:
    chip = make_chip()
    with pytest.raises(ValueError, match="no such verb"):
        faults.script(chip, "sign", [Fault.BUSY])
    assert not (chip / "faults.json").exists()


def test_damaged_fault_script_is_said(make_chip: MakeChip) -> None:
    chip = make_chip()
    (chip / "faults.json").write_text('{"attest": ["explode"]}')
    with pytest.raises(BoardBroke, match=r"faults\.json is damaged"):
        faults.take(chip, "attest")
