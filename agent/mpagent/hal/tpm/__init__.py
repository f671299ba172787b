"""The backend `tpm`: a TPM 2.0 as attester, keyring and sealer, over the TSS's ESAPI (tpm2-pytss, imported late)."""

from types import TracebackType
from typing import NamedTuple, Self

from mpagent.hal.ports import Shelf
from mpagent.hal.tpm.attest import TpmActivator, TpmAttester, TpmKeyProver
from mpagent.hal.tpm.chip import Chip, open_chip
from mpagent.hal.tpm.counter import TpmCounter
from mpagent.hal.tpm.keys import TpmKeyring
from mpagent.hal.tpm.pcrs import PcrBinding, PcrPolicy
from mpagent.hal.tpm.seal import TpmSealer

__all__ = ["PcrBinding", "TpmParts", "open_tpm"]


class TpmParts(NamedTuple):
    """What one open TPM offers. All parts share it; after close() none may be used."""

    chip: Chip
    attester: TpmAttester
    activator: TpmActivator
    keyring: TpmKeyring
    key_prover: TpmKeyProver
    sealer: TpmSealer
    counter: TpmCounter
    """For boards whose image asks for one; nothing is defined in the TPM before its first read."""

    def close(self) -> None:
        """Flush everything this process loaded, and free the TPM for the next one."""
        self.chip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_tpm(tcti: str, shelf: Shelf, binding: PcrBinding | None = None) -> TpmParts:
    """Open the TPM behind `tcti` (see chip.open_chip); wrapped keys live on `shelf`. Makes no key yet.

    With `binding` what is sealed opens only for software whose PCR values the OEM approved.
    """
    chip = open_chip(tcti)
    attester = TpmAttester(chip, shelf)
    keyring = TpmKeyring(chip, shelf)
    return TpmParts(
        chip=chip,
        attester=attester,
        activator=TpmActivator(chip, attester),
        keyring=keyring,
        key_prover=TpmKeyProver(chip, attester, keyring),
        sealer=TpmSealer(chip, None if binding is None else PcrPolicy(chip, binding)),
        counter=TpmCounter(chip),
    )
