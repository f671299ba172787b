"""Points, signatures and Diffie-Hellman: what is not on the curve or not signed goes no further."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from mpwire import p256
from mpwire.errors import Malformed, Unauthentic
from mpwire.secret import Secret

KEY = p256.SoftKey.from_scalar(Secret(bytes(31) + b"\x07"))
OTHER = p256.SoftKey.from_scalar(Secret(bytes(31) + b"\x09"))
FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1


def test_rfc_6979_signature_verifies() -> None:
    """RFC 6979 annex A.2.5, SHA-256, "sample": a signature none of our code made."""
    scalar = Secret(bytes.fromhex("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721"))
    r = "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716"
    s = "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"
    key = p256.SoftKey.from_scalar(scalar)
    p256.verify(key.public_key(), b"sample", bytes.fromhex(r + s))
    with pytest.raises(Unauthentic):
        p256.verify(key.public_key(), b"sampl", bytes.fromhex(r + s))


@pytest.mark.parametrize(
    "point",
    [
        b"",
        bytes(65),
        b"\x04" + bytes(64),
        b"\x04" + KEY.public_key()[1:64],
        KEY.public_key() + b"\x00",
        b"\x02" + KEY.public_key()[1:33],
        b"\x06" + KEY.public_key()[1:],
        KEY.public_key()[:-1] + bytes([KEY.public_key()[-1] ^ 1]),
        b"\x04" + FIELD.to_bytes(32, "big") + KEY.public_key()[33:],
        b"\x00",
    ],
)
def test_point_off_the_curve_is_refused_everywhere(point: bytes) -> None:
    """T Invalid-curve attack: a chosen peer point would tell the private key bit by bit."""
    for use in (
        lambda: p256.load_point(point),
        lambda: p256.verify(point, b"m", bytes(64)),
        lambda: KEY.ecdh(point),
        lambda: p256.write_spki(point),
        lambda: p256.read_spki(p256.write_spki(KEY.public_key())[:26] + point),
    ):
        with pytest.raises(Malformed, match="p256-point"):
            use()


@pytest.mark.parametrize(
    "scalar", [bytes(32), p256.ORDER.to_bytes(32, "big"), b"\xff" * 32, b"\x01" * 31, b"\x01" * 33]
)
def test_scalar_out_of_range_is_refused(scalar: bytes) -> None:
    with pytest.raises(Malformed, match="p256-scalar") as caught:
        p256.SoftKey.from_scalar(Secret(scalar))
    assert scalar.hex() not in repr(caught.value)


def test_key_of_another_curve_is_refused() -> None:
    with pytest.raises(Malformed, match="p256-curve"):
        p256.SoftKey(ec.generate_private_key(ec.SECP384R1()))


@pytest.mark.parametrize(
    "signature",
    [b"", bytes(64), bytes(63), bytes(65), b"\xff" * 64, bytes(32) + b"\x01" * 32, b"\x01" * 32 + bytes(32)],
)
def test_impossible_signature_is_unauthentic(signature: bytes) -> None:
    """T Zero signature: r = s = 0 verified everything in implementations that forgot to look."""
    with pytest.raises(Unauthentic, match="signature"):
        p256.verify(KEY.public_key(), b"m", signature)
    with pytest.raises(Unauthentic, match="signature"):
        p256.verify_digest(KEY.public_key(), bytes(32), signature)


def test_signature_says_message_and_key() -> None:
    signature = KEY.sign(b"message")
    p256.verify(KEY.public_key(), b"message", signature)
    for point, message in ((OTHER.public_key(), b"message"), (KEY.public_key(), b"messagE")):
        with pytest.raises(Unauthentic):
            p256.verify(point, message, signature)


def test_high_s_is_accepted_and_so_names_nothing() -> None:
    """The chip does not normalise S; both forms verify, which is why replay goes by the nonce."""
    signature = KEY.sign(b"message")
    mirrored = signature[:32] + (p256.ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    p256.verify(KEY.public_key(), b"message", mirrored)


def test_digest_of_another_size_is_unauthentic() -> None:
    with pytest.raises(Unauthentic):
        p256.verify_digest(KEY.public_key(), bytes(31), KEY.sign_digest(bytes(32)))
    p256.verify_digest(KEY.public_key(), bytes(32), KEY.sign_digest(bytes(32)))


def test_both_sides_agree_on_x() -> None:
    assert KEY.ecdh(OTHER.public_key()) == OTHER.ecdh(KEY.public_key())
    assert len(KEY.ecdh(OTHER.public_key())) == 32


def test_scalar_survives_and_is_not_printed() -> None:
    key = p256.SoftKey.generate()
    again = p256.SoftKey.from_scalar(key.to_scalar())
    assert again.public_key() == key.public_key()
    assert key.to_scalar().reveal().hex() not in repr(key) + str(key.to_scalar())


def test_spki_is_what_other_libraries_write() -> None:
    der = p256.load_point(KEY.public_key()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert p256.write_spki(KEY.public_key()) == der
    assert p256.read_spki(der) == KEY.public_key()
    for wrong in (b"", der[:-1], der + b"\x00", b"\x31" + der[1:]):
        with pytest.raises(Malformed):
            p256.read_spki(wrong)


@given(st.binary(min_size=64, max_size=64), st.binary(max_size=70))
def test_garbage_never_verifies_and_never_surprises(signature: bytes, point: bytes) -> None:
    with pytest.raises(Unauthentic):
        p256.verify(KEY.public_key(), b"m", signature)
    with pytest.raises(Malformed):
        p256.load_point(point)
