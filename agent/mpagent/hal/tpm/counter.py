"""The vault's guard against a restored old disk: a TPM NV counter.

A TPM starts a new counter above the highest value that any counter of it ever had (TPM 2.0 Library, Part 1, section
37.2.4), and keeps that height when counters are deleted and when it is cleared. So the value that the vault compares
its generation with is the counter's own, from whatever number it starts: no base is kept that somebody could set back,
and a counter that was deleted and made anew stands above every generation there was.
"""

from typing import Any, Final

from mpagent.errors import HardwareGone, Tampered
from mpagent.hal.tpm import faults
from mpagent.hal.tpm.chip import Chip
from mpwire.errors import MpError

COUNTER_INDEX: Final = 0x01804D50
""""MP" in the range left to the owner, 0x01800000 to 0x01BFFFFF (TCG Registry of Reserved TPM 2.0 Handles and
Localities, section 2.2.2); no reserved index lies there."""
RAISE_MAX: Final = 64
"""Steps of one raise_to. A generation is one step; each step wears the TPM's flash."""
VALUE_MAX: Final = 2**63 - 1
"""Largest number of a vault generation."""
_VALUE_BYTES: Final = 8
_FINDING: Final = "reading the counter"
_ADVICE: Final = "find out who uses that index, then delete it: tpm2_nvundefine 0x01804D50"


class _Missing(MpError):
    """No such index, or one that was never written; never leaves this module."""


class TpmCounter:
    """One NV index of type counter, made at the first read. Its owner can delete it, and nobody can set it back."""

    kind: str = "tpm-nv"

    def __init__(self, chip: Chip) -> None:
        self._chip = chip
        self._index: Any = None

    def read(self) -> int:
        """See ports.Counter. Makes the index where there is none: only then does its first value exist.

        Raises HardwareGone when the index is there and no counter of ours: one that can be written can be set back.
        """
        try:
            return self._read(self._find())
        except _Missing:
            self._make()
            return self._read(self._find())

    def raise_to(self, value: int) -> None:
        """See ports.Counter. Raises Tampered, having counted nothing, for a value that no vault here ever reached."""
        present = self.read()
        if value - present > RAISE_MAX:
            raise Tampered(f"the vault asks for {value}, and the TPM's counter stands at {present}")
        index = self._find()
        for _ in range(value - present):
            self._chip.run("counting", lambda esapi: esapi.nv_increment(index))
        if self._read(index) < value:
            raise HardwareGone("the TPM's counter does not count: it is broken")

    def _find(self) -> Any:
        """The index, checked once: what is defined later in its place has another Name, and reading it fails."""
        if self._index is None:
            index = self._chip.run(_FINDING, lambda esapi: esapi.tr_from_tpmpublic(COUNTER_INDEX), _missing)
            self._check(index)
            self._index = index
        return self._index

    def _check(self, index: Any) -> None:
        public, _ = self._chip.run(_FINDING, lambda esapi: esapi.nv_read_public(index))
        found, nv = public.nvPublic, self._chip.tss.TPMA_NV
        if int(found.attributes) & ~int(nv.WRITTEN) != self._attributes() or int(found.dataSize) != _VALUE_BYTES:
            raise HardwareGone(
                f"the TPM's NV index 0x{COUNTER_INDEX:08X} is no counter of ours: its attributes differ", advice=_ADVICE
            )

    def _make(self) -> None:
        """Define and count once, each if it was not done: a cut between them leaves an index without a value."""
        try:
            index = self._find()
        except _Missing:
            tss = self._chip.tss
            wanted = tss.TPM2B_NV_PUBLIC(
                nvPublic=tss.TPMS_NV_PUBLIC(
                    nvIndex=COUNTER_INDEX,
                    nameAlg=tss.TPM2_ALG.SHA256,
                    attributes=self._attributes(),
                    dataSize=_VALUE_BYTES,
                )
            )
            self._chip.run("making a counter", lambda esapi: esapi.nv_define_space(b"", wanted))
            index = self._find()
        self._chip.run("making a counter", lambda esapi: esapi.nv_increment(index))
        self._index = None  # its Name changes with the first count

    def _attributes(self) -> int:
        nv = self._chip.tss.TPMA_NV
        counts = int(self._chip.tss.TPM2_NT.COUNTER) << int(nv.TPM2_NT_SHIFT)
        # Not orderly: the value would jump at a power cut, and the vault compares exactly.
        return counts | int(nv.AUTHREAD | nv.AUTHWRITE | nv.OWNERREAD | nv.NO_DA)

    def _read(self, index: Any) -> int:
        # Over the session, whose HMAC covers the index's Name: with a password alone a TPM reads whatever is there now.
        session = self._chip.private_session(inward=False)
        raw = bytes(
            self._chip.run(
                _FINDING, lambda esapi: esapi.nv_read(index, _VALUE_BYTES, session1=session), _explain_reading
            )
        )
        value = int.from_bytes(raw, "big")
        if len(raw) != _VALUE_BYTES or value > VALUE_MAX:
            raise HardwareGone(f"the TPM's counter says {raw.hex()}: no number a vault could have")
        return value


def _missing(code: int) -> MpError | None:
    return _Missing("no counter") if code in (faults.HANDLE, faults.NV_UNINITIALIZED) else None


def _explain_reading(code: int) -> MpError | None:
    if code in faults.WRONG_NAME:
        return HardwareGone("the TPM's counter was exchanged while it was read", advice=_ADVICE)
    return _missing(code)
