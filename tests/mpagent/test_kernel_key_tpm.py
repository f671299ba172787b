"""Source tpm up to the kernel's door: the root and the sealed object that the agent makes, in a real TPM stack."""

import errno
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mpagent.advice import advise
from mpagent.errors import HardwareBusy, HardwareGone, NotMine
from mpagent.hal.caam import KernelKeySealer, open_kernel_key, tpm_key
from mpagent.hal.caam.tpm_root import ROOT_HANDLE, TpmRoot
from mpagent.hal.tpm.chip import Chip, open_chip
from mpsim.kernel_keys import SoftKernel, SoftWrapper
from mpsim.swtpm import SoftTpm
from mpwire.secret import Secret

DEK = Secret(bytes(range(32)))
KEK = Secret(bytes(range(32, 64)))
CUTS = 10


class TpmKernel(SoftKernel):
    """A kernel whose source is a TPM: it loads and unseals with tpm2-tools, as the real one does by itself."""

    def __init__(self, root: Path, tpm: SoftTpm) -> None:
        super().__init__(root, "tpm")
        self._tpm = tpm
        self._files = root

    def _open(self, blob: bytes) -> bytes:
        found = tpm_key.read(blob)
        if found is None:
            raise OSError(errno.EINVAL, "neither form")
        public, private, context = (self._files / name for name in ("public", "private", "context"))
        public.write_bytes(len(found.public).to_bytes(2, "big") + found.public)
        private.write_bytes(len(found.private).to_bytes(2, "big") + found.private)
        areas = ("-u", str(public), "-r", str(private), "-c", str(context))
        try:
            self._tpm.use_tool("tpm2_load", "-C", f"0x{found.parent:x}", *areas)
            secret = self._tpm.use_tool("tpm2_unseal", "-c", str(context))
        except Exception:
            raise OSError(errno.EPERM, "TPM error") from None
        self._tpm.use_tool("tpm2_flushcontext", "-t")
        return secret


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[SoftTpm]:
    with SoftTpm(tmp_path / "tpm") as running:
        yield running


def read_lockout_counter(chip: Chip) -> int:
    return chip.read_properties(0x20E, 1)[0x20E]


def unseal_with_tools(tpm: SoftTpm, der: bytes, folder: Path) -> bytes:
    return TpmKernel(folder, tpm)._open(der)


def test_sealed_object_is_loaded_by_others_under_the_persistent_root(tpm: SoftTpm, tmp_path: Path) -> None:
    with closing(open_chip(tpm.tcti)) as chip:
        der = TpmRoot(lambda: chip).seal(KEK)
    assert unseal_with_tools(tpm, der, tmp_path) == KEK.reveal()
    shown = tpm.use_tool("tpm2_readpublic", "-c", f"0x{ROOT_HANDLE:x}").decode()
    assert "noda" in shown and "restricted" in shown
    found = tpm_key.read(der)
    assert found is not None and found.parent == ROOT_HANDLE
    assert int.from_bytes(found.public[4:8], "big") & 1 << 10, "the object is under dictionary-attack protection"


def test_ten_cuts_after_a_load_count_nothing(tpm: SoftTpm, tmp_path: Path) -> None:
    """T-481 Accident: with TPM2_Shutdown and without, as a cut may come before it."""
    with closing(open_chip(tpm.tcti)) as chip:
        der = TpmRoot(lambda: chip).seal(KEK)
    for cut in range(CUTS):
        assert unseal_with_tools(tpm, der, tmp_path) == KEK.reveal()
        if cut % 2:
            with closing(open_chip(tpm.tcti)) as chip:
                TpmRoot(lambda: chip).settle()
        tpm.power_cycle()
        with closing(open_chip(tpm.tcti)) as chip:
            assert read_lockout_counter(chip) == 0


