"""The CA of a TPM maker that does not exist: it certifies EKs of software TPMs, for lab use."""

from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier

_BORN: Final = datetime(2020, 1, 1, tzinfo=UTC)
_FOREVER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""As makers do: an EK outlives its product (RFC 5280 section 4.1.2.5)."""
_ROOT_NAME: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Simulated TPM maker root")])
_TPM_NAME: Final = x509.Name(
    [
        x509.NameAttribute(ObjectIdentifier("2.23.133.2.1"), "id:53494D00"),
        x509.NameAttribute(ObjectIdentifier("2.23.133.2.2"), "swtpm"),
        x509.NameAttribute(ObjectIdentifier("2.23.133.2.3"), "id:00000001"),
    ]
)
"""tpmManufacturer, tpmModel, tpmVersion. Source: TCG EK Credential Profile, section 3.2.9."""
_EK_USE: Final = ObjectIdentifier("2.23.133.8.1")


class EkAuthority:
    """A fresh root; its key lives as long as this object."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = _start(_ROOT_NAME, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        self._root = builder.sign(self._key, hashes.SHA256())

    def root_der(self) -> bytes:
        """The root certificate, for a product's policy."""
        return self._root.public_bytes(serialization.Encoding.DER)

    def certify(self, public_pem: bytes) -> bytes:
        """An EK certificate, DER: empty subject, the TPM named in a critical subjectAltName, as real ones are."""
        public = serialization.load_pem_public_key(public_pem)
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise TypeError("not an EC key")
        builder = _start(x509.Name([]), public)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        names = x509.SubjectAlternativeName([x509.DirectoryName(_TPM_NAME)])
        builder = builder.add_extension(names, critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([_EK_USE]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.DER)


def _start(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(_ROOT_NAME).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(_BORN).not_valid_after(_FOREVER)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
