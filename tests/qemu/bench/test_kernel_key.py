"""The kernel-key sealer on a real kernel: its contract inside the guest, then reboots and power cuts from outside."""

import json
import shutil
from typing import Any

from tests.qemu.guest import Machine, Outcome

CUTS = 10


def answer_of(outcome: Outcome) -> Any:
    """The one line of JSON of inside/once.py."""
    assert outcome.status == 0, outcome.output
    return json.loads(outcome.output.splitlines()[-1])


def load_and_cut(machine: Machine) -> Any:
    """One boot that opens the blob and ends without a word to the TPM."""
    with machine.boot("load_until_cut", bare=True) as guest:
        guest.wait_for("BENCH-LOADED", 60)
        return json.loads((machine.work / "output").read_text().splitlines()[-1])


def test_sealer_keeps_its_contract_on_a_real_kernel(machine: Machine) -> None:
    """The suite of ports.Sealer and the tests beside it (inside/), with systemd, over AF_ALG and over dm-crypt."""
    outcome = machine.run("sealer", limit_s=500)
    print(outcome.output)
    assert outcome.status == 0, outcome.output


def test_ten_power_cuts_after_a_load_lock_no_tpm(machine: Machine) -> None:
    """Each cut comes right after the key was loaded; ten boots later it still opens, and no failed try was counted."""
    sealed = answer_of(machine.run("seal", limit_s=60, bare=True))
    assert sealed["name"] == "kernel-tpm" and sealed["wrapper"] == "af_alg"
    answers = [load_and_cut(machine) for _ in range(CUTS)]
    assert [answer["opened"] for answer in answers] == [True] * CUTS
    assert [answer["counter"] for answer in answers] == [0] * CUTS
    assert answer_of(machine.run("load", limit_s=60, bare=True)) == {"opened": True, "counter": 0}


def test_control_a_key_of_the_usual_form_counts_the_cut(machine: Machine) -> None:
    """Were this not so, the test above would show nothing."""
    made = machine.run("make_counted_key", limit_s=60, bare=True)
    assert made.status == 0, made.output
    with machine.boot("load_counted_key_until_cut", bare=True) as guest:
        guest.wait_for("BENCH-LOADED", 60)
    assert answer_of(machine.run("counter", limit_s=60, bare=True))["counter"] > 0


def test_disk_of_another_machine_does_not_open(machine: Machine, other_machine: Machine) -> None:
    """A thief moves the disk: another TPM refuses the blob by name, and the first one still opens it."""
    answer_of(machine.run("seal", limit_s=60, bare=True))
    shutil.copy(machine.work / "blob", other_machine.work / "blob")
    stolen = answer_of(other_machine.run("load", limit_s=60, bare=True))
    assert (stolen["opened"], stolen["kind"]) == (False, "NotMine")
    assert answer_of(machine.run("load", limit_s=60, bare=True))["opened"] is True


def test_kernel_with_another_source_is_refused_by_name(machine: Machine) -> None:
    """An image for CAAM on a board whose kernel seals by its TPM."""
    refusal = answer_of(machine.run("refusal", limit_s=60, bare=True))
    assert refusal["kind"] == "HardwareAbsent"
    assert "come from tpm" in refusal["text"]


def test_source_on_the_command_line_that_does_not_work_is_named(machine: Machine) -> None:
    """trusted.source=caam on a board without one: the TPM is there, and the kernel has no trusted keys at all."""
    refusal = answer_of(machine.run("refusal", limit_s=60, bare=True, options="trusted.source=caam"))
    assert refusal["kind"] == "HardwareGone"
    assert "trusted.source=tpm" in refusal["advice"]
