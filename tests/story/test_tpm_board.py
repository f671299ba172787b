"""The same story on a board whose attester, keys and sealer are a real TPM 2.0 (swtpm)."""

from contextlib import ExitStack
from pathlib import Path

from mpagent.hal.choose import BoardChoice, open_board
from mpagent.hal.ports import Provenance
from mpagent.record import Stage
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire import registry
from tests.attacks.forge import claims_of
from tests.line import STATIC_HEX, Factory, Oem


def read_ek(tpm: SoftTpm) -> bytes:
    """Name of the EK: what an OEM puts on its list."""
    choice = BoardChoice(("tpm",), ("tpm",), ("tpm",), ("none",), tpm_tcti=tpm.tcti)
    with open_board(choice, Path("/"), MemoryShelf()) as board:
        return board.attester.describe().attester_id[:34]


def test_a_tpm_board_enrolls_and_unseals_after_a_power_cut(tmp_path: Path) -> None:
    with SoftTpm(tmp_path / "tpm") as tpm, ExitStack() as stack:
        oem = Oem(tmp_path / "oem", eks=(read_ek(tpm),))
        device = Factory(tmp_path, oem, stack).tpm_board(tpm)

        record = device.enroll()

        assert record.stage is Stage.DONE
        told = claims_of(device.line.heard[1]).provenance
        assert told[registry.CLAIM_UEID] == Provenance.ATTESTER  # a TPM proves its EK
        assert told[registry.CLAIM_HARDWARE_IDS] == Provenance.KERNEL  # the fuse UID beside it is only read
        first = device.secrets()
        assert first["licence"].hex() == STATIC_HEX
        tpm.power_cycle()
        device.choice = BoardChoice(
            ("tpm",), ("tpm",), ("tpm",), ("sim",), tpm_tcti=tpm.tcti, sim_chip=device.choice.sim_chip
        )
        assert device.secrets() == first
        assert oem.rows("SELECT attester, grade FROM units") == [("tpm", "L")]
        oem.stop()
