"""`mpagent doctor`: what it says of boards that are whole, half dead or not there, and that it changes nothing."""

import contextlib
import gzip
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpagent.checkup import Finding, State, examine, find_worst
from mpagent.checkup.card import describe_tries
from mpagent.checkup.desk import Desk
from mpagent.checkup.kernel import ask_kernel
from mpagent.checkup.protection import describe
from mpagent.checkup.question import Question, answer
from mpagent.checkup.silicon import describe_part, look_at_tree
from mpagent.checkup.tpm import ask_tpm, describe_lockout, describe_room
from mpagent.compose import Device, Places
from mpagent.durable import Disk
from mpagent.errors import HardwareAbsent, HardwareGone, Tampered
from mpagent.hal.caam import list_options
from mpagent.hal.choose import BoardChoice
from mpagent.hal.mp.door import PTA
from mpagent.hal.mp.examination import Examination, TaState
from mpagent.hal.soc import open_imx
from mpagent.hal.tpm import open_tpm
from mpagent.image import Image
from mpagent.latch import Latch
from mpagent.settings import Settings
from mpsim.board import BoardPlan, make_board
from mpsim.optee.bench import EmulatedTee
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire import mp
from mpwire.guard import Guarded
from tests.line import NOW, class_point
from tests.mpwire.test_mp import A_KEY

from .test_cli import Counter, counter, list_state
from .trees import make_tree

__all__ = ["counter"]  # a fixture

SHIM = Path(__file__).parents[2] / "out" / "shim"
GUARDED = Guarded(None, None)
MP_SIGN = "8aaaf200-2450-11e4-abe2-0002a5d5c51c"


def set_board(disk: Path, *lines: str) -> None:
    """Another [board] in the image's anchors."""
    anchors = disk / "usr/lib/mpagent/anchors.toml"
    board = "[board]\n" + "".join(f"{line}\n" for line in lines)
    anchors.write_text(re.sub(r"(?ms)^\[board\]\n.*?(?=^\[\[slot)", board, anchors.read_text()))


def find(findings: list[Finding]) -> dict[str, Finding]:
    """By ability; the last of several."""
    return {one.ability: one for one in findings}


def children() -> set[str]:
    return {
        number
        for task in Path("/proc/self/task").iterdir()
        for number in (task / "children").read_text(encoding="ascii").split()
    }


# The board as an operator meets it


