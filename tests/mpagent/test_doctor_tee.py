"""`mpagent doctor` over OP-TEE: the real program and ioctls against the emulated node, one line for each cause."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpagent.hal.mp.door import PTA
from mpwire import mp
from tests.line import class_point

from .doctor_bench import ask, imx_board, put_kernel, set_board
from .test_cli import Counter, counter

__all__ = ["counter"]  # a fixture

MP_SIGN = "8aaaf200-2450-11e4-abe2-0002a5d5c51c"


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
        tee.change(open_errno=None, access_control=False)
        tee.break_next("GENERIC", times=None)
        failing = ask(disk, tee, "--production")
    assert (readable[0], readable[1]["MP is shut"]["cause"]) == (77, "the MP public key can be read")
    assert (shut[0], shut[1]["MP is shut"]["state"], shut[1]["MP"]["state"]) == (0, "ok", "ok")
    assert (xtest[0], xtest[1]["MP is shut"]["cause"]) == (77, "xtest's mp_sign TA signs for anybody")
    assert (unknown[0], unknown[1]["MP is shut"]["state"]) == (0, "note")
    assert (unreachable[0], unreachable[1]["MP is shut"]["state"]) == (77, "broken")
    assert (absent[0], absent[1]["MP is shut"]["state"]) == (0, "ok")
    assert (failing[0], failing[1]["MP is shut"]["state"]) == (77, "broken")


def test_a_production_image_whose_engine_does_not_answer_is_not_passed(counter: Counter, tmp_path: Path) -> None:
    """T-306 A door that only happens to be stuck now is no shut one, and an image that needs no MP is judged too."""
    with imx_board(counter, tmp_path / "b") as (disk, tee):
        tee.break_next("HANG", uuid=str(PTA), times=None)
        code, found = ask(disk, tee, "--production")
    assert (code, found["MP is shut"]["state"]) == (77, "broken")


def test_a_csf_without_unlock_shuts_the_engine_too(counter: Counter, tmp_path: Path) -> None:
    with imx_board(counter, tmp_path / "b", unlock_mfg=False) as (disk, tee):
        _, found = ask(disk, tee, "--production")
    assert (found["MP is shut"]["state"], found["MP is shut"]["exit_code"]) == ("ok", 0)


def test_a_production_image_that_pins_no_key_is_judged_without_a_signature(counter: Counter, tmp_path: Path) -> None:
    """T-626 Guard that burns: the check of a production image makes the signature that gives the key away.

    Whether the key is a secret such an image does not say, so the open door alone fails it.
    """
    with imx_board(counter, tmp_path / "b") as (disk, tee):
        anchors = disk / "usr/lib/mpagent/anchors.toml"
        anchors.write_text(re.sub(r"(?m)^mp_key_ids = .*\n", "", anchors.read_text()))
        readable = ask(disk, tee, "--production")
        tee.break_next("NOT_SUPPORTED", command=1, times=None)
        hidden = ask(disk, tee, "--production")
        tee.change(access_control=True, faults=())
        shut = ask(disk, tee, "--production")
        assert tee.count_signatures() == 0
        tee.change(access_control=False)
        ask(disk, tee)
        assert tee.count_signatures() > 0, "the plain doctor of an image that may sign tries it"
    assert (readable[0], readable[1]["MP is shut"]["cause"]) == (77, "the MP public key can be read")
    assert "not asked to sign (this image pins no key that signs)" in readable[1]["MP"]["cause"]
    assert (hidden[0], hidden[1]["MP is shut"]["cause"]) == (
        77,
        "Linux may open the engine, and have it sign; nobody tried",
    )
    assert (shut[0], shut[1]["MP is shut"]["state"]) == (0, "ok")


@pytest.mark.parametrize("folder", ["lib/optee_armtz", "usr/lib/optee_armtz"])
def test_a_test_ta_that_only_lies_there_fails_a_production_image(counter: Counter, tmp_path: Path, folder: str) -> None:
    """T-631 Sleeping door: xtest's mp_sign is installed, and tee-supplicant does not run while the doctor asks."""
    with imx_board(counter, tmp_path / "b") as (disk, tee):
        tee.change(access_control=True, supplicant=False)
        assert ask(disk, tee, "--production")[0] == 0
        (disk / folder).mkdir(parents=True)
        (disk / folder / f"{MP_SIGN}.ta").touch()
        code, found = ask(disk, tee, "--production")
    assert (code, found["MP is shut"]["state"]) == (77, "broken")
    assert "once tee-supplicant runs" in found["MP is shut"]["cause"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_doctor_that_is_stopped_leaves_no_process_asking(
    counter: Counter, tmp_path: Path, number: signal.Signals
) -> None:
    with imx_board(counter, tmp_path / "b") as (disk, tee):
        tee.break_next("HANG", times=None)
        command = [sys.executable, "-m", "mpagent", "--root", str(disk), "doctor"]
        environment = {**os.environ, **tee.environment()}
        done = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                start_new_session=True)  # fmt: skip
        assert done.stdout is not None
        while b"clock" not in done.stdout.readline():
            pass
        time.sleep(0.5)  # into the call that hangs
        done.send_signal(number)
        done.communicate(timeout=20)
        assert done.returncode == -number
        until = time.monotonic() + 5
        while time.monotonic() < until and group_is_alive(done.pid):
            time.sleep(0.05)
        assert not group_is_alive(done.pid)


def group_is_alive(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


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


def test_every_line_stands_in_the_manual(counter: Counter, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/operate.md").read_text(encoding="utf-8")
    manual = page.partition("## The doctor")[2].partition("\n## ")[0]
    known = set(re.findall(r"`([^`]+)`", "".join(re.findall(r"(?m)^\| (`.+?`) \| ", manual))))
    with imx_board(counter, tmp_path / "b") as (disk, tee):
        found = set(ask(disk, tee, "--production")[1])
    named = {one.partition(" ")[0] + " NAME" if one.partition(" ")[0] + " NAME" in known else one for one in found}
    assert named <= known
    others = {"TPM", "TPM room", "card PIN", "counter NAME", "record NAME", "kernel"}
    others |= {"bundle place", "receipts", "job secret"}  # tests/offline asks for these
    assert known - named <= others | {"OK", "note", "MISSING", "BROKEN"}
