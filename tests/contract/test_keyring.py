"""ports.Keyring and ports.DeviceKey: what every keyring promises."""

import pytest

from mpagent.errors import NotMine, StorageFull, Tampered
from mpsim.shelf import MemoryShelf
from mpwire import hpke, p256
from mpwire.errors import Malformed
from mpwire.secret import Secret
from tests.contract.rigs import RIGS, Rig, check_signature

PORT = "keyring"

LABEL = "sign"


class FullShelf(MemoryShelf):
    """A state partition that fills up after `room` writes."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def put(self, name: str, blob: bytes) -> None:
        if len(self.blobs) >= self.room:
            raise StorageFull("no room on the state partition")
        super().put(name, blob)


def test_key_is_the_same_after_a_restart_and_a_power_cut(rig: Rig) -> None:
    with rig.open() as board:
        public = board.keyring.find_or_make(LABEL).public_key()
        assert board.keyring.find_or_make(LABEL).public_key() == public
    with rig.open() as board:
        assert board.keyring.find_or_make(LABEL).public_key() == public
    rig.power_cycle()
    with rig.open() as board:
        key = board.keyring.find_or_make(LABEL)
        assert key.public_key() == public
        check_signature(key, b"after the cut")


def test_each_label_has_a_key_of_its_own(rig: Rig) -> None:
    with rig.open() as board:
        points = {board.keyring.find_or_make(label).public_key() for label in ("sign", "kem", "certificate-tls")}
    assert len(points) == 3


def test_key_is_on_the_shelf_before_anybody_hears_of_it(rig: Rig) -> None:
    """A cut right after the public half was sent must not leave a device without its key."""
    with rig.open() as board:
        public = board.keyring.find_or_make(LABEL).public_key()
        rig.power_cycle()
    with rig.open() as board:
        assert board.keyring.find_or_make(LABEL).public_key() == public


@pytest.mark.parametrize("room", [0, 1])
def test_full_disk_gives_no_key_at_all(rig: Rig, room: int) -> None:
    """Nobody may hear of a key that the disk could not take; with room again, there is one and it stays."""
    shelf = FullShelf(room)
    with rig.open(shelf) as board, pytest.raises(StorageFull):
        for label in ("sign", "kem"):
            board.keyring.find_or_make(label)
    shelf.room = 8
    with rig.open(shelf) as board:
        public = board.keyring.find_or_make("kem").public_key()
    with rig.open(shelf) as board:
        assert board.keyring.find_or_make("kem").public_key() == public


@pytest.mark.parametrize("size", [0, 1, 64, 4096, 100_000])
def test_signature_is_raw_and_verifies(rig: Rig, size: int) -> None:
    with rig.open() as board:
        assert len(check_signature(board.keyring.find_or_make(LABEL), b"m" * size)) == 64


def test_signatures_are_randomised_and_always_64_bytes(rig: Rig) -> None:
    """Often enough to meet a leading zero in r or s, one in 128, which a TPM may leave out."""
    with rig.open() as board:
        key = board.keyring.find_or_make(LABEL)
        signatures = {check_signature(key, b"again") for _ in range(300)}
    assert len(signatures) == 300
    assert {len(signature) for signature in signatures} == {64}


def test_ecdh_agrees_with_the_other_side(rig: Rig) -> None:
    """Often enough to meet a shared X with a leading zero."""
    with rig.open() as board:
        key = board.keyring.find_or_make("kem")
        for _ in range(300):
            peer = p256.SoftKey.generate()
            shared = key.ecdh(peer.public_key())
            assert len(shared) == 32
            assert shared == peer.ecdh(key.public_key())


def test_grant_encryption_opens_with_the_kem_key(rig: Rig) -> None:
    with rig.open() as board:
        key = board.keyring.find_or_make("kem")
        enc, ciphertext = hpke.seal_base(key.public_key(), b"info", b"aad", Secret(b"slots"))
        assert hpke.open_base(key, enc, b"info", b"aad", ciphertext) == Secret(b"slots")


def test_point_off_the_curve_is_refused(rig: Rig) -> None:
    """Invalid-curve attack: each answer to such a point would give away some bits of the key."""
    good = p256.SoftKey.generate().public_key()
    off_curve = good[:-1] + bytes([good[-1] ^ 1])
    beyond = b"\x04" + b"\xff" * 64
    with rig.open() as board:
        key = board.keyring.find_or_make("kem")
        for point in (
            off_curve,
            beyond,
            b"\x04" + bytes(64),
            b"\x00",
            b"",
            good[:-1],
            good + b"\0",
            b"\x02" + good[1:33],
        ):
            with pytest.raises(Malformed):
                key.ecdh(point)
        assert len(key.ecdh(good)) == 32


def test_keys_of_a_cloned_disk_are_not_mine(rig: Rig, stranger: Rig) -> None:
    """P12: the disk of a finished board in another board gives no key, and nothing on it changes."""
    with stranger.open() as other:
        public = other.keyring.find_or_make(LABEL).public_key()
    before = dict(stranger.shelf.blobs)

    with rig.open(stranger.shelf) as board, pytest.raises(NotMine):
        board.keyring.find_or_make(LABEL)

    assert stranger.shelf.blobs == before
    with stranger.open() as other:
        assert other.keyring.find_or_make(LABEL).public_key() == public


def test_damaged_key_is_found_and_never_replaced(rig: Rig) -> None:
    """A silently made new key would look like a clone to the issuer."""
    with rig.open() as board:
        public = board.keyring.find_or_make(LABEL).public_key()
    whole = dict(rig.shelf.blobs)

    for name, blob in whole.items():
        for place in range(0, len(blob), 7):
            rig.shelf.blobs = {**whole, name: blob[:place] + bytes([blob[place] ^ 0x10]) + blob[place + 1 :]}
            before = dict(rig.shelf.blobs)
            with rig.open() as board, pytest.raises((Tampered, NotMine)):
                board.keyring.find_or_make(LABEL)
            assert rig.shelf.blobs == before

    rig.shelf.blobs = whole
    with rig.open() as board:
        assert board.keyring.find_or_make(LABEL).public_key() == public


def test_torn_key_is_tampered(rig: Rig, kind: str) -> None:
    with rig.open() as board:
        board.keyring.find_or_make(LABEL)
    name = f"{RIGS[kind].shelved}{LABEL}"
    whole = rig.shelf.blobs[name]
    for torn in (b"", whole[:5], whole[:-1], whole + b"\0"):
        rig.shelf.blobs[name] = torn
        with rig.open() as board, pytest.raises(Tampered):
            board.keyring.find_or_make(LABEL)


def test_shelf_shows_no_private_key(rig: Rig) -> None:
    """The only software copy is the scalar; look for it where a keyring keeps it at all."""
    with rig.open() as board:
        key = board.keyring.find_or_make(LABEL)
        stored = b"".join(rig.shelf.blobs.values())
        if isinstance(key, p256.SoftKey):
            assert key.to_scalar().reveal() not in stored
        assert b"PRIVATE KEY" not in stored
