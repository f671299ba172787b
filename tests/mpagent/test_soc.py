"""The backend `imx` on trees as the kernel makes them: every part, every spelling, every word that must not go out."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mpagent.errors import HardwareAbsent, HardwareGone
from mpagent.hal.ports import LifeCycle, Provenance, SocFacts
from mpagent.hal.soc import open_imx, read_identity
from mpagent.hal.soc.parts import CLOSED_BIT, CLOSED_WORD, LAYOUTS
from mpsim import fuses, silicon
from mpsim.board import BoardPlan, make_board
from mpsim.ocotp import SimOcotp
from mpsim.optee.bench import EmulatedTee

from .trees import HAB_PARTS, KINDS, SRK_HASH, UID, UPPER, Tree, make_tree

SHIM = Path(__file__).parents[2] / "out" / "shim"
LOCKED = bytes.fromhex("dabadaba")  # 0xBADABADA as the file spells it


def read_facts(tree: Tree, ocotp: SimOcotp | None = None) -> SocFacts:
    return open_imx(tree.root, ocotp).read_facts()


def explain(tree: Tree, ocotp: SimOcotp | None = None) -> str:
    """The refusal's text and its next step."""
    with pytest.raises(HardwareGone) as refused:
        read_facts(tree, ocotp)
    return f"{refused.value} | {refused.value.advice}"


@pytest.mark.parametrize("part", KINDS)
def test_every_part_says_who_it_is(tmp_path: Path, part: str) -> None:
    report = open_imx(make_tree(tmp_path, part).root).read_report()
    facts, kind = report.facts, KINDS[part]
    fused = kind.srk_hash if any(kind.srk_hash) else None

    assert facts.family == part
    assert facts.uid == (UPPER + UID if len(kind.serial) == 32 and part not in HAB_PARTS else UID)
    assert facts.srk_hash == fused
    assert facts.life_cycle is (LifeCycle.OPEN if part in HAB_PARTS else None)
    assert set(facts.provenance.values()) == {Provenance.KERNEL}
    assert facts.provenance.keys() == {
        name for name in ("uid", "srk_hash", "life_cycle") if getattr(facts, name) is not None
    }
    assert any("SRK hash" in note for note in report.notes) == (fused is None)
    assert any("life cycle" in note for note in report.notes) == (part not in HAB_PARTS)


def test_the_two_tables_of_fuses_agree() -> None:
    """The simulator's and the product's were written apart; a slip in one of them shows here."""
    ours = {name: one for name, one in LAYOUTS.items() if one.hab}
    assert ours.keys() == fuses.LAYOUTS.keys() == silicon.FIRST_GOOD_REVISION.keys() == set(HAB_PARTS)
    for name, layout in fuses.LAYOUTS.items():
        part = ours[name]
        assert [one and one.offset for one in (part.uid, part.uid_upper)] == [
            layout.uid_offset,
            layout.uid_upper_offset,
        ]
        assert part.fuse_bytes == layout.size_bytes
        assert (part.srk_hash.offset, part.srk_hash.length) == (fuses.SRK_HASH_OFFSET, fuses.SRK_HASH_BYTES)
        assert (CLOSED_WORD.offset, CLOSED_BIT) == (fuses.LOCK_WORD_OFFSET, fuses.CLOSED_BIT)


@pytest.mark.parametrize("serial", [(UPPER + UID).hex(), (UPPER + UID).hex().upper(), UID.hex(), UID.hex().upper()])
def test_a_kernel_update_that_spells_the_uid_otherwise_changes_no_name(tmp_path: Path, serial: str) -> None:
    """T-300 An 8MP prints 16 digits under one kernel and 32 under the next: it stays the same board."""
    tree = make_tree(tmp_path, "imx8mp")
    tree.write("serial_number", serial)
    assert read_facts(tree).uid == UID


def test_optee_reads_other_words_on_an_8mp_and_is_not_asked_for_them(tmp_path: Path) -> None:
    """T-300 CHIP_UID of an 8MP is words 1 and 2, which are not its UID; READ_FUSE of words 2 and 3 is."""
    tree = make_tree(tmp_path, "imx8mp")
    ocotp = SimOcotp(tree.read)
    assert ocotp.chip_uid()[::-1] != UID
    ocotp.calls.clear()
    facts = read_facts(tree, ocotp)
    assert (facts.uid, facts.provenance["uid"]) == (UID, Provenance.SECURE_WORLD)
    assert "chip_uid" not in ocotp.calls


