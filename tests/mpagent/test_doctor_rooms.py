"""`mpagent doctor`, room by room: device tree, part, kernel, TPM, card, MP key."""

from pathlib import Path

import pytest

from mpagent.checkup import Finding, State
from mpagent.checkup.card import describe_tries
from mpagent.checkup.desk import Desk
from mpagent.checkup.kernel import ask_kernel
from mpagent.checkup.protection import describe
from mpagent.checkup.question import Question
from mpagent.checkup.silicon import describe_part, look_at_tree
from mpagent.checkup.tpm import ask_tpm, describe_lockout, describe_room
from mpagent.compose import Device, Places
from mpagent.durable import Disk
from mpagent.hal.caam import list_options
from mpagent.hal.choose import BoardChoice
from mpagent.hal.mp.door import PTA
from mpagent.hal.mp.examination import Examination, TaState
from mpagent.hal.soc import open_imx
from mpagent.image import Image
from mpagent.latch import Latch
from mpagent.settings import Settings
from mpsim.board import BoardPlan, make_board
from tests.vectors.silicon import A_KEY

from .doctor_bench import find, put_kernel
from .trees import make_tree


def tell(question: Question) -> list[Finding]:
    """The answer, in this process."""
    found = question.ask()
    return [found] if isinstance(found, Finding) else list(found)


def desk_of(root: Path, *, seal: tuple[str, ...] = ()) -> Desk:
    """A desk without an image, or with one that names these sealers alone."""
    if not seal:
        return Desk(root, None)
    make_board(root / "board", BoardPlan())
    choice = BoardChoice(attest=("mp",), seal=seal, keys=("sealed",), soc=("imx",))
    places = Places(root)
    disk = Disk(places.state)
    image = Image("lab", "camera", (), (), (), 0)
    return Desk(root, Device(places, image, choice, Settings(), disk, Latch(disk)))


def put_node(root: Path, path: str, status: bytes | None = None) -> None:
    node = root / "proc/device-tree" / path
    node.mkdir(parents=True, exist_ok=True)
    if status is not None:
        (node / "status").write_bytes(status)


@pytest.mark.parametrize(
    ("part", "nodes", "state", "said"),
    [
        ("imx8mp", {}, State.MISSING, "is not there"),
        ("imx8mp", {"soc@0": None}, State.BROKEN, "CAAM at 30900000 is missing"),
        ("imx8mp", {"soc@0/crypto@30900000": b"disabled\0"}, State.BROKEN, "CAAM at 30900000 is disabled"),
        ("imx8mp", {"soc@0/crypto@30900000": b"okay\0"}, State.BROKEN, "has no job ring for Linux"),
        ("imx8mp", {"crypto@30900000/jr@1000": b"okay\0", "crypto@30900000/jr@2000": b"disabled\0"}, State.OK,
         "CAAM at 30900000, jr@1000 for Linux"),
        ("imx8qm", {"crypto@31400000/jr@20000": None, "crypto@31400000/jr@30000": None}, State.OK, "CAAM at 31400000"),
        ("imx8ulp", {"crypto@292e0000/jr@1000": None}, State.OK, "CAAM at 292e0000"),
        ("imx93", {}, State.OK, "imx93 has no CAAM"),
    ],
)  # fmt: skip
def test_caam_and_its_job_rings_are_looked_for_where_the_part_has_them(
    tmp_path: Path, part: str, nodes: dict[str, bytes | None], state: State, said: str
) -> None:
    make_tree(tmp_path, part)
    for path, status in nodes.items():
        put_node(tmp_path, path, status)
    found = look_at_tree(desk_of(tmp_path))
    assert (found.state, said in found.cause) == (state, True), found


def test_a_part_that_says_less_has_a_note_for_each_thing_it_keeps(tmp_path: Path) -> None:
    make_tree(tmp_path, "imx93")
    found = list(describe_part(open_imx(tmp_path).read_report()))
    notes = [one.cause for one in found if one.state is State.NOTE]
    assert found[0].cause.startswith("imx93 1.1, uid fedcba98")
    assert [("SRK" in one, "life cycle" in one) for one in notes[1:]] == [(True, False), (False, True)]


