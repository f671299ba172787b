"""P7 for the first command of all: an init that was cut leaves nothing that the next one cannot replace."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509

from mpserver import cli
from mpserver.keystore import STANDBY, Keystore
from mpserver.state import Places
from mpsim.softhsm import SoftHsm
from tests.power.processes import KILLED, axe, list_calls, watch


def init(directory: Path, *prefix: str, token: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
    """`mpserver init`, in a process of its own."""
    command = [sys.executable, "-m", "mpserver", "--dir", str(directory), "init", "--realm", "lab", *token]
    return subprocess.run([*prefix, *command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("call", ["rename", "fdatasync"])
def test_init_killed_anywhere_is_done_by_the_next_init(tmp_path: Path, call: str) -> None:
    """From the first key to the last of the three moves into place."""
    log = tmp_path / "calls"
    assert init(tmp_path / "watched", *watch(call, log)).returncode == 0
    last = len(list_calls(log))
    numbers = {1, last // 2, last - 3, last - 2, last - 1, last} if last > 6 else range(1, last + 1)

    for number in numbers:
        directory = tmp_path / f"server{number}"
        assert init(directory, *axe(call, number)).returncode == KILLED
        done = init(directory)
        assert done.returncode == 0, done.stderr
        check_whole(directory)


def test_init_with_a_token_killed_anywhere_is_done_by_the_next_init(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """T-610 Accident: as above, and what it left in the token is destroyed first: six keys in the end, all in use."""
    log = tmp_path / "calls"
    assert init(tmp_path / "watched", *watch("rename", log), token=make_token(tmp_path / "token")).returncode == 0
    last = len(list_calls(log))

    for number in (1, 2, 3, last // 2, last - 3, last - 1, last):
        directory, token = tmp_path / f"server{number}", make_token(tmp_path / f"token{number}")
        assert init(directory, *axe("rename", number), token=token).returncode == KILLED
        done = init(directory, token=token)
        assert done.returncode == 0, (number, done.stderr)
        check_whole(directory)
        capsys.readouterr()
        assert cli.main(["--dir", str(directory), "hsm", "audit", "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)) == 6


def make_token(folder: Path) -> list[str]:
    """An empty token in its slot, and what init is told of it."""
    token = SoftHsm(folder, "oem")
    token.initialize()
    return ["--hsm", str(token.make_module()), "--token", "oem", "--pin-file", str(token.pin_file)]


def check_whole(directory: Path) -> None:
    """Keys, ledger and standby root of one and the same init, and nothing else."""
    assert sorted(path.name for path in directory.iterdir()) == ["keys", "ledger.db", "take-offline"]
    assert not list(directory.rglob("*.new"))
    store = Keystore(Places(directory).keys)
    standby = x509.load_pem_x509_certificate(store.read_public(f"{STANDBY}.crt"))
    assert standby.public_key() == store.load_key(STANDBY).public_key()
    assert cli.main(["--dir", str(directory), "doctor"]) == 0


def test_init_on_a_set_up_server_changes_nothing(tmp_path: Path) -> None:
    """Nor does a folder that looks like an interrupted init's: the keys in place decide."""
    directory = tmp_path / "server"
    assert init(directory).returncode == 0
    (directory / "init.new/keys").mkdir(parents=True)
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}

    assert init(directory).returncode == 78

    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before
