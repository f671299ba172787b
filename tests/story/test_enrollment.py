"""One enrollment from end to end, and what both sides can show afterwards."""

import hashlib

from mpagent.record import Stage
from mpwire.messages.plain import CLOSED
from tests.line import STATIC_HEX, Factory, Oem


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
