"""When the backend `imx` says "closed": never by a fuse alone (design promise P6)."""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mpagent.enrollment import prove_closed
from mpagent.errors import HardwareGone, NotClosed
from mpagent.hal.caam.rings import Rings
from mpagent.hal.caam.witness import OpenBlobWitness
from mpagent.hal.ports import Attester, AttesterMaterial, Board, LifeCycle, Provenance
from mpagent.hal.soc import Dialect, ImxSoc, PinnedKeyWitness, open_imx, translate
from mpagent.image import Image
from mpsim import backend, faults, fuses, silicon
from mpsim.board import BoardPlan, close_fuse, make_board, power_cycle
from mpsim.faults import Fault
from mpsim.kernel_keys import SoftKernel
from mpsim.ocotp import SimOcotp
from mpwire import mp

from .trees import HAB_PARTS, Tree, make_tree

PART = "imx8mm"
CLASS_KEY_ID = mp.key_id(b"\x04" + silicon.class_public_key(PART, fuses.srk_hash_of("lab")))
IMAGE = Image("production", "camera", (), (), (), 0, mp_key_ids=(CLASS_KEY_ID,))


@dataclass
class Said:
    """A witness that says this."""

    life_cycle: LifeCycle | None
    provenance: Provenance = Provenance.SECURE_WORLD
    asked: int = 0
    name: str = "secure-world"

    def read_life_cycle(self) -> LifeCycle | None:
        self.asked += 1
        return self.life_cycle


class Bench:
    """A simulated chip, and the kernel's files of the same chip."""

    def __init__(self, folder: Path, closed: bool) -> None:
        make_board(folder, BoardPlan(closed=closed))
        self.folder, self.chip = folder, folder / "chip"
        self.tree = make_tree(folder / "kernel", PART, (self.chip / "nvmem").read_bytes())

    def blow(self) -> None:
        """The closed fuse, in this boot."""
        close_fuse(self.chip)
        self.tree.close_fuse()

    def open(self, key_ids: Sequence[bytes] = (CLASS_KEY_ID,), ocotp: SimOcotp | None = None) -> Board:
        attester: Attester = backend.open_attester(self.chip)
        soc: ImxSoc = open_imx(self.tree.root, ocotp, PinnedKeyWitness(lambda: attester, key_ids, os.urandom))
        sealer = backend.open_sealer(self.chip)
        return Board(soc=soc, attester=attester, sealer=sealer, keyring=None)  # type: ignore[arg-type]  # not asked


def test_a_fuse_that_was_just_blown_seals_nothing(tmp_path: Path) -> None:
    """T-304 The boot that blew the fuse still seals under the public test key."""
    bench = Bench(tmp_path / "b", closed=False)
    bench.blow()
    board = bench.open()
    facts = board.soc.read_facts()
    assert (facts.life_cycle, facts.provenance["life_cycle"]) == (LifeCycle.CLOSED_PENDING_REBOOT, Provenance.KERNEL)
    with pytest.raises(NotClosed, match="reboot"):
        prove_closed(board, IMAGE, os.urandom)
    power_cycle(bench.chip)
    assert bench.open().soc.read_facts().life_cycle is LifeCycle.CLOSED
    assert prove_closed(bench.open(), IMAGE, os.urandom) == "mp-key"


def test_a_fuse_read_by_the_secure_world_is_still_a_fuse(tmp_path: Path) -> None:
    """T-304 The OCOTP PTA reads the same bit: it knows no more of this boot, and proves nothing closed."""
    bench = Bench(tmp_path / "b", closed=False)
    bench.blow()
    board = bench.open(ocotp=SimOcotp(bench.tree.read))
    facts = board.soc.read_facts()
    assert facts.life_cycle is LifeCycle.CLOSED_PENDING_REBOOT
    assert facts.provenance["life_cycle"] is Provenance.SECURE_WORLD
    with pytest.raises(NotClosed):
        prove_closed(board, IMAGE, os.urandom)


def test_without_a_pinned_key_a_closed_boot_is_not_known_to_be_one(tmp_path: Path) -> None:
    """T-304 Any part can sign; only a key that the OEM pinned is that of closed parts."""
    bench = Bench(tmp_path / "b", closed=True)
    test_key_id = mp.key_id(b"\x04" + silicon.test_public_key())
    for key_ids in ((), (test_key_id,)):
        assert bench.open(key_ids).soc.read_facts().life_cycle is LifeCycle.CLOSED_PENDING_REBOOT
    assert open_imx(bench.tree.root).read_facts().life_cycle is LifeCycle.CLOSED_PENDING_REBOOT


def test_a_wrong_signature_is_no_witness(tmp_path: Path) -> None:
    """T-304 Somebody between us and the chip answers with the pinned key's id and a signature that is not its own."""
    bench = Bench(tmp_path / "b", closed=True)
    faults.script(bench.chip, "attest", [Fault.FLIP])
    with pytest.raises(HardwareGone, match="does not verify"):
        bench.open().soc.read_facts()