def test_a_whole_board_has_a_line_for_each_ability(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    before = list_state(disk)
    done = counter.run(disk, "doctor", "--json")
    found = {one["ability"]: one for one in json.loads(done.stdout)}
    assert {name for name, one in found.items() if one["state"] == "broken"} == set(), done.stdout
    wanted = {"image", "state folder", "latch", "vault", "clock", "memory lock", "core dump", "part", "device tree"}
    wanted |= {"OP-TEE", "MP", "soc sim", "attest sim", "seal sim", "keys sealed", "choice", "life cycle", "server"}
    assert wanted <= found.keys()
    assert found["OP-TEE"]["state"] == found["part"]["state"] == "missing"
    assert done.returncode == 0  # what the image does not ask for may be missing
    assert set(found["image"]) == {"ability", "state", "cause", "next", "exit_code"}
    assert counter.peer.bodies == []  # it says nothing to the server
    assert list_state(disk) == before
    assert class_point()[1:33].hex().encode() not in done.stdout


def test_the_worst_failure_is_the_exit_code(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    counter.peer.close()
    line_down = counter.run(disk, "doctor")
    assert line_down.returncode == 69
    assert b"BROKEN   server" in line_down.stdout and b"Next: " in line_down.stdout
    shutil.rmtree(tmp_path / "b1/chip")
    chip_gone = counter.run(disk, "doctor")
    assert chip_gone.returncode == 74
    assert re.search(rb"(MISSING|BROKEN) +choice", chip_gone.stdout) and b"BROKEN   server" in chip_gone.stdout


@pytest.mark.parametrize(
    ("codes", "worst"),
    [((0, 0), 0), ((69, 74), 74), ((74, 77, 69), 77), ((77, 78), 78), ((78, 70), 70), ((70, 65, 69), 65),
     ((75, 69), 69), ((9,), 9)],
)  # fmt: skip
def test_codes_are_ordered_by_what_they_cost(codes: tuple[int, ...], worst: int) -> None:
    assert find_worst(Finding("x", State.BROKEN, "y", "", code) for code in codes) == worst


def test_doctor_asks_for_the_proof_of_closed_that_enroll_will_want(counter: Counter, tmp_path: Path) -> None:
    closed, opened = counter.make_board(tmp_path / "b1"), counter.make_board(tmp_path / "b2", closed=False)
    pinned = counter.run(closed, "doctor").stdout
    anchors = closed / "usr/lib/mpagent/anchors.toml"
    anchors.write_text(re.sub(r"(?m)^mp_key_ids = .*$", "mp_key_ids = []", anchors.read_text()))

    assert b"closed, shown in this boot by mp-key" in pinned
    assert b"closed, shown in this boot by secure-world" in counter.run(closed, "doctor").stdout
    refused = counter.run(opened, "doctor")
    assert refused.returncode == 77 and b"BROKEN   life cycle     the part is not closed" in refused.stdout
    shown = opened / "usr/lib/mpagent/anchors.toml"
    shown.write_text("allow_open = true\n" + shown.read_text())
    assert b"note     life cycle     open; this product takes open parts" in counter.run(opened, "doctor").stdout


def test_a_clock_that_is_wrong_is_a_note_and_no_failure(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    for clock, said in (("1980-01-01", b"before the image was built"), ("2099-01-01", b"over ten years after")):
        done = counter.run(disk, "doctor", clock=clock)
        assert said in done.stdout and done.returncode == 0
    good = time.strftime("%Y-%m-%d", time.gmtime(NOW))
    assert b"OK       clock" in counter.run(disk, "doctor", clock=good).stdout


def test_a_preferred_part_that_is_missing_costs_nothing_while_another_is_there(
    counter: Counter, tmp_path: Path
) -> None:
    disk = counter.make_board(tmp_path / "b1")
    tcti = f'tpm_tcti = "swtpm:path={tmp_path}/none"'
    set_board(disk, 'attest = ["tpm", "sim"]', 'seal = ["tpm", "sim"]', 'keys = ["tpm", "sealed"]', 'soc = "sim"', tcti,
              'sim_chip = "../chip"')  # fmt: skip
    done = counter.run(disk, "doctor")
    assert b"MISSING  seal tpm       as TPM" in done.stdout
    assert b"OK       choice         soc sim, attest sim, seal sim, keys sealed" in done.stdout
    assert done.returncode == 0
    set_board(disk, 'attest = "sim"', 'seal = "tpm"', 'keys = "sealed"', 'soc = "sim"', tcti, 'sim_chip = "../chip"')
    assert counter.run(disk, "doctor").returncode == 74


# Half dead


def test_a_board_with_nothing_is_examined_to_the_end(tmp_path: Path) -> None:
    findings = list(examine(tmp_path, GUARDED))
    found = find(findings)
    assert (found["image"].state, found["image"].exit_code) == (State.BROKEN, 78)
    assert {found[name].state for name in ("part", "device tree", "OP-TEE", "OP-TEE build", "MP")} == {State.MISSING}
    assert find_worst(findings) == 78
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_configuration_does_not_hide_the_hardware(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    (disk / "etc/mpagent/mpagent.toml").write_text("server = 3\n")
    done = counter.run(disk, "doctor")
    assert done.returncode == 78
    assert b"mpagent.toml" in done.stdout and b"OP-TEE" in done.stdout


def hang() -> Finding:
    time.sleep(60)
    raise AssertionError


def hang_deaf() -> Finding:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return hang()


def crash() -> Finding:
    os.abort()


def leave() -> Finding:
    raise SystemExit(0)


def stumble() -> Finding:
    raise ValueError("a secret of mine")


def gone() -> Finding:
    raise HardwareGone("it smokes", advice="open a window")


def some_then_gone() -> Iterator[Finding]:
    yield Finding("first", State.OK, "fine")
    raise HardwareGone("it smokes")


@pytest.mark.parametrize(
    ("ask", "cause", "exit_code"),
    [(hang, "no answer within 0.5 s", 74), (hang_deaf, "no answer within 0.5 s", 74), (crash, "wait status 6", 74),
     (leave, "the process that asked died", 74), (stumble, "a bug in mpagent: ValueError at test_doctor.py", 70),
     (gone, "it smokes", 74)],
)  # fmt: skip
def test_a_question_that_dies_takes_nothing_with_it(ask: object, cause: str, exit_code: int) -> None:
    before = children()
    start = time.monotonic()
    (found,) = answer(Question("thing", ask, deadline_s=0.5))  # type: ignore[arg-type]  # one of the above
    assert time.monotonic() - start < 5
    assert (found.ability, found.state, found.exit_code) == ("thing", State.BROKEN, exit_code)
    assert cause in found.cause and "secret" not in found.cause
    assert children() == before


def test_what_was_found_before_a_failure_is_told() -> None:
    first, then = answer(Question("thing", some_then_gone))
    assert (first.ability, first.cause, then.cause) == ("first", "fine", "it smokes")
    assert then.next == "check that part and its driver"  # not "mpagent doctor tries each one"


def test_what_the_image_can_do_without_ends_no_command() -> None:
    def absent() -> Finding:
        raise HardwareAbsent("no such part", advice="buy one")

    def tampered() -> Finding:
        raise Tampered("latched")

    asked, unasked = (answer(Question("x", absent, needed=False, asked=asked))[0] for asked in (True, False))
    assert (asked.state, asked.next, asked.exit_code) == (State.MISSING, "buy one", 0)
    assert unasked.next == "" and "does not ask for it" in unasked.cause
    assert answer(Question("x", absent))[0].exit_code == 74
    for ask, code in ((tampered, 65), (gone, 74), (hang, 74)):
        question = Question("x", ask, deadline_s=0.2, needed=False)
        assert answer(question)[0].exit_code == code  # named, and broken: an enrollment would stop at it
        assert answer(question._replace(asked=False))[0].exit_code == 0


def test_doctor_changes_nothing_and_leaves_damage_where_it_is(counter: Counter, tmp_path: Path) -> None:
    """T-305 A look at the board must not be the accident: a key made or set aside by it would be another board's."""
    disk = counter.make_board(tmp_path / "b1")
    with SoftTpm(tmp_path / "tpm") as tpm:
        set_board(disk, 'attest = "tpm"', 'seal = "tpm"', 'keys = "tpm"', 'soc = "none"', f'tpm_tcti = "{tpm.tcti}"')
        fresh = counter.run(disk, "doctor")
        assert b"its key is made when the board enrolls" in fresh.stdout and b"OK       seal tpm" in fresh.stdout
        assert b"OK       TPM            answers; 0 of " in fresh.stdout
        assert list_state(disk) == {}
        assert not (disk / "var/lib/mpagent/lock").exists()

        (disk / "var/lib/mpagent/shelf").mkdir()
        (disk / "var/lib/mpagent/shelf/tpm-ak").write_bytes(b"worn flash")
        damaged = counter.run(disk, "doctor")
        assert damaged.returncode == 65 and b"BROKEN   attest tpm     device key tpm-ak" in damaged.stdout
        assert list_state(disk) == {"shelf/tpm-ak": b"worn flash"}


# The terminal


def read_terminal(command: list[str], columns: int) -> list[str]:
    """What a program writes to a terminal of this width."""
    pid, terminal = pty.fork()
    if pid == 0:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.execv(command[0], command)
    content = b""
    with contextlib.suppress(OSError):  # EIO: the program has ended
        while part := os.read(terminal, 4096):
            content += part
    os.close(terminal)
    os.waitpid(pid, 0)
    return content.decode().splitlines()


@pytest.mark.parametrize("columns", [80, 48])
def test_lines_fit_the_terminal_and_stand_in_columns(tmp_path: Path, columns: int) -> None:
    command = [sys.executable, "-m", "mpagent", "--root", str(tmp_path), "doctor"]
    lines = read_terminal(command, columns)
    assert lines and max(map(len, lines)) <= columns
    assert all(line[:24].strip() == "" or line[23] == " " for line in lines)
    assert any(line.startswith(" " * 24 + "Next: ") for line in lines)


def test_a_pipe_gets_one_line_for_each_finding(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mpagent", "--root", str(tmp_path), "doctor"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    as_json = subprocess.run([*command, "--json"], capture_output=True, timeout=60)
    assert len(done.stdout.splitlines()) == len(json.loads(as_json.stdout))
    assert b". Next: flash an image that holds it" in done.stdout.splitlines()[0]


# Over OP-TEE


@contextlib.contextmanager
def imx_board(counter: Counter, folder: Path, **plan: object) -> Iterator[tuple[Path, EmulatedTee]]:
    """A board with the kernel's files of its chip, and its OP-TEE behind /dev/tee0."""
    disk = counter.make_board(folder, closed=bool(plan.get("closed", True)))
    if plan:
        shutil.move(disk, folder.with_name("disk"))
        shutil.rmtree(folder)
        make_board(folder, BoardPlan(**{"closed": True, **plan}))  # type: ignore[arg-type]
        shutil.rmtree(disk)
        shutil.move(folder.with_name("disk"), disk)
    part = str(plan.get("part", "imx8mm"))
    tree = make_tree(disk, part, (folder / "chip/nvmem").read_bytes())
    tree.write("revision", str(plan.get("revision", "1.1")))
    caam = disk / "proc/device-tree/soc@0/bus@30800000/crypto@30900000"
    for ring in ("jr@1000", "jr@2000", "jr@3000"):
        (caam / ring).mkdir(parents=True)
    (caam / "jr@3000/status").write_bytes(b"disabled\0")
    with EmulatedTee(folder, SHIM) as tee:
        yield disk, tee


def ask(disk: Path, tee: EmulatedTee, *words: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code and findings by ability, of the real program over the emulated node."""
    command = [sys.executable, "-m", "mpagent", "--root", str(disk), "doctor", "--json", *words]
    done = subprocess.run(command, env={**os.environ, **tee.environment()}, capture_output=True, timeout=120)
    assert done.stderr == b"", done.stderr.decode()
    return done.returncode, {one["ability"]: one for one in json.loads(done.stdout)}


def test_a_closed_board_with_everything(counter: Counter, tmp_path: Path) -> None:
    with imx_board(counter, tmp_path / "b") as (disk, tee):
        code, found = ask(disk, tee)
    assert code == 0
    assert {found[name]["state"] for name in ("part", "SRK hash", "closed fuse", "device tree", "OP-TEE", "MP",
                                              "CSF Unlock", "MPMR", "MP key")} == {"ok"}  # fmt: skip
    assert "fuses read by the kernel and OP-TEE" in found["part"]["cause"]
    assert found["device tree"]["cause"] == "CAAM at 30900000, jr@1000 jr@2000 for Linux"
    assert found["OP-TEE build"]["cause"] == "has MP, OCOTP, DIGPROG, attestation; not PKCS#11"
    assert found["MPMR"]["cause"].startswith("optee: ")
    assert found["MP key"]["cause"].endswith("pinned by this image")
    assert "MP is shut" not in found


def test_a_csf_without_unlock_is_named(counter: Counter, tmp_path: Path) -> None:
    with imx_board(counter, tmp_path / "b", unlock_mfg=False) as (disk, tee):
        _, found = ask(disk, tee)
    assert found["CSF Unlock"]["state"] == "broken"
    assert "CSF lacks Unlock MFG" in found["CSF Unlock"]["cause"]
    assert "[Unlock] Engine=CAAM Features=MFG" in found["CSF Unlock"]["next"]
    assert "MPMR" not in found and "MP key" not in found


def test_silicon_without_mp_is_told_from_a_missing_unlock(counter: Counter, tmp_path: Path) -> None:
    with imx_board(counter, tmp_path / "b", part="imx8mq", revision="2.0") as (disk, tee):
        _, found = ask(disk, tee)
    assert found["MP"]["state"] == "missing" and "minor revision 0" in found["MP"]["cause"]
    assert found["CSF Unlock"]["state"] == "note"


def test_an_open_part_signs_with_a_test_key(counter: Counter, tmp_path: Path) -> None:
    with imx_board(counter, tmp_path / "b", closed=False) as (disk, tee):
        _, found = ask(disk, tee)
    assert found["closed fuse"]["state"] == found["CSF Unlock"]["state"] == found["MP key"]["state"] == "note"
    assert "this is a test key" in found["MP key"]["cause"]


def test_a_key_that_the_image_does_not_pin_is_named(counter: Counter, tmp_path: Path) -> None:
    with imx_board(counter, tmp_path / "b") as (disk, tee):
        anchors = disk / "usr/lib/mpagent/anchors.toml"
        pinned = anchors.read_text()
        anchors.write_text(pinned.replace(mp.key_id(class_point()).hex(), "00" * 32))
        _, foreign = ask(disk, tee)
        anchors.write_text(re.sub(r"(?m)^mp_key_ids = .*$", "mp_key_ids = []", pinned))
        _, unpinned = ask(disk, tee)
    assert foreign["MP key"]["state"] == "broken" and "none of the 1 that this image pins" in foreign["MP key"]["cause"]
    assert unpinned["MP key"]["state"] == "note" and mp.key_id(class_point()).hex() in unpinned["MP key"]["cause"]


@pytest.mark.parametrize(
    ("scenario", "ability", "state", "said"),
    [
        ({"open_errno": "EACCES"}, "OP-TEE", "broken", "no permission to open /dev/tee0"),
        ({"open_errno": "ENOENT"}, "OP-TEE", "missing", "no OP-TEE here"),
        ({"impl_id": 2}, "OP-TEE", "missing", "another TEE"),
        ({"built_in": ("ocotp",)}, "MP", "missing", "built without CAAM"),
        ({"built_in": ("ocotp",), "supplicant": False}, "MP", "missing", "built without CAAM"),
        ({"access_control": True}, "MP", "broken", "refuses Linux"),
        ({"access_control": True}, "OP-TEE build", "ok", "MP (refuses Linux)"),
        ({"supplicant": False}, "OP-TEE build", "ok", "PKCS#11 (tee-supplicant is silent)"),
        ({"abi": "old"}, "MP", "broken", "pseudo-TA of 2019"),
        ({"mpmr_locked": "sizes"}, "MP", "broken", "MPMR was locked"),
        ({"curve": "P-521"}, "MP", "broken", "P-521"),
        ({"key": "off-curve"}, "MP", "broken", "not a point of P-256"),
    ],
)
def test_every_way_it_fails_has_its_own_line(
    counter: Counter, tmp_path: Path, scenario: dict[str, object], ability: str, state: str, said: str
) -> None:
    with imx_board(counter, tmp_path / "b") as (disk, tee):
        tee.change(**scenario)
        _, found = ask(disk, tee)
    assert (found[ability]["state"], said in found[ability]["cause"]) == (state, True), found[ability]


def test_an_unknown_mpmr_is_printed_for_the_products_list(counter: Counter, tmp_path: Path) -> None:
    with imx_board(counter, tmp_path / "b", mpmr="zero") as (disk, tee):
        _, found = ask(disk, tee)
    assert found["MPMR"]["cause"].startswith("zero: ")


def test_a_production_image_that_lets_the_key_out_fails(counter: Counter, tmp_path: Path) -> None:
    """T-306 Who can still ask the engine on a shipped board reads the key that the non-networked flow keeps secret."""
    with imx_board(counter, tmp_path / "b") as (disk, tee):
        readable = ask(disk, tee, "--production")
        tee.change(access_control=True)
        shut = ask(disk, tee, "--production")
        tee.change(applications={MP_SIGN: "mp_sign"})
        xtest = ask(disk, tee, "--production")
        tee.change(applications={}, supplicant=False)
        unknown = ask(disk, tee, "--production")
        tee.change(supplicant=True, open_errno="EACCES")
        unreachable = ask(disk, tee, "--production")
        tee.change(open_errno="ENOENT")
        absent = ask(disk, tee, "--production")
    assert (readable[0], readable[1]["MP is shut"]["cause"]) == (77, "the MP public key can be read")
    assert (shut[0], shut[1]["MP is shut"]["state"], shut[1]["MP"]["state"]) == (0, "ok", "ok")
    assert (xtest[0], xtest[1]["MP is shut"]["cause"]) == (77, "xtest's mp_sign TA signs for anybody")
    assert (unknown[0], unknown[1]["MP is shut"]["state"]) == (0, "note")
    assert (unreachable[0], unreachable[1]["MP is shut"]["state"]) == (77, "broken")
    assert (absent[0], absent[1]["MP is shut"]["state"]) == (0, "ok")


def test_parts_of_an_image_over_optee_are_opened_one_by_one(counter: Counter, tmp_path: Path) -> None:
    with imx_board(counter, tmp_path / "b") as (disk, tee):
        set_board(disk, 'attest = ["mp", "optee"]', 'seal = ["caam", "sim"]', 'keys = "sealed"', 'soc = "imx"',
                  'sim_chip = "../chip"')  # fmt: skip
        put_kernel(disk, ())
        code, found = ask(disk, tee)
        tee.change(access_control=True)
        shut_code, shut = ask(disk, tee)
    assert code == 0
    assert found["attest mp"]["cause"] == f"mp, id {mp.key_id(class_point()).hex()}"
    assert re.fullmatch("optee, id [0-9a-f]{64}, OP-TEE's memory [0-9a-f]{64}", found["attest optee"]["cause"])
    assert found["seal caam"]["state"] == "missing" and found["kernel"]["state"] == "ok"
    assert found["choice"]["cause"] == "soc imx, attest mp, seal sim, keys sealed"
    assert found["life cycle"]["cause"] == "closed, shown in this boot by mp-key"
    # Refused is not absent: an enrollment stops there, though the next one would work.
    assert shut_code == 77 or shut_code == 74
    assert shut["choice"]["state"] == "broken" and shut["attest optee"]["state"] == "ok"


def test_a_counter_is_not_made_by_looking(counter: Counter, tmp_path: Path) -> None:
    """T-305 A TPM counter comes into being when it is first read."""
    disk = counter.make_board(tmp_path / "b1")
    with SoftTpm(tmp_path / "tpm") as tpm:
        set_board(disk, 'attest = "sim"', 'seal = "sim"', 'keys = "sealed"', 'soc = "sim"', 'sim_chip = "../chip"',
                  'counter = "tpm"', f'tpm_tcti = "{tpm.tcti}"')  # fmt: skip
        done = counter.run(disk, "doctor")
        assert b"OK       anti-rollback  tpm-nv, counts from the first enrollment on" in done.stdout
        with open_tpm(tpm.tcti, MemoryShelf()) as parts:
            tss = parts.chip.tss
            _, nv = parts.chip.run("listing", lambda esapi: esapi.get_capability(tss.TPM2_CAP.HANDLES, 0x01800000, 8))
            assert 0x01804D50 not in [int(one) for one in nv.data.handles]
        counter.enroll(disk)
        assert re.search(rb"OK +anti-rollback +tpm-nv, at [0-9]+", counter.run(disk, "doctor").stdout)


def test_a_cause_is_told_once(counter: Counter, tmp_path: Path) -> None:
    disk = counter.make_board(tmp_path / "b1")
    set_board(disk, 'attest = "tpm"', 'seal = "tpm"', 'keys = "tpm"', 'soc = "none"',
              f'tpm_tcti = "swtpm:path={tmp_path}/none"')  # fmt: skip
    done = counter.run(disk, "doctor").stdout
    assert done.count(b"no TPM answers at") == 1
    assert b"MISSING  choice         as TPM\n" in done


# Single rooms


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


def put_kernel(root: Path, missing: tuple[str, ...]) -> None:
    """A running kernel with every option but these."""
    lines = (f"{one.name}=m\n" for one in list_options() if one.name not in missing)
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/config.gz").write_bytes(gzip.compress("".join(lines).encode()))


def test_every_kernel_option_that_is_off_has_a_line(tmp_path: Path) -> None:
    make_tree(tmp_path, "imx8mm")
    desk = desk_of(tmp_path, seal=("caam",))
    (question,) = ask_kernel(desk)
    assert answer(question)[0].cause == "the kernel does not show its configuration"
    put_kernel(tmp_path, ())
    assert [one.state for one in answer(question)] == [State.OK]
    wrap = next(one.name for one in list_options() if one.section == "wrap af_alg")
    put_kernel(tmp_path, (wrap,))
    assert [one.state for one in answer(question)] == [State.OK]  # the other way of wrapping is whole
    needed = [one.name for one in list_options() if one.section in ("all", "source caam")]
    put_kernel(tmp_path, tuple(needed))
    lines = answer(question)
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
    assert answer(question)[0].state is State.NOTE
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


def test_every_line_stands_in_the_manual(counter: Counter, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/operate.md").read_text(encoding="utf-8")
    manual = page.partition("## The doctor")[2].partition("\n## ")[0]
    known = set(re.findall(r"`([^`]+)`", "".join(re.findall(r"(?m)^\| (`.+?`) \| ", manual))))
    with imx_board(counter, tmp_path / "b") as (disk, tee):
        found = set(ask(disk, tee, "--production")[1])
    named = {one.partition(" ")[0] + " NAME" if one.partition(" ")[0] + " NAME" in known else one for one in found}
    assert named <= known
    assert known - named <= {"TPM", "TPM room", "card PIN", "counter NAME", "kernel", "OK", "note", "MISSING", "BROKEN"}
