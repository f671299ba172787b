"""mpserver tpm: the OEM approves what boards measure; what it refuses, what it keeps, and that a real TPM takes it."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpagent.errors import PcrsMoved
from mpagent.hal.tpm import PcrBinding, open_tpm
from mpserver.cli import main
from mpserver.keystore import Keystore
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire import pcr_policy
from mpwire.errors import Unauthentic
from mpwire.p256 import SoftKey
from mpwire.secret import Secret

PRODUCT = """
name = "gateway"
attesters = ["tpm"]
grades = ["L"]

[[slot]]
name = "token"
kind = "random"
"""
DEK = Secret(bytes(range(32)))
MEASURED, ZERO = "5a" * 32, "00" * 32


class Desk:
    """An operator with a state directory and a product."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.state, self.out, self._capsys = folder / "state", folder / "approval", capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        code = main(["--dir", str(self.state), *words])
        return (code, *self._capsys.readouterr())

    def read(self, *words: str) -> Any:
        code, out, err = self.run(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    def authorize(self, *pcrs: str, product: str = "gateway") -> tuple[int, str, str]:
        """Into `out`."""
        given = [word for one in pcrs for word in ("--pcr", one)]
        return self.run("tpm", "authorize-pcrs", "--product", product, *given, "--out", str(self.out))


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    made = Desk(tmp_path, capsys)
    assert made.run("init", "--realm", "lab")[0] == 0
    (tmp_path / "product.toml").write_text(PRODUCT)
    assert made.run("product", "add", str(tmp_path / "product.toml"))[0] == 0
    yield made
    assert made.run("ledger", "verify")[0] == 0


def notes(desk: Desk) -> list[str]:
    return [entry["subject"] for entry in desk.read("ledger", "show") if entry["kind"] == "note"]


def test_authority_is_made_once_and_shown_again(desk: Desk) -> None:
    """Boards are bound to it for good: a second key in its place would lock them all out at the next update."""
    first = desk.read("tpm", "init-pcr-authority")
    again = desk.read("tpm", "init-pcr-authority")
    assert first["new"] and not again["new"] and first["pcr_authority"] == again["pcr_authority"]
    file = desk.state / "keys/pcr-authority.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    code, out, _ = desk.run("tpm", "init-pcr-authority")
    assert code == 0 and f'[pcrs]\nauthority = "{first["pcr_authority"]}"' in out
    assert notes(desk) == ["pcr-authority"]


def test_approval_is_for_this_product_and_realm_and_stands_in_the_ledger(desk: Desk) -> None:
    point = bytes.fromhex(desk.read("tpm", "init-pcr-authority")["pcr_authority"])
    assert desk.authorize(f"7=0x{MEASURED}", f"4={ZERO}")[0] == 0
    approval = pcr_policy.read_approval(desk.out.read_bytes())
    pcr_policy.verify_approval(approval, point)
    assert (approval.realm, approval.product) == ("lab", "gateway")
    assert approval.pcrs == ((4, bytes(32)), (7, bytes.fromhex(MEASURED)))
    assert notes(desk) == ["pcr-authority", "gateway"]


def test_no_other_key_of_the_house_signs_approvals(desk: Desk) -> None:
    """One key, one use: what it signs is not COSE, so no label keeps it apart from what others sign."""
    desk.read("tpm", "init-pcr-authority")
    desk.authorize(f"7={MEASURED}")
    approval = pcr_policy.read_approval(desk.out.read_bytes())
    for name in ("root", "grant", "head"):
        point = SoftKey(Keystore(desk.state / "keys").load_key(name)).public_key()
        with pytest.raises(Unauthentic):
            pcr_policy.verify_approval(approval, point)


def test_nothing_is_approved_before_there_is_an_authority(desk: Desk) -> None:
    code, _, err = desk.authorize(f"7={MEASURED}")
    assert code == 78 and "mpserver tpm init-pcr-authority" in err
    assert not desk.out.exists() and notes(desk) == []


@pytest.mark.parametrize(
    ("pcrs", "says"),
    [
        ([f"7={ZERO}", f"4={ZERO}"], "every PCR is zero"),
        ([f"16={MEASURED}"], "an index of 0 to 15"),
        ([f"23={MEASURED}"], "an index of 0 to 15"),
        ([f"+1={MEASURED}"], "an index of 0 to 15"),
        ([f"x={MEASURED}"], "an index of 0 to 15"),
        (["7"], "64 hex digits"),
        (["7="], "64 hex digits"),
        (["7=" + "5a" * 20], "64 hex digits"),
        (["7=" + "zz" * 32], "64 hex digits"),
        ([f"7={MEASURED}", f"7={ZERO}"], "given twice"),
    ],
)
def test_values_that_bind_nothing_or_are_none_are_refused(desk: Desk, pcrs: list[str], says: str) -> None:
    """T-288 Void binding: PCRs that software resets, or that nobody measured into, hold for any software."""
    desk.read("tpm", "init-pcr-authority")
    code, _, err = desk.authorize(*pcrs)
    assert code == 64 and says in err
    assert not desk.out.exists() and notes(desk) == ["pcr-authority"]


def test_unknown_product_and_a_file_that_stands_are_refused(desk: Desk) -> None:
    desk.read("tpm", "init-pcr-authority")
    code, _, err = desk.authorize(f"7={MEASURED}", product="toaster")
    assert code == 77 and "there is no product toaster" in err
    desk.out.write_bytes(b"the approval of another image")
    code, _, err = desk.authorize(f"7={MEASURED}")
    assert code == 64 and "exists already" in err
    assert desk.out.read_bytes() == b"the approval of another image" and notes(desk) == ["pcr-authority"]


def test_file_that_cannot_be_written_is_named(desk: Desk, tmp_path: Path) -> None:
    desk.read("tpm", "init-pcr-authority")
    desk.out = tmp_path / "no" / "such" / "folder"
    code, _, err = desk.authorize(f"7={MEASURED}")
    assert code == 74 and f"cannot write {desk.out}" in err


def test_board_unseals_what_the_server_approved_and_nothing_else(desk: Desk, tmp_path: Path) -> None:
    """From `tpm2_pcrread` on a bench board, through the server, to a real TPM in software."""
    point = bytes.fromhex(desk.read("tpm", "init-pcr-authority")["pcr_authority"])
    folder = tmp_path / "pcrs"
    folder.mkdir()
    binding = PcrBinding(point, (4, 7), "lab", "gateway", folder)
    with SoftTpm(tmp_path / "tpm") as tpm:
        tpm.use_tool("tpm2_pcrextend", f"4:sha256={MEASURED}")
        values = tpm.use_tool("tpm2_pcrread", "sha256:4,7").decode().split()
        pcrs = [f"{values[place - 1]}={values[place + 1]}" for place, word in enumerate(values) if word == ":"]
        assert [one.partition("=")[0] for one in pcrs] == ["4", "7"]
        assert desk.authorize(*pcrs)[0] == 0
        desk.out.rename(folder / "image")
        with open_tpm(tpm.tcti, MemoryShelf(), binding) as parts:
            blob = parts.sealer.seal(DEK)
            assert parts.sealer.unseal(blob) == DEK
        tpm.use_tool("tpm2_pcrextend", f"7:sha256={MEASURED}")
        with open_tpm(tpm.tcti, MemoryShelf(), binding) as parts, pytest.raises(PcrsMoved, match="PCRs 7 differ"):
            parts.sealer.unseal(blob)
