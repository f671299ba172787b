"""ports.Sealer on a real kernel: the suite that every sealer passes."""

from tests.contract.test_sealer import *  # noqa: F403
from tests.qemu.bench.inside.conftest import GuestRig

del test_receipts_know_the_sealer_by_name  # noqa: F821  # it looks the name up in the table of boards on the host


def test_receipts_know_the_source(rig: GuestRig, kind: str) -> None:
    with rig.open() as board:
        assert (board.sealer.name, board.sealer.wrapper_name) == ("kernel-tpm", kind)