def test_another_kind_of_attester_and_a_lost_mpmr_prove_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "b", closed=True)
    chip = backend.open_attester(bench.chip)

    class Without:
        """The chip, with a part of its answer missing."""

        alg = chip.alg

        def __init__(self, kind: str) -> None:
            self.describe = lambda: chip.describe()._replace(kind=kind)

        def attest(self, message: bytes) -> object:
            return chip.attest(message)._replace(mpmr=None)

    card, mute = Without("card"), Without("mp")
    keys = (CLASS_KEY_ID,)
    assert PinnedKeyWitness(lambda: card, keys, os.urandom).read_life_cycle() is None  # type: ignore[arg-type, return-value]
    with pytest.raises(HardwareGone, match="does not verify"):
        PinnedKeyWitness(lambda: mute, keys, os.urandom).read_life_cycle()  # type: ignore[arg-type, return-value]


def test_one_signature_serves_a_whole_run(tmp_path: Path) -> None:
    signed: list[str] = []
    bench = Bench(tmp_path / "b", closed=True)
    attester = backend.open_attester(bench.chip, signed.append)
    soc = open_imx(bench.tree.root, None, PinnedKeyWitness(lambda: attester, (CLASS_KEY_ID,), os.urandom))
    assert {soc.read_facts().life_cycle for _ in range(3)} == {LifeCycle.CLOSED}
    assert signed.count("attest:after") == 1


def make_closed(folder: Path, part: str) -> Tree:
    tree = make_tree(folder, part)
    tree.close_fuse()
    return tree


@pytest.mark.parametrize("part", HAB_PARTS)
@pytest.mark.parametrize(
    ("said", "known"),
    [(LifeCycle.CLOSED, LifeCycle.CLOSED), (LifeCycle.OPEN, LifeCycle.CLOSED_PENDING_REBOOT),
     (None, LifeCycle.CLOSED_PENDING_REBOOT), (LifeCycle.FIELD_RETURN, LifeCycle.FIELD_RETURN)],
)  # fmt: skip
def test_fuse_and_boot_are_taken_together(tmp_path: Path, part: str, said: LifeCycle | None, known: LifeCycle) -> None:
    tree = make_closed(tmp_path, part)
    facts = open_imx(tmp_path, None, Said(said)).read_facts()
    assert (facts.life_cycle, facts.provenance["life_cycle"]) == (known, Provenance.KERNEL)
    secure = open_imx(tmp_path, SimOcotp(tree.read), Said(said)).read_facts()
    assert secure.provenance["life_cycle"] is Provenance.SECURE_WORLD


def test_first_witness_that_can_say_is_named_by_the_facts(tmp_path: Path) -> None:
    make_closed(tmp_path, PART)
    silent, sure, late = Said(None), Said(LifeCycle.CLOSED, name="open-blob"), Said(LifeCycle.OPEN)
    facts = open_imx(tmp_path, None, silent, sure, late).read_facts()
    assert (facts.life_cycle, facts.closed_by, late.asked) == (LifeCycle.CLOSED, "open-blob", 0)
    assert open_imx(tmp_path, None, silent, late).read_facts().closed_by == ""


def board_with(soc: ImxSoc, chip: Path) -> Board:
    """A board that attests by something else than MP."""
    return Board(soc, TpmLike(), backend.open_sealer(chip), NoKeys())  # type: ignore[arg-type]  # none of it is asked


class TpmLike:
    """Says it is no MP engine."""

    def describe(self) -> AttesterMaterial:
        return AttesterMaterial("tpm", bytes(68))


class NoKeys:
    """No device keys are wanted here."""


def test_board_without_mp_is_closed_by_what_its_caam_refuses(tmp_path: Path) -> None:
    """T-307 Sealed under the test key: a TPM board whose fuse is blown, before and after its first closed boot."""
    make_board(tmp_path / "b", BoardPlan(closed=True))
    make_closed(tmp_path, PART)
    maker = SoftKernel(tmp_path / "maker", "caam", closed=False)
    maker.join_session()
    with Rings(maker).hold("trusted", b"new 32") as key:
        digits = maker.read(key.serial).decode()

    kernel = SoftKernel(tmp_path / "kernel", "caam", closed=False)
    witness = OpenBlobWitness(digits, tmp_path / "kernel", lambda: kernel)
    with pytest.raises(NotClosed, match="reboot once"):
        prove_closed(board_with(open_imx(tmp_path, None, witness), tmp_path / "b/chip"), IMAGE, os.urandom)

    kernel = SoftKernel(tmp_path / "kernel", "caam", closed=True)
    witness = OpenBlobWitness(digits, tmp_path / "kernel", lambda: kernel)
    board = board_with(open_imx(tmp_path, None, witness), tmp_path / "b/chip")
    assert prove_closed(board, IMAGE, os.urandom) == "open-blob"
    assert kernel.keys_held == 0


