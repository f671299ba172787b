"""ports.ClassKey: what every MP public key that is a secret promises."""

from collections.abc import Callable

import pytest

from mpagent.errors import HardwareGone
from mpagent.hal.ports import Board
from mpsim import fuses, silicon
from mpwire import hkdf, mp
from mpwire.mpk import SALT
from mpwire.secret import Secret
from tests.contract.rigs import Rig

PORT = "class_key"


def extract(board: Board) -> Secret:
    assert board.class_key is not None
    return board.class_key.extract()


def test_key_is_the_one_that_the_oem_derives_from_the_public_key(rig: Rig) -> None:
    """RFC 5869's first half over X || Y: what a token at the OEM makes of the same 64 bytes."""
    point = silicon.class_public_key("imx8mm", fuses.srk_hash_of("lab"))
    with rig.open() as board:
        found = extract(board)
        assert found == hkdf.extract(SALT, Secret(point[-64:])) and len(found) == 32
        assert found == extract(board)


def test_key_is_the_same_after_a_restart_a_power_cut_and_on_another_board(rig: Rig, stranger: Rig) -> None:
    with rig.open() as board:
        first = extract(board)
    rig.power_cycle()
    with rig.open() as board, stranger.open() as other:
        assert extract(board) == first == extract(other)


@pytest.mark.parametrize("message", [b"", b"please", bytes(4_096)])
def test_attester_beside_it_signs_nothing_and_names_no_key(rig: Rig, message: bytes) -> None:
    """T-676 Signature: one ECDSA signature by the class key gives it away, so none can be had under mp_use secret."""
    with rig.open() as board:
        with pytest.raises(HardwareGone, match="mp_use"):
            board.attester.attest(message)
        material = board.attester.describe()
    assert (material.kind, material.attester_id, material.public_key) == ("mp", b"", None)


def test_nothing_a_board_shows_of_it_holds_the_key(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    """T-677 Careless print: neither the key, nor its SHA-256, nor what is extracted from it."""
    point = silicon.class_public_key("imx8mm", fuses.srk_hash_of("lab"))[-64:]
    with rig.open() as board:
        shown = f"{board!r} {extract(board)!r} {board.class_key!s}"
        hidden = (point, mp.key_id(b"\x04" + point), extract(board).reveal())
    shown += "".join(capfd.readouterr())
    for one in hidden:
        for form in forms(one):
            assert form not in shown.lower()


def forms(raw: bytes) -> list[str]:
    whole: Callable[[bytes], str] = bytes.hex
    return [whole(raw), whole(raw[:16]), whole(raw[::-1]), repr(raw)[2:-1].lower()]
