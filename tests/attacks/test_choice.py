"""Somebody makes the agent choose another part than the one the image prefers, or the one the board began with."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from mpagent.errors import HardwareGone
from mpagent.record import Stage
from mpsim.faults import Fault, script
from mpsim.swtpm import SoftTpm
from tests.attacks.forge import prove
from tests.line import PRODUCT, Factory, Oem, ask_all, refusal_check

MakeOem = Callable[..., Oem]
MakeFactory = Callable[[Oem], Factory]


def test_part_that_appears_later_does_not_take_over(factory: Factory, oem: Oem) -> None:
    """T-400 Swap: a board that sealed with one part starts with another that the image prefers; nothing changes."""
    device = factory.board()
    device.choice = device.choice._replace(seal=("tpm", "sim"), tpm_tcti="device:/nowhere/tpm")
    assert device.enroll().chosen == {"attest": "sim", "seal": "sim", "keys": "sealed"}
    kept, said = device.kept(), len(device.line.heard)

    with SoftTpm(device.folder / "tpm") as tpm:
        plugged = replace(device, choice=device.choice._replace(tpm_tcti=tpm.tcti))
        with pytest.raises(HardwareGone, match="began with seal = 'sim', and now 'tpm' is the first that is there"):
            plugged.enroll()

    assert device.kept() == kept and len(device.line.heard) == said
    assert device.enroll().stage is Stage.DONE and oem.granted() == 1


def test_part_unplugged_in_the_middle_is_not_replaced(factory: Factory, oem: Oem) -> None:
    """T-401 Downgrade: the better part is taken away between two messages; the enrollment waits for it."""
    with SoftTpm(factory.folder / "tpm") as tpm:
        device = factory.board()
        device.choice = device.choice._replace(seal=("tpm", "sim"), tpm_tcti=tpm.tcti)
        ask_all(device, "proven")
        kept = device.kept()
        bare = replace(device, choice=device.choice._replace(tpm_tcti="device:/nowhere/tpm"))
        with pytest.raises(HardwareGone, match="began with seal = 'tpm'"):
            bare.enroll()
        assert device.kept() == kept
        assert device.enroll().stage is Stage.DONE and oem.granted() == 1


def test_part_that_fails_is_not_passed_over(factory: Factory, oem: Oem) -> None:
    """T-402 Downgrade: the preferred part is broken on purpose; the next one on the list is not asked."""
    with SoftTpm(factory.folder / "tpm") as tpm:
        device = factory.board()
        device.choice = device.choice._replace(attest=("sim", "tpm"), tpm_tcti=tpm.tcti)
        script(device.folder / "chip", "describe", [Fault.GONE])
        with pytest.raises(HardwareGone, match="stopped answering"):
            device.enroll()
    assert device.kept().keys() <= {"lock"} and oem.granted() == 0
    assert device.line.heard == []


def test_weaker_sealer_than_the_product_takes_is_refused(make_oem: MakeOem, make_factory: MakeFactory) -> None:
    """T-403 Downgrade: an image that lists a weaker sealer, and a board on which it is the first that is there."""
    oem = make_oem(product='sealers = ["caam", "tpm"]\n' + PRODUCT)
    device = make_factory(oem).board()

    assert refusal_check(oem.hear(prove(device))) == "backends"

    assert oem.granted() == 0 and oem.count("entries") == 0
    with SoftTpm(device.folder / "tpm") as tpm:
        better = make_factory(oem).board()
        better.choice = better.choice._replace(seal=("tpm",), tpm_tcti=tpm.tcti)
        assert better.enroll().stage is Stage.DONE and oem.granted() == 1


def test_device_keys_elsewhere_than_the_product_wants_are_refused(make_oem: MakeOem, make_factory: MakeFactory) -> None:
    """T-404 Downgrade: device keys in software for a product that wants them in hardware."""
    oem = make_oem(product='keyrings = ["tpm", "pkcs11"]\n' + PRODUCT)

    assert refusal_check(oem.hear(prove(make_factory(oem).board()))) == "backends"

    assert oem.granted() == 0 and oem.count("entries") == 0
