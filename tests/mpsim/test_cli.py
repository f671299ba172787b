"""The command line: what a stranger types, wrong and right."""

import hashlib
import json
from pathlib import Path

import pytest

from mpsim.cli import main


def ask(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, object]:
    """Run a command that must succeed, and read its JSON."""
    assert main([str(argument) for argument in arguments] + ["--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert isinstance(answer, dict)
    return answer


def test_board_goes_from_open_to_closed_by_fuse_and_reboot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "deep" / "board"
    new = ask(capsys, "board", "new", folder, "--part", "imx8mm", "--srk", "ab" * 32, "--uid", "0123456789ABCDEF")
    assert (new["life_cycle"], new["srk_hash"], new["uid"]) == ("open", "ab" * 32, "0123456789abcdef")
    assert ask(capsys, "board", "close", folder)["life_cycle"] == "closed-pending-reboot"
    assert ask(capsys, "board", "power-cycle", folder)["life_cycle"] == "closed"
    closed = ask(capsys, "board", "show", folder)
    assert closed == {**new, "life_cycle": "closed", "mp_key_id": closed["mp_key_id"]}
    assert closed["mp_key_id"] != new["mp_key_id"]


def test_registration_record_names_the_key_that_closed_boards_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = ask(capsys, "mp-key", "--part", "imx8mp", "--srk-name", "acme")
    shown = ask(capsys, "board", "new", tmp_path / "b", "--part", "imx8mp", "--srk-name", "acme", "--closed")
    assert record["mp_key_id"] == shown["mp_key_id"]
    assert record["srk_hash"] == shown["srk_hash"]
    assert hashlib.sha256(bytes.fromhex(str(record["public_key"]))).hexdigest() == record["mp_key_id"]
    assert (record["part"], record["origin"], record["profile"]) == ("imx8mp", "simulated", "raw")


def test_the_test_key_record_names_the_key_that_open_boards_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = ask(capsys, "mp-key", "--part", "imx8mm", "--test")
    shown = ask(capsys, "board", "new", tmp_path / "b", "--part", "imx8mm")
    assert (record["mp_key_id"], record["srk_hash"]) == (shown["mp_key_id"], shown["srk_hash"])
    closed = ask(capsys, "mp-key", "--part", "imx8mm")
    assert record["mp_key_id"] != closed["mp_key_id"]
    assert record["use"] == "test" and "use" not in closed


def test_show_prints_neither_the_mp_public_key_nor_the_master_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under mp_use = secret the public key is a secret of the product."""
    record = ask(capsys, "mp-key", "--part", "imx8mm")
    ask(capsys, "board", "new", tmp_path / "b", "--part", "imx8mm", "--closed")
    assert main(["board", "show", str(tmp_path / "b")]) == 0
    printed = capsys.readouterr().out.lower()
    assert str(record["mp_key_id"]) in printed
    assert str(record["public_key"])[:64] not in printed
    assert (tmp_path / "b/chip/otpmk").read_bytes().hex() not in printed


def test_board_that_cannot_sign_is_shown_with_the_cause(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = ask(capsys, "board", "new", tmp_path / "b", "--part", "imx8mm", "--closed", "--no-unlock-mfg")
    assert shown["mp_key_id"] is None
    assert "CSF lacks Unlock" in str(shown["mp_trouble"])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "board",
        "board new B",
        "board new B --part imx6",
        "board new B --part imx8mm --uid 0123",
        "board new B --part imx8mm --uid 0123456789abcdeg",
        "board new B --part imx8mm --srk 00",
        "board new B --part imx8mm --revision b0",
        "board new B --part imx8mm --mpmr other",
        "board fault B sign busy",
        "board fault B attest explode",
        "mp-key",
        "reboot",
    ],
)
def test_wrong_usage_is_one_line_and_64(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([word if word != "B" else str(tmp_path / "b") for word in line.split()])
    assert ended.value.code == 64
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["show", "close", "power-cycle"])
def test_folder_without_a_board_is_one_line_and_74(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["board", verb, str(tmp_path)]) == 74
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_board_in_the_way_is_73(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["board", "new", str(tmp_path), "--part", "imx8mm"]) == 73
    assert main(["board", "new", str(tmp_path / "file"), "--part", "imx8mm"]) == 73
    assert main(["board", "new", str(tmp_path / "file" / "deeper"), "--part", "imx8mm"]) == 73
    assert len(capsys.readouterr().err.splitlines()) == 3
    assert (tmp_path / "file").read_text() == "mine"


def test_scripted_fault_meets_the_next_call_of_another_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(capsys, "board", "new", tmp_path / "b", "--part", "imx8mm")
    said = ask(capsys, "board", "fault", tmp_path / "b", "attest", "busy", "zero")
    assert said == {"verb": "attest", "faults": ["busy", "zero"]}
    assert json.loads((tmp_path / "b/chip/faults.json").read_text()) == {"attest": ["busy", "zero"]}


def test_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("mpsim ")
