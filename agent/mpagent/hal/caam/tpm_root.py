"""Source tpm: the agent itself makes the sealed object that the kernel loads, and the persistent root above it.

The kernel's own `new` never sets noDA, and an SRK of the usual template has dictionary-attack protection. Each load
that a power cut follows then counts as a failed try, and the third boot finds the TPM locked. So root and object are
ours, with noDA, and every load is followed by TPM2_Shutdown.
"""

from collections.abc import Callable
from typing import Any, Final

from mpagent.errors import HardwareBusy, HardwareGone, NotMine
from mpagent.hal.caam import tpm_key
from mpagent.hal.caam.tpm_key import TpmKey
from mpagent.hal.tpm import faults, templates
from mpagent.hal.tpm.chip import Chip
from mpwire.errors import MpError
from mpwire.secret import Secret

ROOT_HANDLE: Final = 0x81004D50
"""Where the root persists: in the owner's range, beside the SRK that others may keep at 0x81000001."""
OpenChip = Callable[[], Chip]


class TpmRoot:
    """The TPM behind the kernel's trusted keys, reached by the TSS as well. Opened at the first use."""

    def __init__(self, open_chip: OpenChip) -> None:
        self._open_chip = open_chip

    def seal(self, kek: Secret) -> bytes:
        """A sealed object under the persistent root, as `load` takes it: DER."""
        chip = self._open_chip()
        root = self._find_or_make(chip)
        sensitive = chip.tss.TPM2B_SENSITIVE_CREATE()
        sensitive.sensitive.data = chip.tss.TPM2B_SENSITIVE_DATA(kek.reveal())
        wanted = _public(chip, templates.SEALED.wanted)
        session = chip.private_session(inward=True)
        private, public, *_ = chip.run(
            "sealing for the kernel", lambda esapi: esapi.create(root, sensitive, wanted, session1=session)
        )
        return TpmKey(ROOT_HANDLE, bytes(public.publicArea.marshal()), bytes(private)).write()

    def prepare(self) -> None:
        """Have the root at its handle again after somebody evicted it: the seed gives the same one."""
        self._find_or_make(self._open_chip())

    def settle(self) -> None:
        """TPM2_Shutdown, so that a power cut from here on counts nothing."""
        chip = self._open_chip()
        chip.run("settling the TPM", lambda esapi: esapi.shutdown(chip.tss.TPM2_SU.CLEAR))

    def explain(self, der: bytes) -> MpError:
        """Why the kernel could not load this object: to it, every word of a TPM is EPERM, so the TPM is asked."""
        found = tpm_key.read(der)
        if found is None or found.parent != ROOT_HANDLE or not templates.SEALED.fits(found.public):
            return NotMine("not a key that a TPM sealed for the kernel through us")
        chip = self._open_chip()
        root, public = self._find_or_make(chip), _public(chip, found.public)
        private = chip.tss.TPM2B_PRIVATE(found.private)
        try:
            handle = chip.run("loading a sealed key", lambda esapi: esapi.load(root, private, public), _not_ours)
        except MpError as cause:
            return cause
        with chip.holding(handle):
            return HardwareBusy("the kernel could not use the TPM, which is free and opens this key: try again")

    def _find_or_make(self, chip: Chip) -> Any:
        """Handle of the persistent root. Raises HardwareGone when something else lies there."""
        try:
            root = chip.run("looking for the root", lambda esapi: esapi.tr_from_tpmpublic(ROOT_HANDLE), _not_there)
        except _NotThere:
            made = chip.root()
            owner = chip.tss.ESYS_TR.OWNER
            return chip.run("keeping the root", lambda esapi: esapi.evict_control(owner, made, ROOT_HANDLE))
        public, *_ = chip.run("reading the root", lambda esapi: esapi.read_public(root))
        if not templates.STORAGE_ROOT.fits(bytes(public.publicArea.marshal())):
            raise HardwareGone(
                f"the TPM keeps a foreign key at 0x{ROOT_HANDLE:08x}",
                advice=f"find out who uses it, then tpm2_evictcontrol -c 0x{ROOT_HANDLE:08x}",
            )
        return root


class _NotThere(NotMine):
    """No object has this handle."""


def _not_there(code: int) -> MpError | None:
    return _NotThere("no such handle") if code == faults.HANDLE else None


def _not_ours(code: int) -> MpError | None:
    return (
        NotMine("another TPM sealed it, or this one was cleared since, or it is damaged")
        if faults.is_about_input(code)
        else None
    )


def _public(chip: Chip, area: bytes) -> Any:
    public, _ = chip.tss.TPMT_PUBLIC.unmarshal(area)
    return chip.tss.TPM2B_PUBLIC(publicArea=public)
