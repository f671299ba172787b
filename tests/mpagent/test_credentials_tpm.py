"""Credentials from a board with a TPM: the chip is asked once, and left to others in between."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpagent.credentials.protocol import TOO_LONG
from mpsim.swtpm import SoftTpm

from .credential_desk import CLOUD, DISK, list_state, make_disk, provision, serving


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[SoftTpm]:
    with SoftTpm(tmp_path / "tpm") as found:
        yield found


def test_chip_is_free_for_others_while_the_service_is_warm(tpm: SoftTpm, tmp_path: Path) -> None:
    """A TPM without a resource manager takes one user at a time: an enrollment goes on beside the service."""
    disk = make_disk(tmp_path / "board", tpm.tcti)
    provision(disk)
    with serving(disk, tmp_path / "run") as running:
        assert running.ask() == CLOUD
        provision(disk, {"cloud": b"another", "disk": DISK})
        assert running.ask() == b"another" and running.ask("cryptsetup/data") == DISK
        assert tpm.use_tool("tpm2_getcap", "handles-transient").strip() == b""
        assert tpm.use_tool("tpm2_getcap", "handles-loaded-session").strip() == b""


def test_disk_beside_another_tpm_is_served_nothing(tpm: SoftTpm, tmp_path: Path) -> None:
    """T-524 Clone: the same disk, and a TPM that is not its own."""
    disk = make_disk(tmp_path / "board", tpm.tcti)
    provision(disk)
    with SoftTpm(tmp_path / "second") as second:
        other = make_disk(tmp_path / "other", second.tcti)
        shutil.rmtree(other / "var/lib/mpagent")
        shutil.copytree(disk / "var/lib/mpagent", other / "var/lib/mpagent")
        before = list_state(other)
        with serving(other, tmp_path / "run") as running:
            assert running.ask() == TOO_LONG and running.ask("cryptsetup/data") == b""
            assert "served" not in running.told
        assert {name: raw for name, raw in list_state(other).items() if name in before} == before


def test_tpm_that_is_gone_is_a_refusal_and_comes_back(tpm: SoftTpm, tmp_path: Path) -> None:
    """The service outlives it: no unit starts with an empty secret, and the next request finds the chip again."""
    disk = make_disk(tmp_path / "board", tpm.tcti)
    provision(disk)
    with serving(disk, tmp_path / "run") as running:
        tpm.cut_power()
        assert running.ask() == TOO_LONG and "served" not in running.told
        tpm.start()
        assert running.ask() == CLOUD
        tpm.cut_power()
        assert running.ask() == CLOUD  # warm: the key is in memory
    assert "latch" not in list_state(disk)
