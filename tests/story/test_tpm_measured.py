"""A board whose image binds secrets to approved software and counts vaults in the TPM: shipped, updated, attacked."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mpagent.errors import PcrsMoved, Tampered
from mpagent.hal.choose import PcrChoice
from mpagent.hal.tpm import open_tpm
from mpagent.record import Stage
from mpsim.shelf import MemoryShelf
from mpsim.swtpm import SoftTpm
from mpwire.cose import read_sign1
from mpwire.labels import TYP_RECEIPT
from mpwire.limits import RECEIPT_MAX_BYTES
from mpwire.messages.grant import RECEIPT
from mpwire.trust import ES256_ONLY
from tests.line import Device, Factory, Oem
from tests.mpagent.measured import PCRS, PRODUCT, REALM, MeasuredBoard


@dataclass
class Shipped:
    """A board on a line, and what it measures."""

    device: Device
    measured: MeasuredBoard
    oem: Oem

    def latched(self) -> bool:
        """Whether a run found tampering."""
        return "latch" in self.device.kept()


@pytest.fixture
def shipped(tmp_path: Path) -> Iterator[Shipped]:
    with SoftTpm(tmp_path / "tpm") as tpm, ExitStack() as stack:
        measured = MeasuredBoard(tpm, tmp_path / "pcrs")
        measured.boot("loader 1")
        with open_tpm(tpm.tcti, MemoryShelf()) as parts:
            ek = parts.attester.describe().attester_id[:34]
        oem = Oem(tmp_path / "oem", eks=(ek,))
        device = Factory(tmp_path, oem, stack).tpm_board(tpm)
        pcrs = PcrChoice(measured.oem.public_key(), PCRS, REALM, PRODUCT, measured.approvals)
        device.choice = device.choice._replace(pcrs=pcrs, counter=("tpm",))
        yield Shipped(device, measured, oem)
        oem.stop()


def test_board_enrolls_and_the_next_approved_image_has_its_secrets(shipped: Shipped) -> None:
    shipped.measured.approve("loader 1")
    assert shipped.device.enroll().stage is Stage.DONE
    first = shipped.device.secrets()
    ((raw,),) = shipped.oem.rows("SELECT receipt FROM units")
    receipt = RECEIPT.decode(read_sign1(raw, typ=TYP_RECEIPT, algs=ES256_ONLY).payload, RECEIPT_MAX_BYTES)
    assert receipt.rollback == "tpm-nv"
    shipped.measured.boot("loader 2")
    shipped.measured.approve("loader 2", "next")
    assert shipped.device.secrets() == first
    assert shipped.device.enroll().stage is Stage.DONE


def test_image_that_nobody_approved_seals_nothing_and_goes_on_once_it_is(shipped: Shipped) -> None:
    """The OEM forgot the approval: found on the first board of the line, which is not spoilt by it."""
    with pytest.raises(PcrsMoved, match="holds no approval"):
        shipped.device.enroll()
    assert not shipped.latched()
    shipped.measured.approve("loader 1")
    assert shipped.device.enroll().stage is Stage.DONE
    assert shipped.oem.granted() == 1


def test_other_software_on_a_shipped_board_gets_nothing_and_spoils_nothing(shipped: Shipped) -> None:
    """T-280 Other software: a thief boots his own loader on a finished board, then gives it back."""
    shipped.measured.approve("loader 1")
    shipped.device.enroll()
    first, before = shipped.device.secrets(), shipped.device.kept()
    shipped.measured.boot("the thief's loader")
    for attempt in (shipped.device.secrets, shipped.device.enroll):
        with pytest.raises(PcrsMoved, match="PCRs 4 differ"):
            attempt()
    assert shipped.device.kept() == before and not shipped.latched()
    shipped.measured.boot("loader 1")
    assert shipped.device.secrets() == first


def test_deleted_counter_is_found_by_the_next_run(shipped: Shipped) -> None:
    """T-285 Deleted counter: on a finished board, to make room for an old disk."""
    shipped.measured.approve("loader 1")
    shipped.device.enroll()
    shipped.measured.tpm.use_tool("tpm2_nvundefine", "0x01804D50", "-C", "o")
    with pytest.raises(Tampered, match="tpm-nv"):
        shipped.device.enroll()
    assert shipped.latched()


def test_board_that_lost_its_disk_before_the_record_is_counted_on(shipped: Shipped) -> None:
    """A rework: an empty state partition on a TPM that has counted already is no tampering."""
    shipped.measured.approve("loader 1")
    with open_tpm(shipped.measured.tpm.tcti, MemoryShelf()) as parts:
        parts.counter.raise_to(parts.counter.read() + 3)
        height = parts.counter.read()
    shutil.rmtree(shipped.device.disk.folder, ignore_errors=True)
    assert shipped.device.enroll().generation == height + 1
    assert shipped.device.secrets()
