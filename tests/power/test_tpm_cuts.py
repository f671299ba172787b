"""P7 on a board with a real TPM 2.0 (swtpm): each cut is a SIGKILL of the TPM at the very touch, keys loaded or not."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mpagent.hal.choose import BoardChoice, open_board
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from tests.line import Factory, Oem
from tests.power.aftermath import check_finished, check_ledger
from tests.power.plug import PluggedDevice, plug_in

SEED = 11
SAMPLE = 12
STEP = 2


@contextmanager
def tpm_board(folder: Path) -> Iterator[PluggedDevice]:
    """A new board with a new TPM, and an issuer that allows its EK. The TPM counted no attack at the end."""
    folder.mkdir()
    with SoftTpm(folder / "tpm") as tpm, ExitStack() as stack:
        oem = Oem(folder / "oem", eks=(read_ek(tpm),))
        yield plug_in(Factory(folder, oem, stack).tpm_board(tpm), tpm=tpm)
        assert read_lockout_counter(tpm) == 0
        assert list_leftovers(tpm) == []
        oem.stop()


def read_ek(tpm: SoftTpm) -> bytes:
    """Name of the EK: what an OEM puts on its list."""
    choice = BoardChoice(("tpm",), ("tpm",), ("tpm",), ("none",), tpm_tcti=tpm.tcti)
    with open_board(choice, Path("/"), MemoryShelf()) as board:
        return board.attester.describe().attester_id[:34]


def read_lockout_counter(tpm: SoftTpm) -> int:
    """TPM2_PT_LOCKOUT_COUNTER: cuts that the TPM took for an attack."""
    lines = tpm.use_tool("tpm2_getcap", "properties-variable").decode().split("\n")
    (line,) = (line for line in lines if line.startswith("TPM2_PT_LOCKOUT_COUNTER"))
    return int(line.split(":")[1], 0)


def list_leftovers(tpm: SoftTpm) -> list[str]:
    """Handles that the agent left loaded."""
    kinds = ("handles-transient", "handles-loaded-session", "handles-saved-session")
    return [line for kind in kinds for line in tpm.use_tool("tpm2_getcap", kind).decode().split("\n") if line.strip()]


def check(device: PluggedDevice) -> None:
    """As for every board; and this one was granted alone."""
    oem = device.line.oem
    check_finished(oem, device)
    assert oem.granted() == oem.count("units") == oem.count("grants") == 1
    check_ledger(oem)


@pytest.mark.parametrize("first", range(1, STEP + 1))
def test_tpm_power_cut_at_ever_later_touches_is_finished(tmp_path: Path, first: int) -> None:
    """One board whose power fails again and again, each time some touches later than in the start before."""
    with tpm_board(tmp_path / "line") as device:
        pull_at = first + STEP
        while not device.live(pull_at):
            pull_at += STEP
        check(device)
        assert pull_at > 20


def test_tpm_power_cut_at_any_touch_is_finished_by_the_next_start(tmp_path: Path) -> None:
    """A seeded sample of touches of the TPM alone, each on a fresh board."""
    draw = random.Random(SEED)
    for number in range(SAMPLE):
        with tpm_board(tmp_path / f"line{number}") as device:
            assert not device.live(draw.randint(20, 100))
            assert device.live(None)
            check(device)