@pytest.mark.parametrize("part", HAB_PARTS)
def test_optee_alone_is_enough_where_the_kernel_shows_no_fuses(tmp_path: Path, part: str) -> None:
    tree = make_tree(tmp_path, part)
    content = tree.read()
    shutil.rmtree(tree.fuse_path.parent)
    report = open_imx(tmp_path, SimOcotp(lambda: content)).read_report()
    assert report.facts == SocFacts(
        part, UID, LifeCycle.OPEN, SRK_HASH, dict.fromkeys(("uid", "srk_hash", "life_cycle"), Provenance.SECURE_WORLD)
    )
    assert any("the kernel offers no fuses" in note for note in report.notes)


def test_an_optee_without_the_pta_leaves_it_to_the_kernel(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, "imx8mm")
    report = open_imx(tree.root, SimOcotp(tree.read, built_in=False)).read_report()
    assert report.facts == read_facts(tree)
    assert "this OP-TEE has no OCOTP PTA" in report.notes


@pytest.mark.parametrize("part", ["imx8mm", "imx8mp"])
@pytest.mark.parametrize(
    ("offset", "bit", "what"),
    [(0x8, 0x10, "the UID"), (0x70, 0x01, "the SRK hash"), (0x1F, 0x02, "the closed bit")],
)
def test_a_kernel_that_contradicts_optee_is_named(tmp_path: Path, part: str, offset: int, bit: int, what: str) -> None:
    """T-301 Root puts another file in the kernel's place; the secure world still reads the fuses."""
    tree = make_tree(tmp_path, part)
    fused = tree.read()
    tree.poke(offset, bytes([fused[offset] ^ bit]))
    tree.write("serial_number", fuses.read_uid(part, tree.read()).hex())
    said = explain(tree, SimOcotp(lambda: fused))
    assert f"{what} is " in said and "OCOTP PTA" in said and "keep this board apart" in said


@pytest.mark.parametrize("serial", ["0123456789ABCDEE", (UID + UID).hex()])
def test_a_serial_number_that_is_not_the_fuses_is_named(tmp_path: Path, serial: str) -> None:
    """T-301 The name is printed by one driver and fused in another's file."""
    tree = make_tree(tmp_path, "imx8mp")
    tree.write("serial_number", serial)
    assert "UID" in explain(tree) and "nvmem" in explain(tree)


@pytest.mark.parametrize(("offset", "what"), [(0x4, "the UID"), (0x60, "the SRK hash"), (0x7C, "the SRK hash"),
                                              (0x1C, "the closed bit"), (0x8C, "the field-return word")])  # fmt: skip
def test_a_locked_word_is_named_and_never_sent(tmp_path: Path, offset: int, what: str) -> None:
    """T-302 Every part with locked fuses would have one and the same name and SRK hash."""
    tree = make_tree(tmp_path, "imx8mm")
    tree.poke(offset, LOCKED)
    tree.write("serial_number", fuses.read_uid("imx8mm", tree.read()).hex())
    assert f"{what} reads 0xBADABADA" in explain(tree)
    assert f"{what} reads 0xBADABADA" in explain(tree, SimOcotp(tree.read))


