"""The template against the library's reader: what it writes is the one request it should be."""

from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mpagent.csr import write_csr
from mpwire import p256
from mpwire.secret import Secret

KEY = p256.SoftKey.from_scalar(Secret(bytes(31) + b"\x07"))


@dataclass
class FixedSignature:
    """A device key whose signature is given: its numbers may have any length."""

    signature: bytes

    def public_key(self) -> bytes:
        return KEY.public_key()

    def sign(self, _: bytes) -> bytes:
        return self.signature

    ecdh = KEY.ecdh


def test_request_proves_its_key_and_says_nothing_else() -> None:
    for _ in range(64):  # high bits and leading zeros of r and s come by chance
        request = x509.load_der_x509_csr(write_csr(KEY))
        assert request.is_signature_valid
        spki = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert p256.read_spki(spki) == KEY.public_key()
        assert list(request.subject) == [] and list(request.extensions) == [] and list(request.attributes) == []


def test_library_writes_the_same_bytes_back() -> None:
    written = write_csr(KEY)
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
    written = write_csr(FixedSignature(number + number))
    x509.load_der_x509_csr(written)
    assert written.endswith(bytes.fromhex(spelled) * 2)