def test_root_that_somebody_evicted_comes_back(tpm: SoftTpm, tmp_path: Path) -> None:
    """The seed gives the same root again, so nothing was lost."""
    with closing(open_chip(tpm.tcti)) as chip:
        der = TpmRoot(lambda: chip).seal(KEK)
    tpm.use_tool("tpm2_evictcontrol", "-C", "o", "-c", f"0x{ROOT_HANDLE:x}")
    with closing(open_chip(tpm.tcti)) as chip:
        TpmRoot(lambda: chip).prepare()
        TpmRoot(lambda: chip).prepare()
    assert unseal_with_tools(tpm, der, tmp_path) == KEK.reveal()


def test_foreign_key_at_our_handle_is_left_alone(tpm: SoftTpm, tmp_path: Path) -> None:
    """It may be somebody's only key."""
    context = str(tmp_path / "srk")
    tpm.use_tool("tpm2_createprimary", "-C", "o", "-G", "ecc", "-c", context)
    tpm.use_tool("tpm2_evictcontrol", "-C", "o", "-c", context, f"0x{ROOT_HANDLE:x}")
    tpm.use_tool("tpm2_flushcontext", "-t")
    before = tpm.use_tool("tpm2_readpublic", "-c", f"0x{ROOT_HANDLE:x}")
    with (
        closing(open_chip(tpm.tcti)) as chip,
        pytest.raises(HardwareGone, match="foreign key at 0x81004d50") as refused,
    ):
        TpmRoot(lambda: chip).seal(KEK)
    assert "tpm2_evictcontrol" in advise(refused.value)
    assert tpm.use_tool("tpm2_readpublic", "-c", f"0x{ROOT_HANDLE:x}") == before


def test_refusal_of_the_kernel_is_explained_by_the_tpm_itself(tpm: SoftTpm, tmp_path: Path) -> None:
    """T-486 Accident: to the kernel every word of a TPM is EPERM, and a busy one must not set a board aside."""
    with SoftTpm(tmp_path / "other") as other, closing(open_chip(other.tcti)) as chip:
        foreign = TpmRoot(lambda: chip).seal(KEK)
    with closing(open_chip(tpm.tcti)) as chip:
        root = TpmRoot(lambda: chip)
        der = root.seal(KEK)
        assert isinstance(root.explain(der), HardwareBusy)
        for strange in (foreign, der[:-1] + bytes([der[-1] ^ 1]), b"", der + b"\0"):
            assert isinstance(root.explain(strange), NotMine)
        found = tpm_key.read(der)
        assert found is not None
        elsewhere = tpm_key.TpmKey(0x81000001, found.public, found.private)
        assert isinstance(root.explain(elsewhere.write()), NotMine)


def test_sealer_over_a_tpm_keeps_its_key_over_cuts_and_tells_strangers(tpm: SoftTpm, tmp_path: Path) -> None:
    """The whole way, with tpm2-tools in the kernel's place."""
    opened: list[Chip] = []

    def close_all() -> None:
        while opened:
            opened.pop().close()

    class Turns(TpmKernel):
        """swtpm takes one client at a time, and a real TPM's driver does not mind."""

        def _open(self, blob: bytes) -> bytes:
            close_all()
            return super()._open(blob)

    def open_tpm(line: SoftTpm) -> Callable[[], Chip]:
        def once() -> Chip:
            if not opened:
                opened.append(open_chip(line.tcti))
            return opened[0]

        return once

    def open_sealer(line: SoftTpm, folder: str) -> KernelKeySealer:
        (tmp_path / folder).mkdir(exist_ok=True)
        kernel = Turns(tmp_path / folder, line)
        return open_kernel_key(
            ["tpm"], open_tpm(line), root=tmp_path / folder, keys=kernel, wrapper=SoftWrapper(kernel)
        )

    blob = open_sealer(tpm, "a").seal(DEK)
    assert len(blob) < 600
    close_all()
    tpm.power_cycle()
    sealer = open_sealer(tpm, "a")
    assert (sealer.name, sealer.unseal(blob)) == ("kernel-tpm", DEK)
    close_all()
    with SoftTpm(tmp_path / "other") as other:
        with pytest.raises(NotMine, match="another TPM"):
            open_sealer(other, "b").unseal(blob)
        close_all()
