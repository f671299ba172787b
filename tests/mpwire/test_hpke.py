"""HPKE against RFC 9180's own vectors and two other implementations."""

import hmac
import json
from pathlib import Path
from typing import Any

import pyhpke
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from mpwire import hpke, p256
from mpwire.errors import Malformed, Unauthentic
from mpwire.secret import Secret

FILE = Path(__file__).parent.parent / "vectors" / "hpke" / "rfc9180-base-p256-aes256gcm.json"
VECTORS: list[dict[str, Any]] = json.loads(FILE.read_text())
RECEIVER = p256.SoftKey.from_scalar(Secret(bytes(31) + b"\x21"))
OTHER = p256.SoftKey.from_scalar(Secret(bytes(31) + b"\x22"))
INFO, AAD, PLAIN = b"info", b"aad", Secret(b"a disk key of 32 bytes, or so !!")


def unhex(vector: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(vector[name])


def key_of(vector: dict[str, Any], name: str) -> p256.SoftKey:
    return p256.SoftKey.from_scalar(Secret(unhex(vector, name)))


def test_the_vectors_are_those_of_the_suite() -> None:
    assert [(v["mode"], v["kem_id"], v["kdf_id"], v["aead_id"]) for v in VECTORS] == [(0, 0x10, 1, 2)]
    assert len(VECTORS[0]["encryptions"]) == 257


@pytest.mark.parametrize("vector", VECTORS)
def test_key_schedule_of_rfc_9180(vector: dict[str, Any]) -> None:
    ephemeral, receiver = key_of(vector, "skEm"), key_of(vector, "skRm")
    assert (ephemeral.public_key(), receiver.public_key()) == (unhex(vector, "enc"), unhex(vector, "pkRm"))
    shared = hpke.agree(ephemeral.ecdh(unhex(vector, "pkRm")), unhex(vector, "enc"), unhex(vector, "pkRm"))
    assert shared.reveal().hex() == vector["shared_secret"]
    made = hpke.schedule(shared, unhex(vector, "info"))
    assert made.key.reveal().hex() == vector["key"]
    assert made.base_nonce.hex() == vector["base_nonce"]
    assert made.exporter.reveal().hex() == vector["exporter_secret"]


@pytest.mark.parametrize("vector", VECTORS)
def test_first_message_of_rfc_9180_is_sealed_and_opened(vector: dict[str, Any]) -> None:
    first, info = vector["encryptions"][0], unhex(vector, "info")
    plain, aad = Secret(unhex(first, "pt")), unhex(first, "aad")
    enc, sealed = hpke.seal_base(unhex(vector, "pkRm"), info, aad, plain, _ephemeral=key_of(vector, "skEm"))
    assert (enc.hex(), sealed.hex()) == (vector["enc"], first["ct"])
    assert hpke.open_base(key_of(vector, "skRm"), enc, info, aad, sealed) == plain


@pytest.mark.parametrize("vector", VECTORS)
def test_every_later_message_of_rfc_9180_opens_under_our_schedule(vector: dict[str, Any]) -> None:
    """We send one message per key; the others still test key and nonce."""
    receiver = key_of(vector, "skRm")
    shared = hpke.agree(receiver.ecdh(unhex(vector, "enc")), unhex(vector, "enc"), receiver.public_key())
    made = hpke.schedule(shared, unhex(vector, "info"))
    for number, message in enumerate(vector["encryptions"]):
        nonce = (int.from_bytes(made.base_nonce, "big") ^ number).to_bytes(12, "big")
        assert nonce.hex() == message["nonce"]
        opened = AESGCM(made.key.reveal()).decrypt(nonce, unhex(message, "ct"), unhex(message, "aad"))
        assert opened.hex() == message["pt"]


@pytest.mark.parametrize("vector", VECTORS)
def test_exports_of_rfc_9180_follow_from_our_exporter(vector: dict[str, Any]) -> None:
    ephemeral = key_of(vector, "skEm")
    shared = hpke.agree(ephemeral.ecdh(unhex(vector, "pkRm")), unhex(vector, "enc"), unhex(vector, "pkRm"))
    exporter = hpke.schedule(shared, unhex(vector, "info")).exporter.reveal()
    for export in vector["exports"]:
        label = b"\x00\x20HPKE-v1HPKE\x00\x10\x00\x01\x00\x02sec" + unhex(export, "exporter_context") + b"\x01"
        assert (export["L"], hmac.digest(exporter, label, "sha256").hex()) == (32, export["exported_value"])


@given(st.binary(max_size=200), st.binary(max_size=100), st.binary(max_size=100))
def test_pyhpke_opens_what_we_seal_and_back(plain: bytes, info: bytes, aad: bytes) -> None:
    suite = pyhpke.CipherSuite.new(
        pyhpke.KEMId.DHKEM_P256_HKDF_SHA256, pyhpke.KDFId.HKDF_SHA256, pyhpke.AEADId.AES256_GCM
    )
    private = suite.kem.deserialize_private_key(RECEIVER.to_scalar().reveal())
    enc, sealed = hpke.seal_base(RECEIVER.public_key(), info, aad, Secret(plain))
    assert suite.create_recipient_context(enc, private, info=info).open(sealed, aad=aad) == plain
    enc, sender = suite.create_sender_context(suite.kem.deserialize_public_key(RECEIVER.public_key()), info=info)
    assert hpke.open_base(RECEIVER, enc, info, aad, sender.seal(plain, aad=aad)).reveal() == plain


@pytest.mark.ceiling
@given(st.binary(max_size=200), st.binary(max_size=100))
def test_cryptography_opens_what_we_seal_and_back(plain: bytes, info: bytes) -> None:
    """Its public face has no aad, and gives enc || ciphertext."""
    from cryptography.hazmat.primitives import hpke as theirs  # the floor has none

    suite = theirs.Suite(theirs.KEM.P256, theirs.KDF.HKDF_SHA256, theirs.AEAD.AES_256_GCM)
    private = ec.derive_private_key(0x21, ec.SECP256R1())
    assert (
        suite.decrypt(b"".join(hpke.seal_base(RECEIVER.public_key(), info, b"", Secret(plain))), private, info=info)
        == plain
    )
    sealed = suite.encrypt(plain, private.public_key(), info=info)
    assert hpke.open_base(RECEIVER, sealed[:65], info, b"", sealed[65:]).reveal() == plain


@pytest.mark.parametrize("part", ["key", "enc", "info", "aad", "ciphertext", "cut", "empty"])
def test_any_other_key_context_or_ciphertext_opens_nothing(part: str) -> None:
    """T Grant for another device: only the attested key, with the exact context, gets the secrets out."""
    enc, sealed = hpke.seal_base(RECEIVER.public_key(), INFO, AAD, PLAIN)
    given_parts = {"key": RECEIVER, "enc": enc, "info": INFO, "aad": AAD, "ciphertext": sealed}
    changed: dict[str, Any] = {
        "key": {"key": OTHER},
        "enc": {"enc": OTHER.public_key()},
        "info": {"info": INFO + b"x"},
        "aad": {"aad": b""},
        "ciphertext": {"ciphertext": bytes([sealed[0] ^ 1]) + sealed[1:]},
        "cut": {"ciphertext": sealed[:-1]},
        "empty": {"ciphertext": b""},
    }
    use: dict[str, Any] = {**given_parts, **changed[part]}
    with pytest.raises(Unauthentic, match="hpke-open") as caught:
        hpke.open_base(use["key"], use["enc"], use["info"], use["aad"], use["ciphertext"])
    assert PLAIN.reveal() not in str(caught.value).encode()


class CountingKey:
    """A receiver's key that counts how often it is used."""

    def __init__(self) -> None:
        self.uses = 0

    def public_key(self) -> bytes:
        return RECEIVER.public_key()

    def ecdh(self, peer: bytes) -> Secret:
        self.uses += 1
        return RECEIVER.ecdh(peer)


@pytest.mark.parametrize("enc", [b"", bytes(65), b"\x04" + bytes(64), RECEIVER.public_key()[:64], b"\x02" + bytes(32)])
def test_enc_off_the_curve_never_reaches_the_chip(enc: bytes) -> None:
    """T Invalid-curve attack on the KEM key: hardware may not check, so we do."""
    key = CountingKey()
    with pytest.raises(Malformed, match="p256-point"):
        hpke.open_base(key, enc, INFO, AAD, bytes(32))
    assert key.uses == 0
    with pytest.raises(Malformed, match="p256-point"):
        hpke.seal_base(enc, INFO, AAD, PLAIN)


def test_two_seals_never_share_an_ephemeral_key() -> None:
    first, second = (hpke.seal_base(RECEIVER.public_key(), INFO, AAD, PLAIN) for _ in range(2))
    assert first[0] != second[0] and first[1] != second[1]


@given(st.binary(max_size=100), st.integers(0, 47), st.integers(1, 255))
def test_no_changed_byte_of_the_ciphertext_survives(garbage: bytes, at: int, mask: int) -> None:
    enc, sealed = hpke.seal_base(RECEIVER.public_key(), INFO, AAD, PLAIN)
    for wrong in (garbage, sealed[:at] + bytes([sealed[at] ^ mask]) + sealed[at + 1 :]):
        with pytest.raises(Unauthentic):
            hpke.open_base(RECEIVER, enc, INFO, AAD, wrong)
