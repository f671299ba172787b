"""P7 for the OEM without a line: keys, authorities and bundles, killed anywhere and typed again."""

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from mpserver import cli
from tests.mpserver.bundles import KEY, NAME, PRODUCT, RECORD, open_as_board, update_slot
from tests.power.processes import KILLED, axe, list_calls, watch

CALLS = ("rename", "fsync", "fdatasync", "unlink")


def run(state: Path, *words: str) -> Any:
    """A command of this process, whose answer is needed."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        assert cli.main(["--dir", str(state), *words, "--json"]) == 0
    return json.loads(out.getvalue())


def run_apart(state: Path, words: Sequence[str], *prefix: str) -> int:
    """A command of its own process, which may be killed."""
    command = [*prefix, sys.executable, "-m", "mpserver", "--dir", str(state), *words]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


class Bench:
    """States that are alike: one for each place to cut at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new(self, name: str, *, with_key: bool = True) -> Path:
        """A server with a product and, if asked for, its key and an open job."""
        state = self.folder / name
        run(state, "init", "--realm", "lab")
        (self.folder / f"{name}.json").write_text(json.dumps(RECORD))
        (self.folder / "product.toml").write_text(PRODUCT + update_slot("owner"))
        if with_key:
            run(state, "mp", "vault", "import", str(self.folder / f"{name}.json"), "--confirm", NAME)
            run(state, "product", "add", str(self.folder / "product.toml"))
            run(state, "job", "create", "lot-1", "--product", "camera", "--quota", "5")
            run(state, "job", "approve", "lot-1")
        return state


def count_calls(state: Path, words: Sequence[str], call: str, log: Path) -> int:
    assert run_apart(state, words, *watch(call, log)) == 0
    return len(list_calls(log))


@pytest.mark.parametrize("call", CALLS)
def test_bundle_killed_anywhere_is_in_the_ledger_or_nowhere(tmp_path: Path, call: str) -> None:
    """T-662 Torn: what stands in its place is whole and entered; typed again with --force it is made."""
    bench = Bench(tmp_path)
    state = bench.new("watched")
    run(state, "authority", "create", "owner", "--product", "camera")

    def words(out: Path) -> list[str]:
        told = ["--product", "camera", "--job", "lot-1", "--version", "1", "--expires", "30", "--out", str(out)]
        return ["bundle", "create", *told, "--job-secret-out", f"{out}.secret"]

    last = count_calls(state, words(tmp_path / "seen"), call, tmp_path / "log")
    for number in range(1, last + 1):
        out, before = tmp_path / f"{call}{number}", len(run(state, "bundle", "list"))
        assert run_apart(state, words(out), *axe(call, number)) == KILLED
        made = run(state, "bundle", "list")[before:]
        if out.exists():
            assert run(state, "bundle", "verify", str(out))["digest"] == made[0]["digest"]
        assert len(made) <= 1 and run(state, "ledger", "verify")["verified"]
        Path(f"{out}.secret").unlink(missing_ok=True)
        assert run_apart(state, [*words(out), "--force"]) == 0
        assert run(state, "bundle", "verify", str(out))["in_ledger"] and not Path(f"{out}.new").exists()
    assert last or call == "unlink"


@pytest.mark.parametrize("call", CALLS)
def test_key_killed_on_its_way_into_the_vault_is_in_one_place_at_least(tmp_path: Path, call: str) -> None:
    """T-671 Lost key: the file is wiped only once the vault has the key, whenever the power fails."""
    bench = Bench(tmp_path)

    def words(name: str) -> list[str]:
        return ["mp", "vault", "import", str(tmp_path / f"{name}.json"), "--confirm", NAME, "--wipe"]

    last = count_calls(bench.new("watched", with_key=False), words("watched"), call, tmp_path / "log")
    for number in range(1, last + 1):
        name = f"{call}{number}"
        state, source = bench.new(name, with_key=False), tmp_path / f"{call}{number}.json"
        assert run_apart(state, words(name), *axe(call, number)) == KILLED
        kept = [one for one in run(state, "mp", "vault", "list") if one["state"] == "kept"]
        is_whole = source.exists() and KEY.hex().encode() in source.read_bytes()
        assert kept or is_whole
        source.write_text(json.dumps(RECORD))
        assert run_apart(state, words(name)) == 0
        assert [one["state"] for one in run(state, "mp", "vault", "list")] == ["kept"]
        assert run(state, "ledger", "verify")["verified"] and not source.exists()
    assert last


@pytest.mark.parametrize("call", CALLS[:3])
def test_authority_killed_anywhere_has_one_pair_of_keys(tmp_path: Path, call: str) -> None:
    bench, words = Bench(tmp_path), ["authority", "create", "owner", "--product", "camera"]
    last = count_calls(bench.new("watched"), words, call, tmp_path / "log")
    for number in range(1, last + 1):
        state = bench.new(f"{call}{number}")
        assert run_apart(state, words, *axe(call, number)) == KILLED
        assert run_apart(state, words) == 0
        (row,) = run(state, "authority", "list")
        assert len(list((state / "keys").glob("update-*.pem"))) == 1
        told = ["--product", "camera", "--job", "lot-1", "--version", "1", "--expires", "30"]
        run(state, "bundle", "create", *told, "--out", str(tmp_path / f"{number}.out"))
        value = open_as_board(tmp_path / f"{number}.out")["update-owner"]
        assert bytes.fromhex(row["point"])[1:33] in value and run(state, "ledger", "verify")["verified"]
    assert last