@pytest.mark.parametrize(
    ("change", "said"), [("open", "not blown: an open part"), ("field return", "no key of this part is worth anything")]
)
def test_a_part_that_must_not_be_trusted_is_told(tmp_path: Path, change: str, said: str) -> None:
    tree = make_tree(tmp_path, "imx8mm")
    if change == "field return":
        tree.poke(0x8C, b"\1")
    found = find(list(describe_part(open_imx(tmp_path).read_report())))
    assert (found["closed fuse"].state, said in found["closed fuse"].cause) == (State.NOTE, True)


def test_every_kernel_option_that_is_off_has_a_line(tmp_path: Path) -> None:
    make_tree(tmp_path, "imx8mm")
    desk = desk_of(tmp_path, seal=("caam",))
    (question,) = ask_kernel(desk)
    assert tell(question)[0].cause == "the kernel does not show its configuration"
    put_kernel(tmp_path, ())
    assert [one.state for one in tell(question)] == [State.OK]
    wrap = next(one.name for one in list_options() if one.section == "wrap af_alg")
    put_kernel(tmp_path, (wrap,))
    assert [one.state for one in tell(question)] == [State.OK]  # the other way of wrapping is whole
    needed = [one.name for one in list_options() if one.section in ("all", "source caam")]
    put_kernel(tmp_path, tuple(needed))
    lines = tell(question)
    assert [one.cause.split()[0] for one in lines] == needed
    assert {(one.state, one.exit_code) for one in lines} == {(State.MISSING, 77)}
    assert list(ask_kernel(desk_of(tmp_path))) == []


def test_a_tpm_in_lockout_is_a_note_because_our_objects_are_exempt() -> None:
    locked = describe_lockout({0x200: 1 << 9, 0x20E: 32, 0x20F: 32, 0x210: 7200})
    assert (locked.state, locked.exit_code) == (State.NOTE, 0)
    assert "32 failed tries" in locked.cause and "every 7200 s" in locked.next
    assert describe_lockout({0x20E: 1, 0x20F: 32}).cause == "answers; 1 of 32 failed tries"


def test_a_tpm_without_room_says_what_to_do_unless_it_is_managed() -> None:
    full = {0x204: 1, 0x207: 3, 0x20B: 4}
    assert describe_room(full, managed=False).state is State.NOTE
    assert describe_room(full, managed=True).state is State.OK
    assert describe_room({0x204: 3, 0x207: 3, 0x20B: 4}, managed=False).state is State.OK


def test_a_tpm_that_the_image_does_not_name_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/tpmrm0").touch()
    (question,) = ask_tpm(desk_of(tmp_path))
    assert tell(question)[0].state is State.NOTE
    (tmp_path / "dev/tpmrm0").unlink()
    assert list(ask_tpm(desk_of(tmp_path))) == []


def test_a_card_with_no_try_to_spare_is_broken() -> None:
    states = [(describe_tries(tries).state, describe_tries(tries).exit_code) for tries in (3, 2, 1, 0)]
    assert states == [(State.OK, 0), (State.OK, 0), (State.BROKEN, 77), (State.BROKEN, 77)]


def test_a_published_key_is_no_key_of_a_product(tmp_path: Path) -> None:
    """The example of NXP's verification tool, which a careless emulation would use."""
    found = Examination(None, "", PTA, b"\x04" + A_KEY, b"\x55" * 32, TaState.MISSING, True)
    lines = find(list(describe(desk_of(tmp_path), found, needed=True)))
    assert (lines["MP key"].state, lines["MP key"].exit_code) == (State.BROKEN, 77)
    assert (lines["MPMR"].state, "55" * 32 in lines["MPMR"].cause) == (State.NOTE, True)
    assert "mpmr" in lines["MPMR"].next
    assert A_KEY[:16].hex() not in str(lines)