@pytest.mark.parametrize("part", ["imx8mm", "imx8qxp", "imx93"])
@pytest.mark.parametrize("byte", ["00", "ff"])
def test_a_uid_of_nothing_is_no_name(tmp_path: Path, part: str, byte: str) -> None:
    """T-302 A driver without its clock reads zeros; two such boards would be one."""
    tree = make_tree(tmp_path, part)
    tree.write("serial_number", byte * (len(KINDS[part].serial) // 2))
    if part in HAB_PARTS:
        tree.poke(0x4, bytes.fromhex(byte) * 8)
    assert "no chip has such a name" in explain(tree)


def test_an_unfused_srk_hash_is_absent_and_a_closed_part_without_one_is_nonsense(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, "imx8mm")
    tree.poke(0x60, bytes(32))
    report = open_imx(tmp_path).read_report()
    assert report.facts.srk_hash is None and "srk_hash" not in report.facts.provenance
    assert "SRK hash: no SRK is fused" in report.notes
    tree.close_fuse()
    assert "SRK hash reads all zero on a part whose closed fuse is blown" in explain(tree)


@contextmanager
def another_user(path: Path) -> Iterator[None]:
    """This process without the right to read `path`."""
    path.chmod(0o600)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65_534)
    else:
        path.chmod(0)
    try:
        yield
    finally:
        os.seteuid(before)


def test_fuses_for_root_alone_say_how_to_be_let_in() -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        tree = make_tree(Path(place), "imx8mm")
        fused = tree.read()
        with another_user(tree.fuse_path):
            said = explain(tree)
            facts = read_facts(tree, SimOcotp(lambda: fused))
    assert "Permission denied: the kernel shows fuses to root alone" in said and "tmpfiles.d" in said
    assert "OCOTP PTA" in said
    assert facts.provenance["srk_hash"] is Provenance.SECURE_WORLD


def test_missing_short_and_unreadable_fuses_are_three_messages(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, "imx8mm")
    fused = tree.read()
    tree.fuse_path.write_bytes(fused[:1000])
    short = explain(tree)
    assert "has 1000 bytes, not the 1024 of imx8mm" in short
    assert explain(tree, SimOcotp(lambda: fused)) == short  # what is there and broken is not passed over
    tree.fuse_path.unlink()
    tree.fuse_path.mkdir()
    assert "cannot be read: Is a directory" in explain(tree)
    shutil.rmtree(tree.fuse_path.parent)
    assert "the kernel offers no fuses of this imx8mm | build the kernel with CONFIG_NVMEM_SYSFS" in explain(tree)


def test_a_missing_fuse_file_is_no_absent_board(tmp_path: Path) -> None:
    """Absent moves on to the next name on the image's list, and this part is not absent."""
    tree = make_tree(tmp_path, "imx8mm")
    shutil.rmtree(tree.fuse_path.parent)
    with pytest.raises(HardwareGone) as refused:
        read_facts(tree)
    assert not isinstance(refused.value, HardwareAbsent)


def test_parts_without_hab_do_without_a_fuse_file(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, "imx95")
    shutil.rmtree(tree.fuse_path.parent)
    report = open_imx(tmp_path).read_report()
    assert (report.facts.uid, report.facts.srk_hash) == (UPPER + UID, None)
    assert any("the kernel offers no fuses" in note for note in report.notes)


def test_two_fuse_files_are_one_too_many(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, "imx8mm")
    shutil.copytree(tree.fuse_path.parent, tree.fuse_path.parent.with_name("imx-ocotp1"))
    assert "two fuse files" in explain(tree)


@pytest.mark.parametrize("soc_id", ["i.MX94", "0xe", "i.MX8M", "\x1b[2J"])
def test_an_unknown_part_is_refused_by_what_it_calls_itself(tmp_path: Path, soc_id: str) -> None:
    tree = make_tree(tmp_path, "imx8mm")
    tree.write("soc_id", soc_id)
    with pytest.raises(HardwareGone) as refused:
        open_imx(tmp_path)
    assert "whose fuses this agent does not know" in str(refused.value) and str(refused.value).isprintable()
    assert soc_id in str(refused.value) or not soc_id.isprintable()
    assert "imx8mm" in refused.value.advice
    assert not isinstance(refused.value, HardwareAbsent)


def test_away_from_an_imx_the_part_is_absent(tmp_path: Path) -> None:
    with pytest.raises(HardwareAbsent, match=r"no i\.MX"):
        open_imx(tmp_path)
    tree = make_tree(tmp_path, "imx8mm")
    tree.write("family", "jep106:0426")
    with pytest.raises(HardwareAbsent, match="jep106:0426"):
        open_imx(tmp_path)


def test_the_vendors_names_of_an_8q_are_known(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, "imx8qm")
    tree.write("soc_id", "i.MX8QM")
    assert read_facts(tree).family == "imx8qm"


@pytest.mark.parametrize("serial", ["0123456789ABCDEF", ""])
def test_half_of_an_ele_uid_is_no_name(tmp_path: Path, serial: str) -> None:
    """T-302 The vendor kernel prints two of the four words: the rest may well be what tells two boards apart."""
    tree = make_tree(tmp_path, "imx93")
    tree.write("serial_number", serial)
    report = open_imx(tmp_path).read_report()
    assert report.facts.uid is None
    assert any("serial_number" in note for note in report.notes)


@pytest.mark.parametrize("serial", ["0123", "0123456789ABCDEX", UID.hex() * 2])
def test_a_serial_number_out_of_shape_is_named(tmp_path: Path, serial: str) -> None:
    make_tree(tmp_path, "imx8mm").write("serial_number", serial)
    with pytest.raises(HardwareGone, match="serial_number"):
        open_imx(tmp_path)


def test_an_attribute_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, "imx8mm")
    revision = tmp_path / "sys/devices/soc0/revision"
    revision.unlink()
    assert read_identity(tree.root).revision is None
    revision.mkdir()
    with pytest.raises(HardwareGone, match="revision: Is a directory"):
        open_imx(tmp_path)


