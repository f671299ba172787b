"""MP-ES256 against what real parts signed (docs/hardware.md, vectors A and B)."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpwire import mp, p256
from mpwire.errors import Malformed, Unauthentic
from mpwire.limits import MP_MESSAGE_MAX_BYTES
from mpwire.secret import Secret
from tests.vectors.silicon import A_DIGEST, A_KEY, A_MESSAGE, A_SIGNATURE, B_DIGEST, B_MESSAGE

KEY = p256.SoftKey.from_scalar(Secret(bytes(31) + b"\x05"))


def test_vector_a_of_a_real_part_verifies() -> None:
    assert mp.digest(A_MESSAGE, mp.MPMR_ZERO).hex() == A_DIGEST
    mp.verify_mp(mp.read_key(A_KEY), A_MESSAGE, mp.MPMR_ZERO, A_SIGNATURE)


def test_vector_a_fails_without_its_32_zero_bytes() -> None:
    with pytest.raises(Unauthentic):
        p256.verify(mp.read_key(A_KEY), A_MESSAGE, A_SIGNATURE)
    p256.verify(mp.read_key(A_KEY), bytes(32) + A_MESSAGE, A_SIGNATURE)


def test_vector_b_has_the_digest_the_part_printed() -> None:
    assert mp.digest(B_MESSAGE, mp.MPMR_OPTEE).hex() == B_DIGEST


def test_optee_constant_comes_from_its_text() -> None:
    """Words of the text reversed; the short last word from the text's start, or from its end once that is mended."""
    text = b"value to fill the MPMR content"
    words = [text[at : at + 4][::-1] for at in range(0, 28, 4)]
    assert b"".join(words) + b"\x00\x00" + text[:2][::-1] == mp.MPMR_OPTEE
    assert b"".join(words) + b"\x00\x00" + text[28:][::-1] == mp.MPMR_OPTEE_FIXED


@pytest.mark.parametrize("mpmr", [mp.MPMR_OPTEE, mp.MPMR_OPTEE_FIXED, b"\x01" + bytes(31)])
def test_mpmr_told_otherwise_than_signed_is_unauthentic(mpmr: bytes) -> None:
    """T Lying about the MPMR: it travels unprotected, so only the hash vouches for it."""
    with pytest.raises(Unauthentic, match="mp-signature"):
        mp.verify_mp(mp.read_key(A_KEY), A_MESSAGE, mpmr, A_SIGNATURE)


def test_bytes_cannot_move_between_mpmr_and_message() -> None:
    with pytest.raises(Malformed, match="mp-mpmr-size"):
        mp.verify_mp(mp.read_key(A_KEY), b"\x00" + A_MESSAGE, bytes(31), A_SIGNATURE)


def test_zero_signature_of_a_failed_call_is_named() -> None:
    with pytest.raises(Unauthentic, match="mp-signature-zero"):
        mp.verify_mp(mp.read_key(A_KEY), A_MESSAGE, mp.MPMR_ZERO, bytes(64))


@pytest.mark.parametrize("size", [0, MP_MESSAGE_MAX_BYTES + 1])
def test_message_the_chip_would_not_take_is_refused(size: int) -> None:
    with pytest.raises(Malformed, match="mp-message-size"):
        mp.digest(bytes(size), mp.MPMR_ZERO)
    assert len(mp.digest(bytes(MP_MESSAGE_MAX_BYTES), mp.MPMR_ZERO)) == 32


@pytest.mark.parametrize("raw", [bytes(64), A_KEY[:63], A_KEY + b"\x00", A_KEY[:63] + b"\x00", b"\x04" + A_KEY])
def test_key_that_no_chip_has_is_refused(raw: bytes) -> None:
    """A chip whose key generation failed returns zeros with success."""
    with pytest.raises(Malformed, match="p256-point"):
        mp.read_key(raw)


def test_key_id_is_over_x_and_y_alone() -> None:
    assert mp.key_id(mp.read_key(A_KEY)) == sha256(A_KEY).digest()
    with pytest.raises(Malformed):
        mp.key_id(A_KEY)


@given(st.binary(min_size=1, max_size=4096), st.binary(min_size=32, max_size=32), st.integers(0, 511))
def test_one_flipped_bit_is_unauthentic(message: bytes, mpmr: bytes, bit: int) -> None:
    signature = KEY.sign_digest(mp.digest(message, mpmr))
    mp.verify_mp(KEY.public_key(), message, mpmr, signature)
    flipped = (int.from_bytes(signature, "big") ^ 1 << bit).to_bytes(64, "big")
    with pytest.raises(Unauthentic):
        mp.verify_mp(KEY.public_key(), message, mpmr, flipped)
