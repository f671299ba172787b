"""A TPM, or what stands in its place, that answers nonsense, hangs up, or is not what its name says."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from mpagent.errors import HardwareAbsent, HardwareGone, NotMine
from mpagent.hal.tpm import open_tpm, templates
from mpagent.hal.tpm.chip import Chip, Meaning, open_chip
from mpagent.hal.tpm.counter import TpmCounter
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire.secret import Secret

DEK = Secret(bytes(range(32)))


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[SoftTpm]:
    with SoftTpm(tmp_path / "tpm") as running:
        yield running


class LyingChip(Chip):
    """Gives `lies[what was done]` in place of the TPM's own answer."""

    def __init__(self, tpm: SoftTpm, lies: dict[str, Callable[[Any], Any]]) -> None:
        tss = import_module("tpm2_pytss")
        super().__init__(tss, tss.ESAPI(tpm.tcti))
        self.lies = lies

    def run(self, doing: str, verb: Callable[[Any], Any], *meaning: Meaning) -> Any:
        answer = super().run(doing, verb, *meaning)
        return self.lies[doing](answer) if doing in self.lies else answer


def test_list_of_handles_without_end_is_a_broken_tpm(tpm: SoftTpm) -> None:
    """Otherwise the agent would read it for ever, and nobody would know why it stands still."""
    chip = LyingChip(tpm, {"listing what is loaded": lambda page: (True, page[1])})
    with pytest.raises(HardwareGone, match="without end"):
        chip.flush_leftovers()
    chip.close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [(b"", "nonsense"), (bytes(11), "nonsense"), (b"\x80\x01\x00\x00\x00\x0a\x00\x00\x01\x01", "0x101")],
)
def test_slot_that_cannot_be_emptied_is_said_at_open(tpm: SoftTpm, answer: bytes, says: str) -> None:
    tpm.use_tool("tpm2_startauthsession", "-S", f"{tpm.tcti.split('=')[1]}.session")
    chip = LyingChip(tpm, {"emptying the TPM": lambda _: answer})
    with pytest.raises(HardwareGone, match=says):
        chip.flush_leftovers()
    chip.close()


def test_counter_beyond_every_generation_is_named(tpm: SoftTpm) -> None:
    chip = LyingChip(tpm, {})
    counter = TpmCounter(chip)
    counter.read()
    for raw in (b"\x80" + bytes(7), bytes(7), b""):
        chip.lies = {"reading the counter": lambda answer, raw=raw: raw if len(bytes(answer)) == 8 else answer}
        with pytest.raises(HardwareGone, match="no number a vault could have"):
            counter.read()
    chip.close()


def test_sealed_object_of_another_size_is_not_mine(tpm: SoftTpm) -> None:
    """Whoever may use the TPM may seal anything under the same root."""
    with open_tpm(tpm.tcti, MemoryShelf()) as parts:
        short = parts.chip.make_child(templates.SEALED, "sealing", sealed=b"no key of ours").write()
        with pytest.raises(NotMine, match="14 bytes"):
            parts.sealer.unseal(short)


def test_sha256_bank_that_is_off_is_named(tpm: SoftTpm) -> None:
    """Some firmware switches on SHA-1 alone."""
    tpm.use_tool("tpm2_pcrallocate", "-P", "", "sha1:all+sha256:none")
    tpm.power_cycle()
    with open_tpm(tpm.tcti, MemoryShelf()) as parts, pytest.raises(HardwareGone, match="SHA-256 PCR bank is off"):
        parts.attester.attest(b"message")


def test_socket_that_nobody_serves_is_broken_and_a_missing_one_absent(tmp_path: Path) -> None:
    """There but broken stops the agent; what is not there lets it look at the next backend."""
    path = Path(f"{tmp_path}/s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with pytest.raises(HardwareGone, match="no TPM answers") as gone:
        open_chip(f"swtpm:path={path}")
    assert not isinstance(gone.value, HardwareAbsent)
    path.unlink()
    with pytest.raises(HardwareAbsent):
        open_chip(f"swtpm:path={path}")


def test_tpm_that_hangs_up_while_it_is_emptied_is_gone(tpm: SoftTpm, tmp_path: Path) -> None:
    path = tmp_path / "s"
    Path(f"{path}.ctrl").symlink_to(f"{tpm.tcti.removeprefix('swtpm:path=')}.ctrl")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        Thread(target=hang_up_after_each_command, args=(listener,), daemon=True).start()
        with pytest.raises(HardwareGone, match="does not answer while listing what is loaded"):
            open_chip(f"swtpm:path={path}")


def hang_up_after_each_command(listener: socket.socket) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client:
            client.recv(64)


def test_resource_manager_is_not_emptied(tpm: SoftTpm, tmp_path: Path) -> None:
    """What others hold behind /dev/tpmrm0 is theirs, and the kernel keeps us apart."""
    real = Path(tpm.tcti.removeprefix("swtpm:path="))
    (tmp_path / "tpmrm0").symlink_to(real)
    (tmp_path / "tpmrm0.ctrl").symlink_to(f"{real}.ctrl")
    session = str(tmp_path / "session")
    tpm.use_tool("tpm2_startauthsession", "-S", session)
    with open_tpm(f"swtpm:path={tmp_path}/tpmrm0", MemoryShelf()) as parts:
        assert parts.sealer.unseal(parts.sealer.seal(DEK)) == DEK
    held = tpm.use_tool("tpm2_getcap", "handles-saved-session") + tpm.use_tool("tpm2_getcap", "handles-loaded-session")
    assert held.strip()


def test_missing_library_is_a_wrong_configuration_with_the_way_out(tpm: SoftTpm) -> None:
    """The image names a TPM and does not carry tpm2-pytss: another image, not another chip, is the answer."""
    program = "import sys; sys.modules['tpm2_pytss'] = None\n"
    program += "from mpagent.hal.tpm.chip import open_chip\nfrom mpagent.errors import ConfigWrong\n"
    program += "try: open_chip(sys.argv[1])\nexcept ConfigWrong as wrong: print(wrong)\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run(
        [sys.executable, "-c", program, tpm.tcti], env=environment, capture_output=True, text=True, check=True
    )
    assert "its extra `tpm`" in told.stdout
