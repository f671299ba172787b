"""ports.Attester: what every attester promises."""

import pytest

from mpwire.errors import Malformed, Unauthentic
from tests.contract.rigs import Rig

PORT = "attester"

LONGEST = 4096


def test_attester_is_the_same_after_a_restart_and_a_power_cut(rig: Rig) -> None:
    with rig.open() as board:
        first = board.attester.describe()
        assert board.attester.describe() == first
    with rig.open() as board:
        assert board.attester.describe() == first
    rig.power_cycle()
    with rig.open() as board:
        assert board.attester.describe() == first


@pytest.mark.parametrize("size", [1, 31, 32, 33, LONGEST])
def test_signature_holds_for_its_message_and_no_other(rig: Rig, size: int) -> None:
    message = b"\xa5" * size
    with rig.open() as board:
        material, attestation = board.attester.describe(), board.attester.attest(message)

    rig.check(material, attestation, message)
    with pytest.raises(Unauthentic):
        rig.check(material, attestation, message[:-1] + b"\xa4")


@pytest.mark.parametrize("size", [0, LONGEST + 1])
def test_message_out_of_bounds_is_refused_before_it_is_hashed(rig: Rig, size: int) -> None:
    """A caller that hashed first would sign a digest nobody can bind to a message of the wire."""
    with rig.open() as board:
        with pytest.raises(Malformed):
            board.attester.attest(bytes(size))
        rig.check(board.attester.describe(), board.attester.attest(b"still works"), b"still works")


def test_signatures_are_randomised(rig: Rig) -> None:
    """With repeatable ones a power test cannot see a message that was made twice."""
    with rig.open() as board:
        assert board.attester.attest(b"again").signature != board.attester.attest(b"again").signature


def test_attestation_of_a_stranger_does_not_hold(rig: Rig, stranger: Rig, kind: str) -> None:
    """A class key says what a part is, not which: only attesters with a key of their own are told apart."""
    with rig.open() as board, stranger.open() as other:
        ours, theirs = board.attester.describe(), other.attester.describe()
        quote = other.attester.attest(b"who")
    if kind in ("sim", "mp"):
        assert ours == theirs
        return
    assert ours.attester_id[:34] != theirs.attester_id[:34]
    if kind.startswith("tpm"):  # EK Name || AK Name: each tells the boards apart
        assert ours.attester_id[34:] != theirs.attester_id[34:]
    with pytest.raises(Unauthentic):
        rig.check(ours, quote, b"who")


def test_cut_in_the_middle_leaves_the_same_attester(rig: Rig) -> None:
    """The process dies without closing anything, right after it made its key."""
    with rig.open() as board:
        first = board.attester.describe()
        rig.power_cycle()
    with rig.open() as board:
        assert board.attester.describe() == first
        rig.check(first, board.attester.attest(b"later"), b"later")
