"""The closed list of backends: what is not named in it, or not there, stops the agent."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mpagent
from mpagent.anchors import _BOARD, _CARD, _PCRS, _TOKEN
from mpagent.errors import ConfigWrong, HardwareAbsent, HardwareGone
from mpagent.hal.choose import OFFERED, BoardChoice, open_bench, open_board, open_part
from mpagent.hal.ports import LifeCycle
from mpagent.hal.shut import ShutAttester
from mpagent.tomlfile import Key
from mpsim.board import BoardPlan, make_board
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire.secret import Secret
from tests.mpagent.trees import make_tree

SIM = BoardChoice(attest=("sim",), seal=("sim",), keys=("sealed",), soc=("sim",), sim_chip=Path("board/chip"))
TPM = BoardChoice(attest=("tpm",), seal=("tpm",), keys=("tpm",), soc=("none",))


OPERATE = (Path(__file__).parents[2] / "docs/operate.md").read_text(encoding="utf-8")


def test_lists_hold_what_the_documents_name() -> None:
    """docs/operate.md, "The board an image expects"."""
    assert set(OFFERED["class-key"]) <= set(OFFERED["attest"])  # the same key of [board], under mp_use `secret`
    assert '`attest` is "mp" or "sim"' in OPERATE and tuple(OFFERED["class-key"]) == ("mp", "sim")
    for sort, offered in OFFERED.items():
        if sort == "class-key":
            continue
        row = re.search(rf"^\| {sort} \| ([^|]*) \|", OPERATE, re.MULTILINE)
        assert row is not None and tuple(re.findall(r'"(\w+)"', row[1])) == tuple(offered), sort


@pytest.mark.parametrize(("table", "keys"), [("board", _BOARD), ("pkcs11", _TOKEN), ("card", _CARD), ("pcrs", _PCRS)])
def test_every_key_of_the_board_is_in_the_documents(table: str, keys: dict[str, Key]) -> None:
    rows = OPERATE.partition(f"| key of [{table}] |")[2].partition("\n\n")[0].splitlines()[2:]
    named = {row.split("|")[1].strip(): "error" in row.split("|")[3] for row in rows}
    assert named == {name: key.required for name, key in keys.items()}


@pytest.mark.parametrize(
    ("sort", "name", "key"),
    [
        ("attest", "tpm", "tpm_tcti"),
        ("attest", "card", r"\[card\]"),
        ("seal", "pkcs11", r"\[pkcs11\]"),
        ("keys", "pkcs11", r"\[pkcs11\]"),
        ("attest", "sim", "sim_chip"),
        ("counter", "tpm", "tpm_tcti"),
    ],
)
def test_backend_without_what_it_needs_names_the_key(tmp_path: Path, sort: str, name: str, key: str) -> None:
    choice = BoardChoice(("sim",), ("sim",), ("sealed",), ("none",))
    with open_bench(choice, tmp_path, MemoryShelf()) as bench, pytest.raises(ConfigWrong, match=f"{key} does not say"):
        open_part(bench, sort, name)


@pytest.mark.parametrize(("sort", "name"), [("attest", "mp"), ("attest", "optee"), ("soc", "imx")])
def test_machine_without_the_part_says_so_by_its_own_class(tmp_path: Path, sort: str, name: str) -> None:
    """This is a PC: what an i.MX has is absent here, and not broken."""
    choice = BoardChoice(("sim",), ("sim",), ("sealed",), ("none",), optee_node=tmp_path / "tee0")
    with open_bench(choice, tmp_path, MemoryShelf()) as bench, pytest.raises(HardwareAbsent) as absent:
        open_part(bench, sort, name)
    assert absent.value.advice


@pytest.mark.parametrize("field", ["attest", "seal", "keys", "soc"])
def test_unknown_backend_stops_and_names_the_known_ones(tmp_path: Path, field: str) -> None:
    make_board(tmp_path / "board", BoardPlan(closed=True))
    choice = SIM._replace(**{field: ("plain",)})  # type: ignore[arg-type]  # every field named above holds names
    with (
        pytest.raises(ConfigWrong, match=f"{field} = 'plain' is not one of: "),
        open_board(choice, tmp_path, MemoryShelf()),
    ):
        pass


def test_part_without_its_place_stops(tmp_path: Path) -> None:
    with pytest.raises(ConfigWrong, match="tpm_tcti"), open_board(TPM, tmp_path, MemoryShelf()):
        pass
    with pytest.raises(ConfigWrong, match="sim_chip"), open_board(SIM._replace(sim_chip=None), tmp_path, MemoryShelf()):
        pass


def test_chip_that_is_not_there_is_gone_and_nothing_takes_its_place(tmp_path: Path) -> None:
    with pytest.raises(HardwareGone), open_board(SIM, tmp_path, MemoryShelf()):
        pass
    absent = TPM._replace(tpm_tcti=f"swtpm:path={tmp_path}/none")
    with pytest.raises(HardwareGone), open_board(absent, tmp_path, MemoryShelf()):
        pass


def test_first_that_is_there_is_taken_and_named(tmp_path: Path) -> None:
    make_board(tmp_path / "board", BoardPlan(closed=True))
    choice = SIM._replace(seal=("tpm", "sim"), tpm_tcti="device:/nowhere/tpm")
    with open_board(choice, tmp_path, MemoryShelf()) as board:
        assert board.sealer.name == "sim"
        assert board.chosen == {"soc": "sim", "attest": "sim", "seal": "sim", "keys": "sealed"}


def test_part_that_is_broken_is_not_passed_over(tmp_path: Path) -> None:
    """Going on would let whoever breaks the better part choose the worse."""
    make_board(tmp_path / "board", BoardPlan(closed=True))
    (tmp_path / "tpm").touch()
    choice = SIM._replace(seal=("tpm", "sim"), tpm_tcti=f"swtpm:path={tmp_path}/tpm")
    with pytest.raises(HardwareGone, match="no TPM answers") as broken, open_board(choice, tmp_path, MemoryShelf()):
        pass
    assert not isinstance(broken.value, HardwareAbsent)


def test_board_with_nothing_says_what_was_tried_and_why(tmp_path: Path) -> None:
    choice = SIM._replace(soc=("none",), attest=("tpm", "sim"), tpm_tcti="device:/nowhere/tpm")
    with pytest.raises(HardwareAbsent) as absent, open_board(choice, tmp_path, MemoryShelf()):
        pass
    assert str(absent.value).startswith("this board has nothing that the image names for attest (tpm: ")
    assert "; sim: no simulated chip in " in str(absent.value)


def test_device_without_mpsim_says_that_it_is_not_installed(tmp_path: Path) -> None:
    """In a process that sees agent/ alone, as a device does."""
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "sys.modules['mpsim'] = None  # what `import` finds where nothing is installed\n"
        "from pathlib import Path\n"
        "from mpagent.errors import ConfigWrong\n"
        "from mpagent.hal.choose import BoardChoice, open_board\n"
        "choice = BoardChoice(attest=('sim',), seal=('sim',), keys=('sealed',), soc=('sim',), sim_chip=Path('chip'))\n"
        "try:\n"
        "    with open_board(choice, Path('/'), None): pass\n"
        "except ConfigWrong as wrong:\n"
        "    print(wrong)\n"
    )
    agent = str(Path(mpagent.__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", code, agent], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.startswith("simulated hardware is not installed here")


LIBRARIES = {"tpm2_pytss", "pkcs11", "smartcard", "mpsim"}


def find_libraries(act: str, *arguments: str) -> set[str]:
    """Which hardware libraries a fresh process has loaded after `act`."""
    code = (
        "import sys\nfrom contextlib import suppress\nfrom pathlib import Path\n"
        "from mpagent.errors import HardwareGone\n"
        "from mpagent.hal.choose import BoardChoice, CardWanted, TokenChoice, open_bench, open_part\n"
        "none = BoardChoice((), (), (), ())\n"
        "def touch(choice, sort, name, root='/nowhere'):\n"
        "    with suppress(HardwareGone), open_bench(choice, Path(root), None) as bench: open_part(bench, sort, name)\n"
        f"{act}\nprint(*({LIBRARIES!r} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_list_imports_no_backend_library() -> None:
    """A board without a TPM does not pay 26 MiB for one."""
    assert find_libraries("") == set()


def test_board_loads_the_library_of_its_own_part_alone(tmp_path: Path) -> None:
    """Memory is for what is used: a TPM board never imports smartcard, a card board no TSS, and so on."""
    tee = "none._replace(optee_node=Path('/nowhere/tee0'))"
    for sort, name in (("attest", "mp"), ("attest", "optee"), ("soc", "imx"), ("soc", "none")):
        assert find_libraries(f"touch({tee}, {sort!r}, {name!r})") == set(), name
    assert find_libraries("touch(none, 'seal', 'caam', '/')") == set()
    make_board(tmp_path / "board", BoardPlan(closed=True))
    sim = f"none._replace(sim_chip=Path({str(tmp_path / 'board/chip')!r}))"
    assert find_libraries(f"touch({sim}, 'attest', 'sim')") == {"mpsim"}
    with SoftTpm(tmp_path / "tpm") as tpm:
        assert find_libraries(f"touch(none._replace(tpm_tcti={tpm.tcti!r}), 'attest', 'tpm')") == {"tpm2_pytss"}
    card = "none._replace(card=CardWanted(Path('/nowhere/pin')), seal=('caam',))"
    assert find_libraries(f"touch({card}, 'attest', 'card')") <= {"smartcard"}
    module = "/usr/lib/softhsm/libsofthsm2.so"
    token = f"none._replace(token=TokenChoice(Path({module!r}), 'none', Path('/nowhere/pin')))"
    assert find_libraries(f"touch({token}, 'seal', 'pkcs11')") == {"pkcs11"}


def test_simulated_soc_works_with_a_real_tpm(tmp_path: Path) -> None:
    make_board(tmp_path / "board", BoardPlan(closed=True))
    with SoftTpm(tmp_path / "tpm") as tpm:
        choice = TPM._replace(soc=("sim",), sim_chip=Path("board/chip"), tpm_tcti=tpm.tcti)
        with open_board(choice, tmp_path, MemoryShelf()) as board:
            assert board.soc.read_facts().life_cycle is LifeCycle.CLOSED
            assert board.attester.describe().kind == "tpm"
            assert board.activator is not None and board.key_prover is not None


def test_simulated_attester_works_with_sealing_by_a_real_tpm(tmp_path: Path) -> None:
    """The part proves itself by MP and has a TPM beside it; no proof of the TPM is offered that nobody can appraise."""
    make_board(tmp_path / "board", BoardPlan(closed=True))
    with SoftTpm(tmp_path / "tpm") as tpm:
        choice = SIM._replace(seal=("tpm",), keys=("tpm",), tpm_tcti=tpm.tcti)
        with open_board(choice, tmp_path, MemoryShelf()) as board:
            assert board.sealer.unseal(board.sealer.seal(Secret(bytes(32)))) == Secret(bytes(32))
            assert board.attester.describe().kind == "mp"
            assert board.activator is None and board.key_prover is None


def test_tpm_is_opened_once_and_closed_with_the_board(tmp_path: Path) -> None:
    """swtpm answers one connection at a time: a second one, or one left open, would hang here."""
    with SoftTpm(tmp_path / "tpm") as tpm:
        choice, shelf = TPM._replace(tpm_tcti=tpm.tcti), MemoryShelf()
        with pytest.raises(ZeroDivisionError), open_board(choice, tmp_path, shelf) as board:
            first = board.attester.describe()
            board.keyring.find_or_make("sign")
            raise ZeroDivisionError
        with open_board(choice, tmp_path, shelf) as board:
            assert board.attester.describe() == first
        assert tpm.use_tool("tpm2_getcap", "handles-transient").strip() == b""


def test_image_may_bring_a_blob_of_an_open_part(tmp_path: Path) -> None:
    """This kernel has no CAAM: the witness cannot say, and the fuse alone closes nothing."""
    make_tree(tmp_path, "imx8mm").close_fuse()
    choice = SIM._replace(soc=("imx",), open_blob=bytes(80), optee_node=tmp_path / "tee0")
    with open_bench(choice, tmp_path, MemoryShelf()) as bench:
        assert bench.soc[1].read_facts().life_cycle is LifeCycle.CLOSED_PENDING_REBOOT


def test_board_that_says_nothing_claims_nothing(tmp_path: Path) -> None:
    with (
        SoftTpm(tmp_path / "tpm") as tpm,
        open_board(TPM._replace(tpm_tcti=tpm.tcti), tmp_path, MemoryShelf()) as board,
    ):
        facts = board.soc.read_facts()
    assert (facts.family, facts.uid, facts.life_cycle, facts.srk_hash) == ("generic", None, None, None)
    assert dict(facts.provenance) == {}


def test_shut_engine_of_a_production_image_attests_nothing() -> None:
    """Linux reaches no MP engine there; what stands in its place has a kind and neither key nor signature."""
    shut = ShutAttester()
    assert shut.describe().public_key is None
    with pytest.raises(HardwareGone, match="its MP engine is shut"):
        shut.attest(b"anything")
