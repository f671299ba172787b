"""The backend `sim`: the ports of a board, played by a simulated chip.

`touch` is called before and after every touch of the chip, with "<verb>:before" and "<verb>:after": a power harness
cuts there by raising. Nothing has happened in the chip at "before"; at "after" it has, and nobody has heard of it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mpagent.errors import HardwareAbsent, HardwareBusy, HardwareGone, NotMine
from mpagent.hal import ports
from mpsim import faults, fuses, silicon
from mpsim.faults import Fault
from mpsim.silicon import Chip
from mpsim.storage import BoardBroke
from mpwire import mp, registry
from mpwire.errors import Malformed, MpError
from mpwire.mpk import HiddenMpKey
from mpwire.secret import Secret

Touch = Callable[[str], None]


def untouched(_where: str) -> None:
    """The touch of a board whose power stays on."""


def open_soc(chip: Path, touch: Touch = untouched) -> "SimSoc":
    """Identity of the chip in this folder. Raises HardwareAbsent when there is none."""
    return SimSoc(_Pins(chip, touch))


def open_attester(chip: Path, touch: Touch = untouched) -> "SimAttester":
    """Manufacturing protection of the chip in this folder. Raises HardwareAbsent when there is no chip."""
    return SimAttester(_Pins(chip, touch))


def open_class_key(chip: Path, touch: Touch = untouched) -> "SimClassKey":
    """The MP public key as a secret, of the chip in this folder. Raises HardwareAbsent when there is no chip."""
    return SimClassKey(_Pins(chip, touch))


def open_sealer(chip: Path, touch: Touch = untouched) -> "SimSealer":
    """CAAM blobs of the chip in this folder. Raises HardwareAbsent when there is no chip."""
    return SimSealer(_Pins(chip, touch))


class SimSoc:
    """ports.Soc. The kernel vouches for the fuses, the soft secure world for the life cycle of this boot (HPSR)."""

    def __init__(self, pins: "_Pins") -> None:
        self._pins = pins

    def read_facts(self) -> ports.SocFacts:
        """Fuses and latched life cycle, afresh."""
        with self._pins.hold("read_facts") as (chip, _):
            part, content, life_cycle = chip.read_make().part, chip.read_fuses(), chip.life_cycle()
            return ports.SocFacts(
                family=part,
                uid=fuses.read_uid(part, content),
                life_cycle=life_cycle,
                srk_hash=fuses.read_srk_hash(content),
                provenance={
                    "uid": ports.Provenance.KERNEL,
                    "life_cycle": ports.Provenance.SECURE_WORLD,
                    "srk_hash": ports.Provenance.KERNEL,
                },
                closed_by="secure-world" if life_cycle is ports.LifeCycle.CLOSED else "",
            )


class SimAttester:
    """ports.Attester of kind "mp", profile "raw"."""

    alg: int = registry.ALG_MP_ES256

    def __init__(self, pins: "_Pins") -> None:
        self._pins = pins

    def describe(self) -> ports.AttesterMaterial:
        """The key of the running boot: closing the part changes it once."""
        with self._pins.hold("describe") as (chip, fault):
            point = _on_curve(_whole(_spoil(chip.mp_public_key(), fault)))
            return ports.AttesterMaterial("mp", mp.key_id(point), profile="raw", public_key=point)

    def attest(self, message: bytes) -> ports.Attestation:
        """Raises Malformed for an empty message or one above 4096 bytes; the chip then did nothing."""
        with self._pins.hold("attest") as (chip, fault):
            signature, mpmr = chip.mp_sign(message)
            return ports.Attestation(_whole(_spoil(signature, fault)), mpmr=mpmr)


class SimClassKey:
    """ports.ClassKey."""

    def __init__(self, pins: "_Pins") -> None:
        self._pins = pins

    def extract(self) -> Secret:
        """PRK of the running boot's key."""
        with self._pins.hold("extract") as (chip, fault):
            return HiddenMpKey(_on_curve(_whole(_spoil(chip.mp_public_key(), fault)))[1:]).extract()


class SimSealer:
    """ports.Sealer: CAAM blobs. An open part seals too, under the public test key; policy is not its business."""

    name: str = "sim"

    def __init__(self, pins: "_Pins") -> None:
        self._pins = pins

    def seal(self, dek: Secret) -> bytes:
        """80 bytes, others on every call. Raises Malformed unless given exactly 32 bytes."""
        if len(dek) != silicon.KEY_BYTES:
            raise Malformed(f"a sealer wraps {silicon.KEY_BYTES} bytes, not {len(dek)}")
        with self._pins.hold("seal") as (chip, fault):
            return _spoil(chip.encapsulate(dek.reveal()), fault)

    def unseal(self, blob: bytes) -> Secret:
        """Raises NotMine."""
        with self._pins.hold("unseal") as (chip, _):
            return Secret(chip.decapsulate(blob))


class _Pins:
    """The one way to the chip: power cuts and scripted faults happen here, and hardware words become port words."""

    def __init__(self, folder: Path, touch: Touch) -> None:
        if not (folder / "make.json").is_file():
            raise HardwareAbsent(f"no simulated chip in {folder}")
        self._chip = Chip(folder)
        self._touch = touch

    @contextmanager
    def hold(self, verb: str) -> Iterator[tuple[Chip, Fault | None]]:
        """The chip for one call, and the fault its answer still has to suffer."""
        self._touch(f"{verb}:before")
        try:
            fault = faults.take(self._chip.folder, verb)
            _strike(fault)
            yield self._chip, fault
        except silicon.BlobRefused as error:
            raise NotMine("this chip did not seal that, or in another life cycle", detail=str(error)) from error
        except silicon.Refusal as error:
            raise _translate(error) from error
        except BoardBroke as error:
            raise HardwareGone(str(error)) from error
        if fault is Fault.LOSE_POWER_AFTER:
            faults.lose_power()
        self._touch(f"{verb}:after")


def _strike(fault: Fault | None) -> None:
    if fault is Fault.LOSE_POWER_BEFORE:
        faults.lose_power()
    if fault is Fault.BUSY:
        raise HardwareBusy("the simulated chip is busy")
    if fault is Fault.GONE:
        raise HardwareGone("the simulated chip stopped answering")


def _spoil(answer: bytes, fault: Fault | None) -> bytes:
    if fault is Fault.ZERO:
        return bytes(len(answer))
    if fault is Fault.FLIP:
        return answer[:-1] + bytes([answer[-1] ^ 1])
    return answer


def _whole(answer: bytes) -> bytes:
    """Success with nothing but zeros is what OP-TEE gives when somebody locked the MPMR before it started."""
    if not any(answer):
        raise HardwareGone("the chip answered with zeros: the MPMR was locked before OP-TEE started")
    return answer


def _on_curve(answer: bytes) -> bytes:
    try:
        return mp.read_key(answer)
    except Malformed as error:
        raise HardwareGone("the chip gave a public key that is not on the curve") from error


def _translate(refusal: silicon.Refusal) -> MpError:
    if refusal.result is silicon.Result.NOT_SUPPORTED:
        return HardwareGone(str(refusal), detail=refusal.detail)
    return Malformed(str(refusal), detail=refusal.detail)
