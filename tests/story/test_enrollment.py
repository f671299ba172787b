"""One enrollment from end to end, and what both sides can show afterwards."""

import hashlib
import json
from pathlib import Path

import pytest

from mpagent.hal.ports import Provenance
from mpagent.record import Stage
from mpserver.cli import main
from mpwire import registry
from mpwire.messages.plain import CLOSED
from tests.attacks.forge import claims_of
from tests.line import STATIC_HEX, Factory, Oem, ask_all


def test_a_board_receives_its_secrets_and_both_sides_can_show_it(factory: Factory, oem: Oem) -> None:
    device = factory.board()

    record = device.enroll()

    assert record.stage is Stage.DONE and record.closed is not None
    secrets = device.secrets()
    assert set(secrets) == {"disk", "cloud", "licence", "identity"}
    assert secrets["licence"].hex() == STATIC_HEX
    assert len(secrets["disk"]) == len(secrets["cloud"]) == 32
    assert oem.granted() == 1 and oem.count("grants") == 1 and oem.count("units") == 1
    closed = CLOSED.decode(record.closed, len(record.closed))
    assert closed.receipt_digest == hashlib.sha256(device.line.heard[-1]).digest()
    assert len(device.line.heard) == 3


def test_the_evidence_says_who_vouches_for_what_it_claims_of_the_board(factory: Factory, oem: Oem) -> None:
    """In profile raw nothing but the signature comes from the chip, and the evidence says so (docs/wire.md 7)."""
    device = factory.board()
    device.enroll()
    (proof,) = [raw for raw in device.line.heard if raw[2] == registry.PROOF]

    assert claims_of(proof).provenance == {
        registry.CLAIM_UEID: Provenance.KERNEL,
        registry.CLAIM_HARDWARE_IDS: Provenance.KERNEL,
        registry.CLAIM_LIFE_CYCLE: Provenance.SECURE_WORLD,
        registry.CLAIM_SRK_HASH: Provenance.KERNEL,
        registry.CLAIM_SWNAME: Provenance.IMAGE,
        registry.CLAIM_SWVERSION: Provenance.IMAGE,
        registry.CLAIM_REALM: Provenance.IMAGE,
        registry.CLAIM_PRODUCT: Provenance.IMAGE,
        registry.CLAIM_SLOTS_WANTED: Provenance.IMAGE,
    }


def test_the_oem_can_show_the_receipt_as_the_board_signed_it(
    factory: Factory, oem: Oem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device, file = factory.board(), tmp_path / "receipt"
    ask_all(device, "kept")
    ueid = str(oem.rows("SELECT hex(ueid) FROM units")[0][0])
    asked = ["--dir", str(oem.folder), "device", "show", ueid, "--json", "--receipt", str(file)]
    assert main(asked) == 77 and not file.exists()
    device.enroll()
    capsys.readouterr()

    assert main(asked) == 0

    shown = json.loads(capsys.readouterr().out)["receipt"]
    assert file.read_bytes() == device.line.heard[-1]
    assert shown["digest"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (shown["closed_proof"], shown["rollback"], shown["escrowed"]) == ("mp-key", "none", [])
    assert shown["slots"] == dict.fromkeys(("disk", "cloud", "licence", "identity"), "sim")


def test_no_secret_lies_in_the_clear_on_either_side(factory: Factory, oem: Oem) -> None:
    device = factory.board()
    device.enroll()

    everything = device.disk_bytes() + oem.dump() + b"".join(device.line.heard + device.line.said)

    for name, value in device.secrets().items():
        if name != "identity":
            assert value not in everything, name


def test_a_finished_board_unseals_again_in_every_later_boot(factory: Factory, oem: Oem) -> None:
    device = factory.board()
    device.enroll()
    first, asked = device.secrets(), len(device.line.heard)

    assert device.enroll().stage is Stage.DONE

    assert device.secrets() == first
    assert len(device.line.heard) == asked
    assert oem.granted() == 1
