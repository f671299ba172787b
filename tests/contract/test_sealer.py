"""ports.Sealer: what every sealer promises."""

import pytest

from mpagent.errors import NotMine, Tampered
from mpwire.errors import Malformed
from mpwire.secret import Secret
from tests.contract.rigs import RIGS, Rig

PORT = "sealer"

DEK = Secret(bytes(range(32)))
BLOB_MAX_BYTES = 1024


def test_sealed_key_comes_back_after_a_restart_and_a_power_cut(rig: Rig) -> None:
    with rig.open() as board:
        blob = board.sealer.seal(DEK)
        assert board.sealer.unseal(blob) == DEK
    with rig.open() as board:
        assert board.sealer.unseal(blob) == DEK
    rig.power_cycle()
    with rig.open() as board:
        assert board.sealer.unseal(blob) == DEK


def test_blob_is_small_shows_nothing_and_is_never_the_same(rig: Rig) -> None:
    with rig.open() as board:
        first, second = board.sealer.seal(DEK), board.sealer.seal(DEK)
    assert len(first) <= BLOB_MAX_BYTES
    assert DEK.reveal()[:8] not in first
    assert first != second


def test_blob_of_a_stranger_is_not_mine(rig: Rig, stranger: Rig) -> None:
    """A thief moves the disk of one board to another."""
    with stranger.open() as other:
        foreign = other.sealer.seal(DEK)
    with rig.open() as board, pytest.raises(NotMine):
        board.sealer.unseal(foreign)
    with stranger.open() as other:
        assert other.sealer.unseal(foreign) == DEK


def test_every_flipped_byte_is_found(rig: Rig) -> None:
    with rig.open() as board:
        blob = board.sealer.seal(DEK)
        for place in range(len(blob)):
            damaged = blob[:place] + bytes([blob[place] ^ 1]) + blob[place + 1 :]
            with pytest.raises((NotMine, Tampered)):
                board.sealer.unseal(damaged)
        assert board.sealer.unseal(blob) == DEK


def test_torn_and_padded_blobs_are_found(rig: Rig) -> None:
    with rig.open() as board:
        blob = board.sealer.seal(DEK)
        for damaged in (b"", blob[:1], blob[: len(blob) // 2], blob[:-1], blob + b"\0", bytes(len(blob)), blob * 2):
            with pytest.raises((NotMine, Tampered)):
                board.sealer.unseal(damaged)
        assert board.sealer.unseal(blob) == DEK


@pytest.mark.parametrize("size", [0, 31, 33, 128])
def test_only_32_bytes_are_sealed(rig: Rig, size: int) -> None:
    with rig.open() as board, pytest.raises(Malformed):
        board.sealer.seal(Secret(bytes(size)))


def test_receipts_know_the_sealer_by_name(rig: Rig, kind: str) -> None:
    with rig.open() as board:
        assert board.sealer.name == RIGS[kind].sealer