@pytest.mark.parametrize("source", [None, "tee"])
def test_kernel_without_keys_of_the_caam_is_no_witness(tmp_path: Path, source: str | None) -> None:
    kernel = SoftKernel(tmp_path, source)
    assert OpenBlobWitness("00" * 80, tmp_path, lambda: kernel).read_life_cycle() is None
    assert kernel.keys_held == 0


def test_caam_is_asked_once_for_a_run(tmp_path: Path) -> None:
    kernel = SoftKernel(tmp_path, "caam")
    witness = OpenBlobWitness("00" * 80, tmp_path, lambda: kernel)
    assert witness.read_life_cycle() is LifeCycle.CLOSED
    kernel.fails_with = errno.EIO
    assert witness.read_life_cycle() is LifeCycle.CLOSED


def test_a_claim_is_as_good_as_its_weaker_half(tmp_path: Path) -> None:
    """T-304 Linux's look at a signature and the secure world's fuse make Linux's claim, not the secure world's."""
    tree = make_closed(tmp_path, PART)
    facts = open_imx(tmp_path, SimOcotp(tree.read), Said(LifeCycle.CLOSED, Provenance.KERNEL)).read_facts()
    assert (facts.life_cycle, facts.provenance["life_cycle"]) == (LifeCycle.CLOSED, Provenance.KERNEL)


@pytest.mark.parametrize("part", HAB_PARTS)
def test_an_open_fuse_needs_no_witness_and_no_signature(tmp_path: Path, part: str) -> None:
    make_tree(tmp_path, part)
    witness = Said(LifeCycle.CLOSED)
    assert open_imx(tmp_path, None, witness).read_facts().life_cycle is LifeCycle.OPEN
    assert witness.asked == 0


@pytest.mark.parametrize("part", HAB_PARTS)
def test_field_return_is_seen_before_closed(tmp_path: Path, part: str) -> None:
    """T-304 A part in field return reads as closed by its other fuse; its keys are test keys again."""
    make_closed(tmp_path, part).poke(0x8C, b"\x01")
    assert open_imx(tmp_path, None, Said(LifeCycle.CLOSED)).read_facts().life_cycle is LifeCycle.FIELD_RETURN


@pytest.mark.parametrize("part", ["imx8qm", "imx8qxp", "imx8ulp", "imx93", "imx95"])
def test_ahab_parts_say_what_their_witness_says_and_else_nothing(tmp_path: Path, part: str) -> None:
    make_tree(tmp_path, part)
    assert open_imx(tmp_path).read_facts().life_cycle is None
    facts = open_imx(tmp_path, None, Said(LifeCycle.CLOSED)).read_facts()
    assert (facts.life_cycle, facts.provenance["life_cycle"]) == (LifeCycle.CLOSED, Provenance.SECURE_WORLD)


@pytest.mark.parametrize(
    ("dialect", "meanings"),
    [
        (Dialect.HPSR, {0: "OPEN", 1: "OPEN", 2: "FIELD_RETURN", 3: "CLOSED", 7: "FIELD_RETURN"}),
        (Dialect.SECO, {0x1: "OPEN", 0x2: "OPEN", 0x8: "OPEN", 0x20: "OPEN", 0x80: "CLOSED", 0x100: "FIELD_RETURN",
                        0x200: "FIELD_RETURN"}),
        (Dialect.ELE, {0x1: "OPEN", 0x2: "OPEN", 0x4: "OPEN", 0x8: "OPEN", 0x20: "CLOSED", 0x40: "FIELD_RETURN",
                       0x80: "FIELD_RETURN", 0x100: "CLOSED"}),
        (Dialect.ELE_95, {0x10: "OPEN", 0x40: "CLOSED", 0x80: "CLOSED"}),
        (Dialect.LMDA, {0x10: "OPEN", 0x40: "CLOSED", 0x200: "CLOSED"}),
    ],
)  # fmt: skip
def test_every_dialect_of_life_cycle_is_translated(dialect: Dialect, meanings: dict[int, str]) -> None:
    assert {value: translate(dialect, value).name for value in meanings} == meanings


@pytest.mark.parametrize(
    ("dialect", "value"),
    [(Dialect.SECO, 0), (Dialect.SECO, 0x400), (Dialect.ELE, 0x200), (Dialect.ELE, 0x28), (Dialect.LMDA, 0xBADABADA)],
)
def test_a_life_cycle_nobody_explained_is_named(dialect: Dialect, value: int) -> None:
    with pytest.raises(HardwareGone, match=f"{value:#x}"):
        translate(dialect, value)
