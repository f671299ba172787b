"""The template against the library's reader: what it writes is the one request it should be."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from mpwire import p256
from mpwire.csr import read_csr, write_csr
from mpwire.errors import Malformed, Unauthentic
from mpwire.secret import Secret

KEY = p256.SoftKey.from_scalar(Secret(bytes(31) + b"\x07"))


def test_request_proves_its_key_and_says_nothing_else() -> None:
    for _ in range(64):  # high bits and leading zeros of r and s come by chance
        request = x509.load_der_x509_csr(write_csr(KEY.public_key(), KEY.sign))
        assert request.is_signature_valid
        spki = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert p256.read_spki(spki) == KEY.public_key()
        assert list(request.subject) == [] and list(request.extensions) == [] and list(request.attributes) == []


def test_library_writes_the_same_bytes_back() -> None:
    written = write_csr(KEY.public_key(), KEY.sign)
    assert x509.load_der_x509_csr(written).public_bytes(Encoding.DER) == written


@pytest.mark.parametrize(
    ("number", "spelled"),
    [
        (bytes(31) + b"\x01", "020101"),
        (bytes(31) + b"\x80", "02020080"),
        (bytes(30) + b"\x7f\xff", "02027fff"),
        (b"\x7f" + b"\xff" * 31, "02207f" + "ff" * 31),
        (b"\x80" + bytes(31), "02210080" + "00" * 31),
    ],
)
def test_numbers_of_any_length_are_positive_and_shortest(number: bytes, spelled: str) -> None:
    written = write_csr(KEY.public_key(), lambda _: number + number)
    x509.load_der_x509_csr(written)
    assert written.endswith(bytes.fromhex(spelled) * 2)


def test_reader_gives_the_key_of_what_was_written() -> None:
    for _ in range(64):
        assert read_csr(write_csr(KEY.public_key(), KEY.sign)) == KEY.public_key()


def test_library_requests_of_the_same_content_are_the_template() -> None:
    private = ec.derive_private_key(7, ec.SECP256R1())
    written = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(private, SHA256())
    assert read_csr(written.public_bytes(Encoding.DER)) == KEY.public_key()


def test_a_request_with_a_subject_is_refused() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody else")])
    private = ec.derive_private_key(7, ec.SECP256R1())
    written = x509.CertificateSigningRequestBuilder().subject_name(name).sign(private, SHA256())
    with pytest.raises(Malformed, match="csr-template"):
        read_csr(written.public_bytes(Encoding.DER))


def test_a_request_signed_by_another_key_proves_nothing() -> None:
    other = p256.SoftKey.from_scalar(Secret(bytes(31) + b"\x08"))
    with pytest.raises(Unauthentic):
        read_csr(write_csr(KEY.public_key(), other.sign))


GOOD = write_csr(KEY.public_key(), KEY.sign)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_request_changed_in_any_byte_is_refused(place: int, change: int) -> None:
    bent = GOOD[:place] + bytes([GOOD[place] ^ change]) + GOOD[place + 1 :]
    with pytest.raises((Malformed, Unauthentic)):
        read_csr(bent)


@given(st.binary(max_size=400) | st.integers(0, len(GOOD) - 1).map(lambda size: GOOD[:size]))
def test_garbage_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        read_csr(raw)