@pytest.mark.parametrize(("printed", "known"), [("2.0", "2.0"), ("1.1", "1.1"), ("unknown", None), ("", None)])
def test_the_revision_is_read_where_it_is_one(tmp_path: Path, printed: str, known: str | None) -> None:
    make_tree(tmp_path, "imx8mq").write("revision", printed)
    assert read_identity(tmp_path).revision == known


def test_no_fuse_file_is_ever_opened_for_writing(tmp_path: Path) -> None:
    """T-303 Writing to the 8M's nvmem file burns fuses, and some bits brick the part."""
    tree, log = make_tree(tmp_path / "tree", "imx8mp"), tmp_path / "calls"
    script = (
        "from pathlib import Path; from mpagent.hal.soc import open_imx;"
        f"print(open_imx(Path({str(tree.root)!r})).read_facts().uid.hex())"
    )
    calls = "trace=open,openat,openat2,creat,ftruncate,truncate,write,pwrite64"
    done = subprocess.run(
        ["strace", "-f", "-y", "-e", calls, "-o", log, sys.executable, "-c", script], capture_output=True, timeout=60
    )
    assert done.stdout.decode().strip() == UID.hex(), done.stderr.decode()
    seen = [line for line in log.read_text().splitlines() if str(tree.fuse_path) in line]
    assert seen and all("O_RDONLY" in line for line in seen)


class ShortOcotp:
    """A PTA that gives fewer words than it was asked for."""

    def read_fuses(self, places: Sequence[tuple[int, int]]) -> list[int]:
        return [1] * (len(places) - 1)


def test_an_answer_with_words_missing_is_named(tmp_path: Path) -> None:
    soc = open_imx(make_tree(tmp_path, "imx8mm").root, ShortOcotp())
    with pytest.raises(HardwareGone, match="gave 11 fuse words when asked for 12"):
        soc.read_facts()


READ_OVER_OPTEE = """
import sys
from pathlib import Path
from mpagent.hal.soc import OpteeOcotp, open_imx
report = open_imx(Path(sys.argv[1]), OpteeOcotp(Path("/dev/tee0"), 5.0)).read_report()
print(report.facts.uid.hex(), *sorted({who.name for who in report.facts.provenance.values()}), *report.notes)
"""


@pytest.mark.parametrize("part", ["imx8mm", "imx8mp"])
def test_the_pta_is_asked_through_the_device_node(tmp_path: Path, part: str) -> None:
    """The real ioctls against the emulated OP-TEE: it answers; it was built without the PTA; we may not open it."""
    make_board(tmp_path / "board", BoardPlan(part=part, uid=UID, closed=True))
    make_tree(tmp_path / "kernel", part, (tmp_path / "board/chip/nvmem").read_bytes())
    said = []
    with EmulatedTee(tmp_path / "board", SHIM) as tee:
        for change in ({}, {"built_in": ("mp",)}, {"open_errno": "EACCES"}, {"open_errno": "ENOENT"}):
            tee.change(open_errno=None)
            tee.change(**change)
            done = subprocess.run(
                [sys.executable, "-c", READ_OVER_OPTEE, tmp_path / "kernel"],
                env={**os.environ, **tee.environment()}, capture_output=True, timeout=60, check=True,
            )  # fmt: skip
            said.append(done.stdout.decode().strip())
    assert all(one.startswith(f"{UID.hex()} ") for one in said)
    assert [one.split()[1] for one in said] == ["SECURE_WORLD", "KERNEL", "KERNEL", "KERNEL"]
    wanted = ["has no OCOTP", "no permission to open /dev/tee0", "no OP-TEE here: /dev/tee0"]
    assert all(text in one for text, one in zip(wanted, said[1:], strict=True))
