"""In the guest: boards over the real kernel and the machine's TPM, for the sealer's contract."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from mpagent.hal import ports
from mpagent.hal.caam import KernelKeys, open_kernel_key
from mpagent.hal.caam.af_alg import AfAlg
from mpagent.hal.caam.dm_crypt import DmCrypt
from mpagent.hal.caam.tpm_root import ROOT_HANDLE
from mpagent.hal.caam.wrap import Wrapper
from mpagent.hal.tpm import templates
from mpagent.hal.tpm.chip import Chip, open_chip

TCTI = "device:/dev/tpmrm0"
WRAPPERS: dict[str, Callable[[], Wrapper]] = {"af_alg": AfAlg, "dm-crypt": DmCrypt}


class GuestRig:
    """One storage root in the machine's only TPM stands for one board: a blob depends on nothing else of it.

    Two TPMs that are really two are tested from outside, as are reboots; here a power cycle empties the keyrings.
    """

    def __init__(self, number: int, wrapper: str) -> None:
        usual = templates.STORAGE_ROOT
        unique = bytes([0, 32]) + bytes([number]) * 32 + bytes([0, 32]) + bytes(32)
        self._root = templates.Template(usual.stem, unique, usual.unique_parts)
        self._wrapper = wrapper

    @contextmanager
    def open(self) -> Iterator[ports.Board]:
        chip = open_chip(TCTI)
        try:
            self._install_root(chip)
            sealer = open_kernel_key(["caam", "tpm"], lambda: chip, wrapper=WRAPPERS[self._wrapper]())
            yield ports.Board(soc=None, attester=None, sealer=sealer, keyring=None)  # type: ignore[arg-type]
        finally:
            chip.close()

    def power_cycle(self) -> None:
        KernelKeys().join_session()

    def _install_root(self, chip: Chip) -> None:
        """Change the board: put this one's root where the sealer looks for it."""
        owner = chip.tss.ESYS_TR.OWNER
        if ROOT_HANDLE in chip._list_handles(0x81000000):
            old = chip.run("finding", lambda esapi: esapi.tr_from_tpmpublic(ROOT_HANDLE))
            chip.run("evicting", lambda esapi: esapi.evict_control(owner, old, ROOT_HANDLE))
        made, _ = chip.make_primary(owner, self._root, "making a root")
        with chip.holding(made):
            chip.run("keeping", lambda esapi: esapi.evict_control(owner, made, ROOT_HANDLE))


@pytest.fixture(params=sorted(WRAPPERS))
def kind(request: pytest.FixtureRequest) -> str:
    """The contract holds for both ways to wrap."""
    return str(request.param)


@pytest.fixture
def rig(kind: str) -> GuestRig:
    """The board under contract."""
    return GuestRig(1, kind)


@pytest.fixture
def stranger(kind: str) -> GuestRig:
    """Another board of the same kind."""
    return GuestRig(2, kind)
