"""The soft chip against what is known of the real one."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from mpagent.errors import HardwareGone, NotMine
from mpagent.hal.ports import LifeCycle, Provenance
from mpsim import board, fuses, silicon
from mpsim.backend import open_attester, open_sealer, open_soc
from mpsim.silicon import Chip
from mpwire.errors import Malformed
from mpwire.secret import Secret

MakeChip = Callable[..., Path]
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
DEK = Secret(bytes(range(32)))
SRK_A, SRK_B = fuses.srk_hash_of("a"), fuses.srk_hash_of("b")


def verify(public: bytes, mpmr: bytes, message: bytes, signature: bytes) -> None:
    """As a server would: SHA-256 over MPMR and message, raw r || s."""
    assert len(signature) == 64
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + public)
    key.verify(encode_dss_signature(r, s), mpmr + message, ec.ECDSA(hashes.SHA256()))


def test_signature_covers_the_register_in_front_of_the_message(make_chip: MakeChip) -> None:
    chip = make_chip(closed=True)
    public = Chip(chip).mp_public_key()
    attestation = open_attester(chip).attest(b"statement\0with zero bytes\0")

    assert attestation.mpmr is not None
    verify(public, attestation.mpmr, b"statement\0with zero bytes\0", attestation.signature)
    with pytest.raises(InvalidSignature):
        verify(public, b"", b"statement\0with zero bytes\0", attestation.signature)


def test_register_is_what_op_tee_leaves_in_a_real_imx8mm(make_chip: MakeChip) -> None:
    """The digest is one that U-Boot printed on a real board (hardware facts 2.2, vector B)."""
    attestation = open_attester(make_chip()).attest(b"x")

    assert attestation.mpmr is not None
    assert hashlib.sha256(attestation.mpmr + bytes.fromhex("55DABA11")).hexdigest() == (
        "7d334ea2ff597d06b49d0f936a6e308b74c578148a9fd41a21e0b0f457ed371c"
    )


def test_boot_without_op_tee_leaves_a_zero_register(make_chip: MakeChip) -> None:
    assert open_attester(make_chip(mpmr="zero", closed=True)).attest(b"x").mpmr == bytes(32)


def test_signature_is_fresh_and_of_either_half_every_time(make_chip: MakeChip) -> None:
    """A chip whose signatures repeat, or which folds s, would hide faults of those who verify and store them."""
    attester = open_attester(make_chip(closed=True))
    signatures = {attester.attest(b"the same message").signature for _ in range(64)}
    high = sum(int.from_bytes(signature[32:], "big") > ORDER // 2 for signature in signatures)

    assert len(signatures) == 64
    assert 0 < high < 64


@pytest.mark.parametrize("size", [1, 4095, 4096])
def test_message_up_to_the_limit_is_signed(make_chip: MakeChip, size: int) -> None:
    chip = make_chip(closed=True)
    attestation = open_attester(chip).attest(b"m" * size)
    verify(Chip(chip).mp_public_key(), attestation.mpmr or b"", b"m" * size, attestation.signature)


@pytest.mark.parametrize("size", [0, 4097, 65536])
def test_message_the_chip_cannot_take_is_refused(make_chip: MakeChip, size: int) -> None:
    with pytest.raises(Malformed, match="the chip signs"):
        open_attester(make_chip(closed=True)).attest(b"m" * size)


def test_two_closed_chips_of_one_part_and_srk_have_one_key(make_chip: MakeChip) -> None:
    """It is a class key: it never says which unit."""
    one = open_attester(make_chip("one", closed=True, srk_hash=SRK_A)).describe()
    two = open_attester(make_chip("two", closed=True, srk_hash=SRK_A)).describe()

    assert one == two
    assert one.attester_id == hashlib.sha256(silicon.class_public_key("imx8mm", SRK_A)).digest()
    assert (one.kind, one.profile) == ("mp", "raw")


def test_another_part_or_srk_has_another_key() -> None:
    keys = {silicon.class_public_key(part, srk) for part in fuses.LAYOUTS for srk in (SRK_A, SRK_B)}
    assert len(keys) == 8


def test_open_parts_share_a_test_key_that_is_no_class_key(make_chip: MakeChip) -> None:
    one = open_attester(make_chip("one", srk_hash=SRK_A)).describe()
    two = open_attester(make_chip("two", part="imx8mp", srk_hash=SRK_B)).describe()

    assert one.attester_id == two.attester_id == hashlib.sha256(silicon.test_public_key()).digest()
    assert one.attester_id != hashlib.sha256(silicon.class_public_key("imx8mm", SRK_A)).digest()


def test_fuse_blown_without_reboot_still_signs_with_the_test_key(make_chip: MakeChip) -> None:
    chip = make_chip()
    attester, soc = open_attester(chip), open_soc(chip)
    board.close_fuse(chip)

    assert soc.read_facts().life_cycle is LifeCycle.CLOSED_PENDING_REBOOT
    attestation = attester.attest(b"x")
    verify(silicon.test_public_key(), attestation.mpmr or b"", b"x", attestation.signature)

    board.power_cycle(chip)
    assert soc.read_facts().life_cycle is LifeCycle.CLOSED
    attestation = attester.attest(b"x")
    verify(silicon.class_public_key("imx8mm", soc.read_facts().srk_hash or b""), attestation.mpmr or b"", b"x",
           attestation.signature)  # fmt: skip


def test_closed_part_whose_csf_lacks_unlock_cannot_sign(make_chip: MakeChip) -> None:
    attester = open_attester(make_chip(closed=True, unlock_mfg=False))
    for verb in (attester.describe, lambda: attester.attest(b"x")):
        with pytest.raises(HardwareGone, match="CSF lacks Unlock") as caught:
            verb()
        assert "0xffff000a" in caught.value.detail


def test_csf_without_unlock_goes_unnoticed_until_the_part_is_closed(make_chip: MakeChip) -> None:
    chip = make_chip(unlock_mfg=False)
    assert open_attester(chip).attest(b"x").signature != bytes(64)
    board.close_fuse(chip)
    board.power_cycle(chip)
    with pytest.raises(HardwareGone, match="CSF lacks Unlock"):
        open_attester(chip).attest(b"x")


@pytest.mark.parametrize(("part", "revision", "works"), [("imx8mq", "2.0", False), ("imx8mq", "2.1", True),
                                                         ("imx8mm", "1.0", True)])  # fmt: skip
def test_early_imx8mq_has_no_manufacturing_protection(
    make_chip: MakeChip, part: str, revision: str, works: bool
) -> None:
    attester = open_attester(make_chip(part=part, revision=revision, closed=True))
    if works:
        assert attester.describe().kind == "mp"
        return
    with pytest.raises(HardwareGone, match=r"revision 2\.0 has no manufacturing protection"):
        attester.describe()


@pytest.mark.parametrize(("part", "size", "at"), [("imx8mq", 1024, 0x4), ("imx8mm", 1024, 0x4), ("imx8mn", 1024, 0x4),
                                                  ("imx8mp", 1536, 0x8)])  # fmt: skip
def test_uid_stands_backwards_in_the_fuse_file(make_chip: MakeChip, part: str, size: int, at: int) -> None:
    uid = bytes.fromhex("0123456789ABCDEF")
    chip = make_chip(part=part, uid=uid, srk_hash=SRK_A)
    content = (chip / "nvmem").read_bytes()

    assert len(content) == size
    assert content[at : at + 8] == bytes.fromhex("EFCDAB8967452301")
    assert content[0x60:0x80] == SRK_A
    facts = open_soc(chip).read_facts()
    assert (facts.family, facts.uid, facts.srk_hash, facts.life_cycle) == (part, uid, SRK_A, LifeCycle.OPEN)
    assert facts.provenance == {
        "uid": Provenance.KERNEL,
        "srk_hash": Provenance.KERNEL,
        "life_cycle": Provenance.SECURE_WORLD,
    }


def test_serial_number_of_an_imx8mp_ends_in_its_uid(make_chip: MakeChip) -> None:
    """Newer kernels print 32 digits; the low 16 are what older kernels print and what the agent keeps."""
    shown = board.show(make_chip(part="imx8mp", uid=bytes.fromhex("0123456789ABCDEF")))
    assert len(str(shown["serial_number"])) == 32
    assert str(shown["serial_number"]).endswith("0123456789ABCDEF")


def test_closing_blows_one_fuse_bit_and_no_other(make_chip: MakeChip) -> None:
    chip = make_chip()
    before = bytearray((chip / "nvmem").read_bytes())
    board.close_fuse(chip)
    board.close_fuse(chip)

    before[0x1F] |= 0x02
    assert (chip / "nvmem").read_bytes() == before


def test_blob_is_as_long_as_the_kernel_makes_it(make_chip: MakeChip) -> None:
    sealer = open_sealer(make_chip(closed=True))
    blobs = {sealer.seal(DEK) for _ in range(4)}
    assert {len(blob) for blob in blobs} == {80}
    assert len(blobs) == 4
    assert all(sealer.unseal(blob) == DEK for blob in blobs)
    assert all(DEK.reveal() not in blob for blob in blobs)


def test_blob_made_on_an_open_part_is_dead_after_closing(make_chip: MakeChip) -> None:
    chip = make_chip()
    sealer = open_sealer(chip)
    blob = sealer.seal(DEK)
    board.close_fuse(chip)
    assert sealer.unseal(blob) == DEK

    board.power_cycle(chip)
    with pytest.raises(NotMine):
        sealer.unseal(blob)


def test_blob_made_on_an_open_part_reveals_its_content_to_anyone(make_chip: MakeChip) -> None:
    blob = open_sealer(make_chip("victim")).seal(DEK)
    assert open_sealer(make_chip("thief")).unseal(blob) == DEK


def test_blob_of_another_chip_of_the_same_class_does_not_open(make_chip: MakeChip) -> None:
    one, two = make_chip("one", closed=True, srk_hash=SRK_A), make_chip("two", closed=True, srk_hash=SRK_A)
    assert open_attester(one).describe() == open_attester(two).describe()
    with pytest.raises(NotMine):
        open_sealer(two).unseal(open_sealer(one).seal(DEK))


@pytest.mark.parametrize("at", [0, 31, 32, 63, 64, 79])
def test_blob_with_one_wrong_bit_does_not_open(make_chip: MakeChip, at: int) -> None:
    sealer = open_sealer(make_chip(closed=True))
    blob = bytearray(sealer.seal(DEK))
    blob[at] ^= 0x80
    with pytest.raises(NotMine):
        sealer.unseal(bytes(blob))


@pytest.mark.parametrize("size", [0, 79, 81, 1024])
def test_blob_of_another_length_does_not_open(make_chip: MakeChip, size: int) -> None:
    with pytest.raises(NotMine):
        open_sealer(make_chip(closed=True)).unseal(bytes(size))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_sealer_wraps_a_32_byte_key_and_nothing_else(make_chip: MakeChip, size: int) -> None:
    with pytest.raises(Malformed):
        open_sealer(make_chip(closed=True)).seal(Secret(bytes(size)))
