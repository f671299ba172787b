"""What an emulated OP-TEE is like, and what befalls it: one JSON file that the server reads at every request.

The file belongs to the emulation alone; the program under test sees /dev/tee0 and nothing of this.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from mpsim import storage
from mpsim.optee.gp import Origin, Result

HANG: Final = "HANG"
"""In place of a result: the secure world does not come back (a gated CAAM clock does that)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One answer in place of the real one."""

    call: str
    """"open" or "invoke"."""
    result: str
    """Name of a gp.Result, a number as "0x…", or HANG."""
    uuid: str | None = None
    """Of the application; None is any."""
    command: int | None = None
    """Of an invoke; None is any."""
    origin: int = Origin.TRUSTED_APP
    times: int | None = None
    """How often; None is always."""

    def read_result(self) -> int:
        """The 32-bit number."""
        return int(self.result, 16) if self.result.startswith("0x") else int(Result[self.result])


@dataclass(frozen=True, slots=True)
class Scenario:
    """The defaults are an OP-TEE built with MP, open to the REE, tee-supplicant running, on whatever board stands
    behind it; the board (mpsim.board) decides life cycle, Unlock, part and revision."""

    open_errno: str | None = None
    """Name of the errno that open("/dev/tee0") fails with: ENOENT without driver, EACCES without the group."""
    impl_id: int = 1
    """1 is OP-TEE."""
    impl_caps: int = 1
    gen_caps: int = 13
    """GP, REG_MEM, MEMREF_NULL: what a real OP-TEE 4.10 gave."""
    supplicant: bool = True
    """Whether tee-supplicant runs."""
    built_in: tuple[str, ...] = ("mp", "ocotp", "digprog", "attestation")
    """Pseudo-TAs of this build."""
    access_control: bool = False
    """Built without CFG_NXP_CAAM_MP_NO_ACCESS_CTRL: the MP PTA answers TAs only."""
    abi: str = "current"
    """"old": cmd 0 of the MP PTA with two parameters (NXP 4.14.78 to 4.19.35)."""
    applications: Mapping[str, str] = field(default_factory=dict)
    """TAs that tee-supplicant can load: UUID to "mp_sign" (NXP's test TA, also as a relay of another UUID)."""
    mpmr_locked: str | None = None
    """Somebody locked the MPMR before OP-TEE started: "sizes" (success, size 0) or "bytes" (success, zero bytes)."""
    curve: str = "P-256"
    """or "P-521"."""
    key: str = "good"
    """"off-curve" spoils the public key the chip gives, "zero" empties it."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Sizes given back in place of the right ones: "key", "signature", "mpmr"."""
    storage: str = "good"
    """Of the attestation key: "full" (what is made cannot be stored), or "damaged" (what is read is removed)."""
    key_making_s: float = 0.0
    """How long the attestation key takes to be made, besides what it takes here."""
    attestation: str = "good"
    """"false" spoils its signatures, "short" tells a size too small, "other" names another algorithm."""
    build: str = "4.10.0"
    """OP-TEE release: another one, another hash of its memory."""
    faults: tuple[Fault, ...] = ()


def write_scenario(path: Path, scenario: Scenario) -> None:
    """From the next request on."""
    storage.put_json(path, asdict(scenario))


def read_scenario(path: Path) -> Scenario:
    """Raises BoardBroke for anything `write_scenario` would not write."""
    if not path.exists():
        return Scenario()
    value = storage.get_json(path)
    try:
        return parse_scenario(value)
    except (TypeError, KeyError, ValueError) as error:
        raise storage.BoardBroke(f"{path} is no scenario: {error}") from error


def parse_scenario(value: Any) -> Scenario:
    """Strict: an unknown name is an error, so that a misspelt accident is no silent success."""
    known = {one.name for one in fields(Scenario)}
    if not isinstance(value, dict) or not set(value) <= known:
        raise ValueError(f"unknown: {sorted(set(value) - known)}")
    faults = tuple(Fault(**one) for one in value.get("faults", ()))
    for fault in faults:
        if fault.result != HANG:
            fault.read_result()
    return Scenario(**{**value, "faults": faults, "built_in": tuple(value.get("built_in", Scenario().built_in))})
