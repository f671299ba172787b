"""The kernel-key sealer on a real kernel: its contract inside the guest, then reboots and power cuts from outside."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.qemu.guest import Machine, Outcome

CUTS = 10
SUITE_MAX_S = 900.0
"""About 100 s on an idle machine: every byte of two blobs is flipped in turn."""
JOB_MAX_S = 90.0
"""About 6 s on an idle machine, most of it to import the TSS under emulation."""


def answer_of(outcome: Outcome) -> Any:
    """The one line of JSON of inside/once.py."""
    assert outcome.status == 0, outcome.output
    return json.loads(outcome.output.splitlines()[-1])


def load_and_cut(machine: Machine) -> Any:
    """One boot that opens the blob and ends without a word to the TPM."""
    with machine.boot("load_until_cut", bare=True) as guest:
        guest.wait_for("BENCH-LOADED", JOB_MAX_S)
        return json.loads((machine.work / "output").read_text().splitlines()[-1])


@pytest.fixture(scope="module")
def sealed_machine() -> Iterator[Machine]:
    """A machine that sealed a key in an earlier boot, and was switched off in order."""
    with tempfile.TemporaryDirectory(prefix="mpguest-") as folder:
        machine = Machine(Path(folder))
        sealed = answer_of(machine.run("seal", limit_s=JOB_MAX_S, bare=True))
        assert (sealed["name"], sealed["wrapper"], sealed["counter"]) == ("kernel-tpm", "af_alg", 0)
        yield machine


def test_sealer_keeps_its_contract_on_a_real_kernel(machine: Machine) -> None:
    """The suite of ports.Sealer and the tests beside it (inside/), with systemd, over AF_ALG and over dm-crypt."""
    outcome = machine.run("sealer", limit_s=SUITE_MAX_S)
    print(outcome.output)
    assert outcome.status == 0, outcome.output


def test_disk_of_another_machine_does_not_open(sealed_machine: Machine, other_machine: Machine) -> None:
    """T-480 Theft: the disk in another machine. Its TPM refuses the blob by name, and the first still opens it."""
    shutil.copy(sealed_machine.work / "blob", other_machine.work / "blob")
    stolen = answer_of(other_machine.run("load", limit_s=JOB_MAX_S, bare=True))
    assert (stolen["opened"], stolen["kind"]) == (False, "NotMine")
    assert answer_of(sealed_machine.run("load", limit_s=JOB_MAX_S, bare=True)) == {"opened": True, "counter": 0}


def test_ten_power_cuts_after_a_load_lock_no_tpm(sealed_machine: Machine) -> None:
    """T-481 Accident: the plug is pulled right after the key was loaded, ten times. No failed try is counted."""
    answers = [load_and_cut(sealed_machine) for _ in range(CUTS)]
    assert answers == [{"opened": True, "counter": 0}] * CUTS
    assert answer_of(sealed_machine.run("load", limit_s=JOB_MAX_S, bare=True)) == {"opened": True, "counter": 0}


def test_control_a_key_of_the_usual_form_counts_the_cut(machine: Machine) -> None:
    """Were this not so, the test above would show nothing."""
    made = machine.run("make_counted_key", limit_s=JOB_MAX_S, bare=True)
    assert made.status == 0, made.output
    with machine.boot("load_counted_key_until_cut", bare=True) as guest:
        guest.wait_for("BENCH-LOADED", JOB_MAX_S)
    assert answer_of(machine.run("counter", limit_s=JOB_MAX_S, bare=True))["counter"] > 0


def test_kernel_with_another_source_is_refused_by_name(machine: Machine) -> None:
    """An image for CAAM on a board whose kernel seals by its TPM."""
    refusal = answer_of(machine.run("refusal", limit_s=JOB_MAX_S, bare=True))
    assert refusal["kind"] == "HardwareAbsent"
    assert "come from tpm" in refusal["text"]


def test_source_on_the_command_line_that_does_not_work_is_named(machine: Machine) -> None:
    """trusted.source=caam on a board without one: the TPM is there, and the kernel has no trusted keys at all."""
    refusal = answer_of(machine.run("refusal", limit_s=JOB_MAX_S, bare=True, options="trusted.source=caam"))
    assert refusal["kind"] == "HardwareGone"
    assert "trusted.source=tpm" in refusal["advice"]
