"""A board whose TPM measures what it boots, and the OEM that approves it."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from mpagent.hal.ports import Shelf
from mpagent.hal.tpm import PcrBinding, TpmParts, open_tpm
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire import pcr_policy
from mpwire.p256 import SoftKey

PCRS = (4, 7)
LOADER, STATE = PCRS
REALM, PRODUCT = "lab", "gateway"


def value_of(*software: str) -> bytes:
    """A PCR after these were measured into it."""
    value = bytes(32)
    for one in software:
        value = sha256(value + sha256(one.encode()).digest()).digest()
    return value


class MeasuredBoard:
    """One TPM, and the folder of approvals of the image that it booted."""

    def __init__(self, tpm: SoftTpm, folder: Path) -> None:
        self.tpm, self.approvals, self.oem = tpm, folder, SoftKey.generate()
        self.approvals.mkdir(exist_ok=True)

    def boot(self, loader: str, state: str = "secure boot on") -> None:
        """Power on with this software: PCRs begin at zero."""
        self.tpm.power_cycle()
        self.measure(LOADER, loader)
        self.measure(STATE, state)

    def measure(self, pcr: int, software: str) -> None:
        """TPM2_PCR_Extend."""
        self.tpm.use_tool("tpm2_pcrextend", f"{pcr}:sha256={sha256(software.encode()).hexdigest()}")

    def binding(self) -> PcrBinding:
        """As the image says it."""
        return PcrBinding(self.oem.public_key(), PCRS, REALM, PRODUCT, self.approvals)

    def approve(self, loader: str, name: str = "image", state: str = "secure boot on") -> bytes:
        """The OEM signs; the file lies in the image."""
        return self.put(name, pcr_policy.write_approval(REALM, PRODUCT, values_of(loader, state), self.oem.sign))

    def put(self, name: str, raw: bytes) -> bytes:
        """Any bytes as an approval."""
        (self.approvals / name).write_bytes(raw)
        return raw

    @contextmanager
    def open(self, shelf: Shelf | None = None) -> Iterator[TpmParts]:
        """The agent starts."""
        with open_tpm(self.tpm.tcti, MemoryShelf() if shelf is None else shelf, self.binding()) as parts:
            yield parts


def values_of(loader: str, state: str = "secure boot on") -> tuple[tuple[int, bytes], ...]:
    """What PCRS hold after `MeasuredBoard.boot`."""
    return ((LOADER, value_of(loader)), (STATE, value_of(state)))
