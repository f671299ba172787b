"""The card as attester: key 9A signs, and its certificate leads to a root that the issuer pins."""

import hashlib
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from mpagent.errors import ConfigWrong
from mpagent.hal.card.piv import CERTIFICATE_MAX_BYTES, Slot
from mpagent.hal.card.token import Token
from mpagent.hal.ports import Attestation, AttesterMaterial
from mpwire.errors import Malformed
from mpwire.limits import MP_MESSAGE_MAX_BYTES
from mpwire.registry import ALG_ES256

ISSUERS_MAX: Final = 3
"""x5chain has at most four, the leaf among them (wire.md 4.1)."""
CHAIN_MAX_BYTES: Final = 7_168
"""What is left of a Hello of 8192 bytes (wire.md 4.1)."""
_FILE_MAX_BYTES: Final = 65_536


class CardAttester:
    """ports.Attester of kind "card"."""

    alg: int = ALG_ES256

    def __init__(self, token: Token, chain_file: Path | None) -> None:
        self._token = token
        self._chain_file = chain_file
        self._material: AttesterMaterial | None = None

    def describe(self) -> AttesterMaterial:
        """Leaf and issuers. `public_key` is the leaf's point, of which the hardware id card-key is made: it stays
        the same when the certificate is renewed, and `attester_id` does not.

        Raises ConfigWrong when the chain file does not lead on from the leaf.
        """
        if self._material is None:
            leaf = self._token.certificate(Slot.AUTHENTICATION)
            point = self._token.point(Slot.AUTHENTICATION)
            issuers = () if self._chain_file is None else _read_issuers(self._chain_file, leaf)
            self._material = AttesterMaterial(
                kind="card",
                attester_id=hashlib.sha256(leaf).digest(),
                public_key=point,
                x5chain=(leaf, *issuers),
            )
        return self._material

    def attest(self, message: bytes) -> Attestation:
        """ES256 by key 9A. The card signs a digest, so it is hashed here."""
        if not 1 <= len(message) <= MP_MESSAGE_MAX_BYTES:
            raise Malformed(f"an attester signs 1 to {MP_MESSAGE_MAX_BYTES} bytes, not {len(message)}")
        return Attestation(self._token.sign(Slot.AUTHENTICATION, hashlib.sha256(message).digest()))


def _read_issuers(path: Path, leaf: bytes) -> tuple[bytes, ...]:
    """The certificates of a PEM file, each of which issued the one before; the leaf is the first of those."""
    try:
        with open(path, "rb") as file:
            issuers = x509.load_pem_x509_certificates(file.read(_FILE_MAX_BYTES))
    except OSError as error:
        raise ConfigWrong(f"{path}: the card's issuers cannot be read: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigWrong(f"{path}: not certificates in PEM", detail=str(error)) from error
    below = x509.load_der_x509_certificate(leaf)
    for issuer in issuers:
        _check_issued(path, below, issuer)
        below = issuer
    encoded = tuple(issuer.public_bytes(Encoding.DER) for issuer in issuers)
    too_long = max(map(len, encoded)) > CERTIFICATE_MAX_BYTES or len(leaf) + sum(map(len, encoded)) > CHAIN_MAX_BYTES
    if len(encoded) > ISSUERS_MAX or too_long:
        raise ConfigWrong(
            f"{path}: at most {ISSUERS_MAX} issuers, {CERTIFICATE_MAX_BYTES} bytes each, "
            f"and {CHAIN_MAX_BYTES} together with the card's certificate"
        )
    return encoded


def _check_issued(path: Path, below: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        below.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise ConfigWrong(
            f"{path}: {issuer.subject.rfc4514_string()} did not issue {below.subject.rfc4514_string()}",
            detail=str(error),
        ) from error
